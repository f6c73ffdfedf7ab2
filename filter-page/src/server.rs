//! The server: its sockets, what its connections share, its end.

use std::{
    future::Future,
    io,
    net::{IpAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream},
    os::unix::net::UnixListener as StdUnixListener,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream, UnixListener},
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Config, Error, Handed, Limits, Listeners,
    certificates::Certificates,
    connection::{self, Stage},
    page::Theme,
    reload::{self, Current, Rules},
    stats::{Counter, Snapshot, Stats},
    visitors::{Full, Visitors},
};

/// How long accepting waits when the system refuses: mostly for descriptors to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long somebody may take for the statistics; they are for one reader at a time.
const STATS_TIME_MAX: Duration = Duration::from_secs(1);

/// The block page's server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Listeners,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) decisions: PathBuf,
    pub(crate) certificates_in: PathBuf,
    pub(crate) reload_every: Duration,
    pub(crate) limits: Limits,
    pub(crate) theme: Theme,
    pub(crate) rules: Current<Rules>,
    pub(crate) certificates: Current<Certificates>,
    pub(crate) visitors: Arc<Visitors>,
    pub(crate) stats: Arc<Stats>,
    /// Told when the files are to be looked at without waiting for the next time.
    pub(crate) look: Notify,
    since: Timestamp,
}

impl Server {
    /// Reads rules, theme and certificates. Nothing is served before [`Server::run`].
    ///
    /// # Errors
    /// If rules or theme are not usable. Unusable certificates are no error: they are in the
    /// statistics, and HTTP without TLS is served.
    pub fn new(config: Config, listeners: Listeners) -> Result<Self, Error> {
        let limits = config.limits;
        let theme = Theme::load(config.theme.as_deref())?;
        let rules = Rules::load(&config.decisions)?;
        let visitors = Visitors::new(limits.connections, limits.connections_per_client);
        let shared = Shared {
            theme,
            rules: Current::new(rules),
            certificates: Current::new(reload::certificates(&config.certificates)),
            decisions: config.decisions,
            certificates_in: config.certificates,
            reload_every: config.reload_every,
            limits,
            visitors,
            stats: Arc::new(Stats::new()),
            look: Notify::new(),
            since: Timestamp::now(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            listeners,
        })
    }

    /// The counts, also while the server runs.
    pub fn stats(&self) -> Arc<Stats> {
        self.shared.stats.clone()
    }

    /// Serves until `shutdown` is there, then finishes answers under way, for
    /// [`Limits::stop`] at most. Runs in any tokio runtime with time and I/O; one thread is enough.
    ///
    /// # Errors
    /// If a listening socket is not usable.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let shared = self.shared;
        let (stage, stages) = watch::channel(Stage::Running);
        let mut tasks = JoinSet::new();
        for listener in self.listeners.visitors {
            let socket = format!("{listener:?}");
            let failed = |cause| Error::Listener { socket, cause };
            let listener = visitors_listener(listener, &shared.limits).map_err(failed)?;
            tasks.spawn(accept(shared.clone(), listener, stages.clone()));
        }
        if let Some(listener) = self.listeners.stats {
            let listener = stats_listener(listener).map_err(|cause| Error::Listener {
                socket: "statistics".to_owned(),
                cause,
            })?;
            tasks.spawn(tell(shared.clone(), listener));
        }
        if let Some(handed) = self.listeners.handed {
            tasks.spawn(take(shared.clone(), handed, stages.clone()));
        }
        tasks.spawn(reload::follow(shared.clone()));
        drop(stages);

        shutdown.await;
        tasks.shutdown().await;
        // Fails only if no connection is left to hear it, as below.
        let _ = stage.send(Stage::Finishing);
        if timeout(shared.limits.stop, shared.visitors.all_left())
            .await
            .is_err()
        {
            let _ = stage.send(Stage::Ending);
            shared.visitors.all_left().await;
        }
        Ok(())
    }
}

impl Shared {
    fn snapshot(&self) -> Snapshot {
        let rules = self.rules.current();
        let certificates = self.certificates.current();
        Snapshot {
            counters: self.stats.counters(),
            pages: self.stats.pages(),
            open: self.visitors.open() as u64,
            since: self.since,
            generation: rules.in_force().generation,
            rules: rules.in_force().rules.len(),
            coming: rules.coming_mark(),
            decisions_problem: rules.problem().map(str::to_owned),
            certificates: certificates.entries().collect(),
            certificate_problems: certificates.problems().to_vec(),
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, stage: watch::Receiver<Stage>) {
    loop {
        match listener.accept().await {
            Ok((tcp, client)) => admit(&shared, tcp, client.ip(), &stage),
            Err(error) if is_of_one_connection(&error) => shared.stats.count(Counter::Broken),
            Err(error) => {
                shared.stats.count(Counter::AcceptFailed);
                tracing::warn!("cannot accept connections: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn take(
    shared: Arc<Shared>,
    mut handed: mpsc::Receiver<Handed>,
    stage: watch::Receiver<Stage>,
) {
    while let Some(handed) = handed.recv().await {
        let accepted = match handed {
            Handed::Visitor(tcp) => visitor(tcp, &shared.limits),
            Handed::Lost(count) => {
                shared.stats.add(Counter::HandoverLost, count);
                continue;
            }
        };
        match accepted {
            Ok((tcp, client)) => admit(&shared, tcp, client, &stage),
            // It has ended meanwhile.
            Err(_) => shared.stats.count(Counter::Broken),
        }
    }
}

/// A connection as it comes from a listener.
fn visitor(tcp: StdTcpStream, limits: &Limits) -> io::Result<(TcpStream, IpAddr)> {
    SockRef::from(&tcp).set_send_buffer_size(limits.send_buffer_bytes)?;
    let client = tcp.peer_addr()?.ip();
    Ok((TcpStream::from_std(tcp)?, client))
}

fn admit(shared: &Arc<Shared>, tcp: TcpStream, client: IpAddr, stage: &watch::Receiver<Stage>) {
    shared.stats.count(Counter::Connections);
    let counter = match shared.visitors.enter(client) {
        Ok(place) => {
            tokio::spawn(connection::serve(shared.clone(), tcp, place, stage.clone()));
            return;
        }
        Err(Full::All) => Counter::OverConnections,
        Err(Full::Client) => Counter::OverConnectionsPerClient,
    };
    shared.stats.count(counter);
    // With a reset the client knows at once, and nothing of the connection stays.
    let _ = tcp.set_zero_linger();
}

/// Linux reports errors of a connection that ended in the queue when it is accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// Accepted sockets have the size of its buffer.
fn visitors_listener(listener: StdTcpListener, limits: &Limits) -> io::Result<TcpListener> {
    SockRef::from(&listener).set_send_buffer_size(limits.send_buffer_bytes)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn stats_listener(listener: StdUnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn tell(shared: Arc<Shared>, listener: UnixListener) {
    loop {
        let Ok((mut reader, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Who waits for new rules to be known asks again.
        shared.look.notify_one();
        match serde_json::to_vec(&shared.snapshot()) {
            Ok(mut line) => {
                line.push(b'\n');
                // Who does not take it does not get it.
                let _ = timeout(STATS_TIME_MAX, reader.write_all(&line)).await;
            }
            Err(error) => tracing::error!("cannot write the statistics: {error}"),
        }
    }
}
