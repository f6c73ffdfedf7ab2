//! Deny lists of hostnames beside the proxies that people use for them: connections per second of one
//! processor, with client and server on it.
//!
//! A client connects, sends a ClientHello and waits for the first byte, again and again, one connection
//! after the other. What a filter costs a connection is the difference of the times with and without it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use filter_tests::{net::Direct, packet::tls::ClientHello, process::Process};

use crate::{
    cases::BLOCKED_NAME,
    harness::{pin, pin_process},
    loads,
    report::{Row, Unit},
    sources::{Random, names},
};

/// The case's name.
pub(crate) const CASE: &str = "sni_allowed";

/// The proxy, or the server itself.
const PORT: u16 = 443;
/// The server behind a proxy.
const BEHIND: u16 = 9_001;

/// Names that no list has, in turns: HAProxy remembers what it was asked last (10,000 names).
const NAMES: usize = 16_384;

/// All that takes part runs there.
const CPU: usize = 0;

/// A proxy reads a list of a million names for some seconds.
const START_MAX: Duration = Duration::from_secs(60);

/// Longer than any connection takes; a list that is searched from end to end takes 10 ms.
const CONNECTION_MAX: Duration = Duration::from_secs(5);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Samples of each contender; odd, so that the median is one of them.
    pub(crate) rounds: usize,
    pub(crate) sample: Duration,
    /// Names on the list, ascending.
    pub(crate) sizes: &'static [usize],
}

impl Effort {
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        sample: Duration::from_millis(100),
        sizes: &[1_000],
    };
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        sample: Duration::from_millis(500),
        sizes: &[1_000, 100_000, 1_000_000],
    };
}

/// Who keeps the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeper {
    /// Nobody.
    Nothing,
    Edgefilter,
    /// `tcp-request content reject` by `req.ssl_sni`, names compared without regard to case.
    Haproxy,
    /// A map of `$ssl_preread_server_name`.
    Nginx,
}

impl Keeper {
    const ALL: [Self; 4] = [Self::Nothing, Self::Edgefilter, Self::Haproxy, Self::Nginx];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Edgefilter => "edgefilter",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Whether the server listens behind it, on a port of its own.
    const fn is_proxy(self) -> bool {
        matches!(self, Self::Haproxy | Self::Nginx)
    }
}

/// One of them, at work.
struct Site {
    keeper: Keeper,
    entries: usize,
    net: Direct,
    _server: Server,
    _proxy: Option<Process>,
    samples: Vec<f64>,
}

/// Rows for connections to a name that is not on the list, with lists of each size.
pub(crate) fn measure(
    binary: &Path,
    folder: &Path,
    effort: Effort,
    random: &mut Random,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let hellos: Vec<_> = (0..NAMES).map(|number| hello(&unlisted(number))).collect();
    let mut hellos = hellos.iter().cycle();
    for &entries in effort.sizes {
        let lists = Lists::new(entries, folder, random)?;
        let mut sites = Vec::new();
        for keeper in Keeper::ALL {
            if keeper != Keeper::Nothing || rows.is_empty() {
                sites.push(Site::new(keeper, binary, &lists)?);
            }
        }
        for _ in 0..effort.rounds {
            for site in &mut sites {
                let figure = site.rate(&mut hellos, effort.sample)?;
                site.samples.push(figure);
            }
        }
        rows.extend(sites.iter().map(Site::row));
    }
    Ok(rows)
}

impl Site {
    fn new(keeper: Keeper, binary: &Path, lists: &Lists) -> Result<Self> {
        let net = Direct::new();
        let port = if keeper.is_proxy() { BEHIND } else { PORT };
        let server = Server::new(&net, port)?;
        let proxy = match keeper {
            Keeper::Nothing => None,
            Keeper::Edgefilter => {
                loads::apply(&net.edge, binary, &[Direct::EDGE_IF], &lists.policy)?;
                None
            }
            Keeper::Haproxy => Some(haproxy(&net, lists)?),
            Keeper::Nginx => Some(nginx(&net, lists)?),
        };
        let site = Self {
            keeper,
            entries: if keeper == Keeper::Nothing {
                0
            } else {
                lists.entries
            },
            net,
            _server: server,
            _proxy: proxy,
            samples: Vec::new(),
        };
        site.await_first()?;
        site.refuses()?;
        Ok(site)
    }

    fn row(&self) -> Row {
        let (case, contender) = (CASE, self.keeper.name());
        Row::new(
            case,
            contender,
            self.entries,
            Unit::PerSecond,
            &self.samples,
        )
    }

    /// Connections per second.
    fn rate<'a>(
        &self,
        hellos: &mut (impl Iterator<Item = &'a Vec<u8>> + Send),
        length: Duration,
    ) -> Result<f64> {
        let connect = || {
            pin(CPU)?;
            let (begin, mut connections) = (Instant::now(), 0_u32);
            while begin.elapsed() < length {
                let hello = hellos.next().context("a hello")?;
                if !ask(hello, CONNECTION_MAX)? {
                    bail!("a connection to a name that is not listed was not answered");
                }
                connections += 1;
            }
            Ok(f64::from(connections) / begin.elapsed().as_secs_f64())
        };
        let rate = self.net.visitor.run(connect);
        rate.with_context(|| format!("{CASE} of {}", self.keeper.name()))
    }

    /// A proxy takes its time to read a long list.
    fn await_first(&self) -> Result<()> {
        let hello = hello(&unlisted(0));
        let begin = Instant::now();
        self.net.visitor.run(|| {
            while begin.elapsed() < START_MAX {
                if ask(&hello, CONNECTION_MAX).unwrap_or(false) {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(20));
            }
            bail!("{} does not answer", self.keeper.name())
        })
    }

    /// Who does not keep the list has no place in the table.
    fn refuses(&self) -> Result<()> {
        let hello = hello(BLOCKED_NAME);
        let answered = self
            .net
            .visitor
            .run(|| ask(&hello, Duration::from_millis(300)).unwrap_or(false));
        if answered != (self.keeper == Keeper::Nothing) {
            bail!("{} does not keep its list", self.keeper.name());
        }
        Ok(())
    }
}

fn unlisted(number: usize) -> String {
    format!("www{number}.neighbour.example")
}

fn hello(name: &str) -> Vec<u8> {
    ClientHello::new().sni(name).padding(200).record()
}

/// Sends a hello on a new connection; whether there is an answer.
fn ask(hello: &[u8], patience: Duration) -> Result<bool> {
    let mut stream = TcpStream::connect((Direct::EDGE_V4, PORT))?;
    reset_on_close(&stream)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(hello)?;
    Ok(stream.read(&mut [0; 1])? == 1)
}

/// No port waits for the last segments of an earlier connection.
pub(crate) fn reset_on_close(stream: &TcpStream) -> Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: an option of this type, and its size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot set SO_LINGER");
    }
    Ok(())
}

/// Reads a hello and answers with a byte, for one connection after the other, until it is dropped.
struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(net: &Direct, port: u16) -> Result<Self> {
        let listener = net
            .edge
            .run(|| TcpListener::bind((Direct::EDGE_V4, port)))
            .context("cannot listen")?;
        let accepting = listener.try_clone()?;
        let thread = thread::spawn(move || {
            if pin(CPU).is_err() {
                return;
            }
            while let Ok((stream, _)) = accepting.accept() {
                // A client that goes away is none of the server's business.
                let _ = answer(stream);
            }
        });
        Ok(Self {
            listener,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: our own socket; `accept` on it returns an error from now on.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RD) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECTION_MAX))?;
    if stream.read(&mut [0; 4_096])? != 0 {
        stream.write_all(b"x")?;
    }
    Ok(())
}

/// A list of names in the form of each who keeps it.
struct Lists {
    entries: usize,
    policy: PathBuf,
    /// One name a line.
    plain: PathBuf,
    /// Entries of a map from names to nowhere.
    map: PathBuf,
    folder: PathBuf,
}

impl Lists {
    fn new(entries: usize, within: &Path, random: &mut Random) -> Result<Self> {
        let folder = within.join(format!("names-{entries}"));
        let file = |name: &str| folder.join(name);
        let lists = Self {
            entries,
            policy: file("policy.toml"),
            plain: file("names.txt"),
            map: file("map"),
            folder: folder.clone(),
        };
        let plain = format!("{BLOCKED_NAME}\n{}", names(entries - 1, random));
        let map: String = plain
            .lines()
            .map(|name| format!("{name} {NOWHERE};\n"))
            .collect();
        let policy = "version = 1\n\
                      [[rule]]\nid = \"names\"\nhosts_file = \"names.txt\"\naction = \"drop\"\n";
        fs::create_dir(&folder)
            .and_then(|()| fs::write(&lists.plain, plain))
            .and_then(|()| fs::write(&lists.map, map))
            .and_then(|()| fs::write(&lists.policy, policy))
            .with_context(|| format!("cannot write to {}", folder.display()))?;
        Ok(lists)
    }
}

fn haproxy(net: &Direct, lists: &Lists) -> Result<Process> {
    let config = lists.folder.join("haproxy.cfg");
    let names = lists.plain.display();
    let text = format!(
        "global\n  nbthread 1\n  maxconn 2000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         frontend visitors\n  bind {address}:{PORT}\n  tcp-request inspect-delay 5s\n  \
         tcp-request content reject if {{ req.ssl_sni -i -f {names} }}\n  \
         tcp-request content accept if {{ req.ssl_hello_type 1 }}\n  default_backend server\n\
         backend server\n  server one {address}:{BEHIND}\n",
        address = Direct::EDGE_V4,
    );
    fs::write(&config, text)?;
    let mut command = net.edge.command("haproxy");
    command.arg("-db").arg("-f").arg(config);
    started("haproxy", command)
}

/// Port 9 is the one that discards; nothing listens on it.
const NOWHERE: &str = "127.0.0.1:9";

fn nginx(net: &Direct, lists: &Lists) -> Result<Process> {
    let folder = lists.folder.display();
    let config = lists.folder.join("nginx.conf");
    let text = format!(
        "load_module {NGINX_STREAM};\n\
         daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;\n\
         events {{ worker_connections 1024; }}\n\
         stream {{\n  map_hash_max_size 4194304; map_hash_bucket_size 128;\n  \
         map $ssl_preread_server_name $to {{ include {map}; default {address}:{BEHIND}; }}\n  \
         server {{ listen {address}:{PORT}; ssl_preread on; proxy_pass $to; }}\n}}\n",
        map = lists.map.display(),
        address = Direct::EDGE_V4,
    );
    fs::write(&config, text)?;
    let mut command = net.edge.command("nginx");
    command
        .arg("-p")
        .arg(&lists.folder)
        .arg("-e")
        .arg(lists.folder.join("nginx.log"))
        .arg("-c")
        .arg(config);
    started("nginx", command)
}

/// Where Debian's libnginx-mod-stream puts it.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

fn started(what: &str, command: Command) -> Result<Process> {
    let process = Process::spawn(what, command);
    pin_process(process.pid().as_raw(), CPU)?;
    Ok(process)
}
