//! A server with rules and certificates of its own, and clients.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use filter_page::{
    Config, Listeners, Server,
    decisions::{Decisions, Rule, Text},
    stats::{Counter, Snapshot, Stats},
};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A name that a rule lists, with everything under it.
pub(crate) const BLOCKED: &str = "blocked.example";
/// A name that no rule lists, under the same wildcard certificate as [`SIBLING`].
pub(crate) const NEIGHBOUR: &str = "neighbour.shared.example";
/// A name that a rule lists, but not its siblings.
pub(crate) const SIBLING: &str = "listed.shared.example";
/// Where the rules say that everything is explained.
pub(crate) const STATEMENT: &str = "https://provider.example/statements/7";

/// How long anything on loopback may take.
const LONG: Duration = Duration::from_secs(20);

/// A running server. Ends when dropped.
pub(crate) struct Served {
    dir: TempDir,
    address: SocketAddr,
    stats: Arc<Stats>,
    /// The server's one thread, in `/proc`.
    task: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// With [`rules`], certificates for all names in them, and the default limits.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let certificates = dir.path().join("certificates");
        fs::create_dir(&certificates).expect("a directory");
        write_pair(
            &certificates,
            "blocked",
            &[BLOCKED, &format!("*.{BLOCKED}")],
        );
        write_pair(&certificates, "shared", &["*.shared.example"]);
        let decisions = dir.path().join("decisions.json");
        write_decisions(&decisions, &rules());

        let mut config = Config::new(certificates, decisions);
        config.reload_every = Duration::from_millis(20);
        change(&mut config);
        // Both families: IPv4 arrives as mapped addresses.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a free port");
        let address = SocketAddr::new(
            "127.0.0.1".parse().expect("an address"),
            listener.local_addr().expect("a bound socket").port(),
        );
        let told = UnixListener::bind(dir.path().join("stats.sock")).expect("a free path");
        let listeners = Listeners {
            visitors: vec![listener],
            stats: Some(told),
            handed: None,
        };
        let server = Server::new(config, listeners).expect("a good configuration");
        let stats = server.stats();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell_task, task) = mpsc::channel();
        let thread = thread::spawn(move || {
            let task = fs::read_link("/proc/thread-self").expect("a thread");
            tell_task
                .send(Path::new("/proc").join(task))
                .expect("a reader");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let shutdown = async { stopped.await.unwrap_or_default() };
            runtime
                .block_on(server.run(shutdown))
                .expect("good sockets");
        });
        Self {
            dir,
            address,
            stats,
            task: task.recv().expect("a thread"),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What its thread has worked so far.
    pub(crate) fn work(&self) -> Duration {
        let times = fs::read_to_string(self.task.join("schedstat")).expect("a running thread");
        let first = times.split(' ').next().and_then(|time| time.parse().ok());
        Duration::from_nanos(first.expect("nanoseconds"))
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.dir.path().join("certificates")
    }

    pub(crate) fn decisions(&self) -> PathBuf {
        self.dir.path().join("decisions.json")
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.stats.value(counter)
    }

    /// Waits for a counter to get there; a client may know sooner than the counter.
    pub(crate) fn await_count(&self, counter: Counter, at_least: u64) {
        let name = counter.name();
        wait_until(&format!("{name} {at_least}"), || {
            self.count(counter) >= at_least
        });
    }

    /// What the statistics socket says.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut socket = UnixStream::connect(self.dir.path().join("stats.sock")).expect("a server");
        let mut line = String::new();
        socket.read_to_string(&mut line).expect("a line");
        assert_eq!(line.matches('\n').count(), 1, "one line: {line}");
        serde_json::from_str(&line).expect("a snapshot")
    }

    /// Asks by curl, over TLS, and trusts all certificates of the directory.
    pub(crate) fn https(&self, name: &str, arguments: &[&str]) -> Reply {
        self.curl("https", name, arguments)
    }

    /// Asks by curl, without TLS.
    pub(crate) fn http(&self, name: &str, arguments: &[&str]) -> Reply {
        self.curl("http", name, arguments)
    }

    /// Asks the blocked origin for a name that no rule lists.
    pub(crate) fn curl_origin(&self) -> Reply {
        let to = format!("::127.0.0.9:{}", self.port());
        self.http("any.example", &["--connect-to", &to])
    }

    fn curl(&self, scheme: &str, name: &str, arguments: &[&str]) -> Reply {
        let trusted = self.dir.path().join("trusted.pem");
        fs::write(&trusted, chains(&self.certificates())).expect("a file");
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--max-time", "20"])
            .args(["--noproxy", "*", "--cacert"])
            .arg(&trusted)
            .args(arguments)
            // The first that fits counts.
            .args(["--connect-to", &format!("::{}", self.address)])
            .arg(format!("{scheme}://{name}:{}/path?query", self.port()))
            .output()
            .expect("curl");
        Reply::new(&output)
    }

    /// A plain connection on which nothing was said.
    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("a server");
        socket.set_read_timeout(Some(LONG)).expect("a socket");
        socket.set_write_timeout(Some(LONG)).expect("a socket");
        socket
    }

    /// Sends this, and reads to the end.
    pub(crate) fn say(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect();
        socket.write_all(bytes).expect("the server reads");
        read_all(&mut socket)
    }

    /// `openssl s_client`, which says nothing.
    pub(crate) fn s_client(&self, name: Option<&str>, arguments: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &self.address.to_string()]);
        match name {
            Some(name) => command.args(["-servername", name]),
            None => command.arg("-noservername"),
        };
        let output = command.args(arguments).stdin(std::process::Stdio::null());
        let output = output.output().expect("openssl");
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    }

    /// Tells it to stop, and waits for that.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What curl got.
#[derive(Debug)]
pub(crate) struct Reply {
    /// 0 if it got no answer.
    pub(crate) status: u16,
    /// Its lines, lower case up to the colon.
    headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// What curl complained about.
    #[expect(dead_code, reason = "shown when an assertion fails")]
    pub(crate) error: String,
    pub(crate) head: String,
}

impl Reply {
    fn new(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let header = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        };
        Self {
            status: status.unwrap_or_default(),
            headers: head.lines().filter_map(header).collect(),
            body: body.to_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
            head: head.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fitting = self.headers.iter().filter(|(of, _)| of == name);
        let value = fitting.next().map(|(_, value)| value.as_str());
        assert!(fitting.next().is_none(), "{name} is there once: {self:?}");
        value
    }
}

/// The rules that servers start with.
pub(crate) fn rules() -> Decisions {
    let german = Text {
        title: Some("Gesperrt zum Schutz von Leben".to_owned()),
        reason: None,
    };
    let by_name = Rule {
        id: "r-name".to_owned(),
        domains: vec![BLOCKED.to_owned()],
        hosts: vec![SIBLING.to_owned()],
        title: Some("Blocked to protect life".to_owned()),
        reason: Some("Immediate threat to <b>human</b> life & limb".to_owned()),
        text: [("de".to_owned(), german)].into(),
        authority: Some("District Court".to_owned()),
        reference: Some("7 K 12/26".to_owned()),
        statement: Some(STATEMENT.to_owned()),
        from: Some("2026-01-02T03:04:00Z".parse().expect("a time")),
        until: Some("2099-05-06T07:08:00Z".parse().expect("a time")),
        redirects: true,
        ..Rule::default()
    };
    let by_origin = Rule {
        id: "r-origin".to_owned(),
        origins: vec!["127.0.0.9".to_owned(), "::1/128".to_owned()],
        title: Some("Blocked address".to_owned()),
        redirects: true,
        ..Rule::default()
    };
    Decisions {
        generation: 3,
        mark: 0,
        rules: vec![by_name, by_origin],
        contact: Some("appeals@provider.example".to_owned()),
        languages: Vec::new(),
    }
}

/// As the controller does: beside it, then renamed over it.
pub(crate) fn write_decisions(path: &Path, decisions: &Decisions) {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(decisions).expect("JSON")).expect("a file");
    fs::rename(new, path).expect("the same directory");
}

/// `NAME.pem` and `NAME.key` for the names, valid for long.
pub(crate) fn write_pair(directory: &Path, file: &str, names: &[&str]) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    write_params(
        directory,
        file,
        CertificateParams::new(names).expect("good names"),
    );
}

pub(crate) fn write_params(directory: &Path, file: &str, params: CertificateParams) {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    fs::write(directory.join(format!("{file}.pem")), certificate.pem()).expect("a file");
    fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).expect("a file");
}

fn chains(directory: &Path) -> String {
    let files = fs::read_dir(directory).expect("a directory").flatten();
    let chains = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|of| of == "pem"));
    chains
        .map(|path| fs::read_to_string(path).unwrap_or_default())
        .collect()
}

/// Everything until the end; a reset is an end, too.
pub(crate) fn read_all(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!(
                "no end: {error}; so far {:?}",
                String::from_utf8_lossy(&bytes)
            ),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// # Panics
/// If it does not come true within a time that is long on loopback.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
