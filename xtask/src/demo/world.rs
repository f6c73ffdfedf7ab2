//! The namespaces, addresses, certificates and servers of the demo, and their removal.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::shell;

use super::{
    BLOCKED_ORIGIN_V4, BLOCKED_ORIGIN_V6, NAMES, NEIGHBOUR_ORIGIN_V4, NEIGHBOUR_ORIGIN_V6,
};

/// Where the edge serves all names.
pub(super) const EDGE_V4: &str = "198.51.100.1";
pub(super) const EDGE_V6: &str = "2001:db8:51::1";

/// The edge's interface towards the visitor.
pub(super) const EDGE_INTERFACE: &str = "eth0";

const EDGE_INNER_V4: &str = "203.0.113.1";
const EDGE_INNER_V6: &str = "2001:db8:113::1";
const VISITOR_V4: &str = "198.51.100.2";
const VISITOR_V6: &str = "2001:db8:51::2";

/// Namespaces are called `efdemo-<pid>-<serial>-<role>`: what a killed demo left is told by its dead pid.
const PREFIX: &str = "efdemo";
static SERIAL: AtomicU32 = AtomicU32::new(0);
const NAMESPACES: &str = "/run/netns";

/// Folders that hold what edgefilter leaves per namespace.
const PINS: &str = "/sys/fs/bpf/edgefilter";
const RUN_STATE: &str = "/run/edgefilter";

/// How long a server may take to listen.
const START_MAX: Duration = Duration::from_secs(5);

/// Everything outside the filter. Dropping it removes it all.
pub(super) struct World {
    pub(super) visitor: Namespace,
    pub(super) edge: Namespace,
    origin: Namespace,
    folder: PathBuf,
    servers: Vec<Child>,
    removed: bool,
}

/// A named network namespace.
pub(super) struct Namespace {
    name: String,
}

impl World {
    /// Makes everything and waits until the servers listen.
    pub(super) fn new() -> Result<Self> {
        sweep()?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{}-{serial}", process::id());
        let namespace = |role: &str| Namespace {
            name: format!("{PREFIX}-{unique}-{role}"),
        };
        let mut world = Self {
            visitor: namespace("visitor"),
            edge: namespace("edge"),
            origin: namespace("origin"),
            folder: shell::target_dir().join(format!("demo-{unique}")),
            servers: Vec::new(),
            removed: false,
        };
        world
            .connect()
            .context("cannot make the demo's namespaces")?;
        world.serve().context("cannot start the demo's servers")?;
        Ok(world)
    }

    /// A folder for this demo alone.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The certificates of all servers, which clients trust.
    pub(super) fn certificates(&self) -> PathBuf {
        self.folder.join("trusted.pem")
    }

    /// What a server answers for a name.
    pub(super) fn page(name: &str) -> String {
        format!("this is {name}\n")
    }

    /// From now on connections are accepted by the kernel and nobody answers.
    #[cfg(test)]
    pub(super) fn stop_servers(&self) {
        for server in &self.servers {
            shell::run(shell::command("kill").args(["-STOP", &server.id().to_string()])).unwrap();
        }
    }

    /// Ends the servers and removes everything; the first error, after trying all of it.
    pub(super) fn remove(mut self) -> Result<()> {
        self.remove_all()
    }

    fn connect(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        for namespace in [&self.visitor, &self.edge, &self.origin] {
            ip(&["netns", "add", &namespace.name])?;
            namespace.ip(&["link", "set", "lo", "up"])?;
            namespace.skip_address_detection()?;
        }
        self.visitor.join("eth0", &self.edge, EDGE_INTERFACE)?;
        self.origin.join("eth0", &self.edge, "eth1")?;
        for (namespace, interface, addresses) in [
            (&self.visitor, "eth0", &[VISITOR_V4, VISITOR_V6][..]),
            (&self.edge, EDGE_INTERFACE, &[EDGE_V4, EDGE_V6]),
            (&self.edge, "eth1", &[EDGE_INNER_V4, EDGE_INNER_V6]),
            (
                &self.origin,
                "eth0",
                &[BLOCKED_ORIGIN_V4, BLOCKED_ORIGIN_V6],
            ),
            (
                &self.origin,
                "eth0",
                &[NEIGHBOUR_ORIGIN_V4, NEIGHBOUR_ORIGIN_V6],
            ),
        ] {
            for address in addresses {
                namespace.address(interface, address)?;
            }
        }
        for (namespace, gateways) in [
            (&self.visitor, [EDGE_V4, EDGE_V6]),
            (&self.origin, [EDGE_INNER_V4, EDGE_INNER_V6]),
        ] {
            for gateway in gateways {
                namespace.ip(&["route", "add", "default", "via", gateway])?;
            }
        }
        // Not in a network of the edge's own, which would protect it from being blocked.
        self.edge
            .ip(&["route", "add", BLOCKED_ORIGIN_V6, "dev", "eth1"])?;
        self.edge.forward()
    }

    fn serve(&mut self) -> Result<()> {
        let mut trusted = String::new();
        for name in NAMES {
            trusted += &self.certificate(name)?;
        }
        fs::write(self.certificates(), trusted).context("cannot write the certificates")?;
        let names = NAMES.map(|name| self.site_by_name(name)).concat();
        let origins = [
            BLOCKED_ORIGIN_V4,
            BLOCKED_ORIGIN_V6,
            NEIGHBOUR_ORIGIN_V4,
            NEIGHBOUR_ORIGIN_V6,
        ]
        .map(site_by_address)
        .concat();
        let edge = self.nginx(&self.edge, "edge", &names)?;
        self.servers.push(edge);
        let origin = self.nginx(&self.origin, "origin", &origins)?;
        self.servers.push(origin);
        self.edge.wait_for(EDGE_V4, 443)?;
        self.origin.wait_for(BLOCKED_ORIGIN_V4, 80)
    }

    /// A self-signed certificate; returns it as PEM.
    fn certificate(&self, name: &str) -> Result<String> {
        let [key, certificate] =
            ["key", "pem"].map(|end| self.folder.join(format!("{name}.{end}")));
        shell::read(
            shell::command("openssl")
                .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
                .args([
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-subj",
                    &format!("/CN={name}"),
                ])
                .args(["-addext", &format!("subjectAltName=DNS:{name}"), "-keyout"])
                .arg(key)
                .arg("-out")
                .arg(&certificate),
        )?;
        fs::read_to_string(&certificate)
            .with_context(|| format!("cannot read {}", certificate.display()))
    }

    fn site_by_name(&self, name: &str) -> String {
        let folder = self.folder.display();
        let page = World::page(name).replace('\n', "\\n");
        format!(
            "server {{ server_name {name};\n\
             listen {EDGE_V4}:80; listen {EDGE_V4}:443 ssl;\n\
             listen [{EDGE_V6}]:80; listen [{EDGE_V6}]:443 ssl;\n\
             ssl_certificate {folder}/{name}.pem; ssl_certificate_key {folder}/{name}.key;\n\
             return 200 \"{page}\"; }}\n"
        )
    }

    fn nginx(&self, namespace: &Namespace, role: &str, sites: &str) -> Result<Child> {
        let folder = self.folder.join(role);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join("nginx.conf");
        let shown = folder.display();
        let configuration = format!(
            "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log;\n\
             events {{}}\n\
             http {{ access_log off; default_type text/plain;\n\
             client_body_temp_path {shown}/1; proxy_temp_path {shown}/2;\n\
             fastcgi_temp_path {shown}/3; uwsgi_temp_path {shown}/4; scgi_temp_path {shown}/5;\n\
             {sites}}}\n"
        );
        fs::write(&path, configuration)
            .with_context(|| format!("cannot write {}", path.display()))?;
        namespace
            .command("nginx")
            .arg("-e")
            .arg(folder.join("error.log"))
            .arg("-c")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start nginx")
    }

    fn remove_all(&mut self) -> Result<()> {
        if self.removed {
            return Ok(());
        }
        self.removed = true;
        let mut result = Ok(());
        let mut note = |step: Result<()>| {
            if let Err(error) = step
                && result.is_ok()
            {
                result = Err(error);
            }
        };
        for server in &mut self.servers {
            note(server.kill().context("cannot end a server"));
            note(server.wait().map(drop).context("cannot wait for a server"));
        }
        for namespace in [&self.visitor, &self.edge, &self.origin] {
            note(namespace.remove());
        }
        note(remove_folder(&self.folder));
        result
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = self.remove_all() {
            eprintln!("warning: not everything was removed: {error:#}");
        }
    }
}

impl Namespace {
    /// A command that runs inside. `ip netns exec` would remount `/sys` and hide the BPF file
    /// system; `nsenter --net` enters nothing but the network.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = shell::command("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg(program);
        command
    }

    pub(super) fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    fn join(&self, interface: &str, peer: &Self, peer_interface: &str) -> Result<()> {
        let inside = [
            "link", "add", interface, "netns", &self.name, "type", "veth", "peer",
        ];
        ip(&[&inside[..], &["name", peer_interface, "netns", &peer.name]].concat())?;
        self.ip(&["link", "set", interface, "up"])?;
        peer.ip(&["link", "set", peer_interface, "up"])
    }

    /// Usable at once: without duplicate address detection.
    fn address(&self, interface: &str, address: &str) -> Result<()> {
        let (length, nodad) = if address.contains(':') {
            (64, &["nodad"][..])
        } else {
            (24, &[][..])
        };
        let address = format!("{address}/{length}");
        self.ip(&[&["address", "add", &address, "dev", interface], nodad].concat())
    }

    fn forward(&self) -> Result<()> {
        self.write_settings(&["ipv4/ip_forward", "ipv6/conf/all/forwarding"], 1)
    }

    /// New interfaces can be used at once: no duplicate address detection, for link-local
    /// addresses either.
    fn skip_address_detection(&self) -> Result<()> {
        self.write_settings(
            &["ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad"],
            0,
        )
    }

    /// Writes below `/proc/sys/net`, which shows each process its own namespace.
    fn write_settings(&self, keys: &[&str], value: u8) -> Result<()> {
        for key in keys {
            let script = format!("echo {value} > /proc/sys/net/{key}");
            shell::read(self.command("sh").args(["-c", &script]))?;
        }
        Ok(())
    }

    /// Waits until something inside listens.
    fn wait_for(&self, address: &str, port: u16) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        let script = format!("exec 3<>/dev/tcp/{address}/{port}");
        while Instant::now() < deadline {
            let tried = shell::output(self.command("bash").args(["-c", &script]))?;
            if tried.status.success() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("nothing listens on {address} port {port} in {}", self.name)
    }

    /// Ends what runs inside and removes the namespace with what edgefilter keeps for it.
    fn remove(&self) -> Result<()> {
        let Ok(metadata) = fs::metadata(self.path()) else {
            return Ok(());
        };
        let pids = shell::read(shell::command("ip").args(["netns", "pids", &self.name]))?;
        for pid in pids.split_whitespace() {
            // It may have ended in the meantime.
            shell::output(shell::command("kill").args(["-KILL", pid]))?;
        }
        for folder in [PINS, RUN_STATE] {
            remove_folder(&Path::new(folder).join(format!("netns-{}", metadata.ino())))?;
        }
        ip(&["netns", "delete", &self.name])
    }
}

/// A site on an origin's address.
fn site_by_address(address: &str) -> String {
    let page = World::page(address).replace('\n', "\\n");
    let listen = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    format!("server {{ listen {listen}:80; return 200 \"{page}\"; }}\n")
}

/// Removes what demos left that were killed before they could.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').nth(1));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            Namespace { name }.remove()?;
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    shell::read(shell::command("ip").args(arguments)).map(drop)
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
