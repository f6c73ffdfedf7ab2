//! Real servers for the tables, each on a port of its own in the server's namespace.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::Duration,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use super::{ALLOWED, BLOCKED, NEUTRAL};
use crate::{
    net::Namespace,
    process::{Process, wait_for},
};

/// Longest start of a server; a Java compiler is part of one.
const START_MAX: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    dir: TempDir,
}

impl Server {
    fn start(
        namespace: &Namespace,
        program: &str,
        port: u16,
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = namespace.command(program);
        command.args(arguments(dir.path()));
        let mut process = Process::spawn(program, command);
        wait_for(program, START_MAX, || {
            assert!(process.is_running(), "{program} has ended");
            namespace.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        });
        Self { process, dir }
    }

    /// nginx: a virtual host for each name answers every request with it.
    pub fn nginx(namespace: &Namespace, port: u16) -> Self {
        Self::start(namespace, "nginx", port, |dir| {
            let path = dir.join("nginx.conf");
            write(&path, &nginx_configuration(dir, port));
            let error_log = dir.join("error.log");
            [
                "-g",
                "daemon off;",
                "-p",
                text(dir),
                "-c",
                text(&path),
                "-e",
                text(&error_log),
            ]
            .map(str::to_owned)
            .to_vec()
        })
    }

    /// HAProxy: answers every request with its Host.
    pub fn haproxy(namespace: &Namespace, port: u16) -> Self {
        Self::start(namespace, "haproxy", port, |dir| {
            let path = dir.join("haproxy.cfg");
            write(
                &path,
                &format!(
                    "global\n tune.http.maxhdr 256\ndefaults\n mode http\n option http-buffer-request\n timeout client 20s\n timeout server 20s\n timeout connect 5s\n\
                     frontend f\n bind :::{port} v4v6\n\
                     http-request return status 200 content-type text/plain \
                     lf-string \"served <%[req.hdr(host)]>\\n\"\n"
                ),
            );
            ["-db", "-f", text(&path)].map(str::to_owned).to_vec()
        })
    }

    /// Python's ssl on OpenSSL: prints `<client port> <server name>` for every hello it accepts.
    pub fn openssl(namespace: &Namespace, port: u16) -> Self {
        Self::start(namespace, "python3", port, |dir| {
            certify(dir);
            let script = dir.join("server.py");
            write(&script, include_str!("servers/openssl.py"));
            [text(&script), text(dir), &port.to_string()]
                .map(str::to_owned)
                .to_vec()
        })
    }

    /// Java's SSLServerSocket; prints as [`Server::openssl`].
    pub fn java(namespace: &Namespace, port: u16) -> Self {
        Self::start(namespace, "java", port, |dir| {
            certify(dir);
            let source = dir.join("Server.java");
            write(&source, include_str!("servers/Server.java"));
            [
                "-XX:TieredStopAtLevel=1",
                text(&source),
                text(dir),
                &port.to_string(),
            ]
            .map(str::to_owned)
            .to_vec()
        })
    }

    /// The server names that a TLS server of these saw from this client port.
    pub fn names_from(&self, port: u16) -> Vec<String> {
        let port = port.to_string();
        let log = self.process.stdout();
        log.lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(from, _)| *from == port)
            .map(|(_, name)| name.to_owned())
            .collect()
    }

    /// Where its files are, for messages.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path in UTF-8")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn certify(dir: &Path) {
    let names = [ALLOWED, BLOCKED, NEUTRAL].map(str::to_owned);
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(names).expect("a self-signed certificate");
    write(&dir.join("cert.pem"), &cert.pem());
    write(&dir.join("key.pem"), &signing_key.serialize_pem());
}

fn nginx_configuration(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    let mut text = format!(
        "master_process off;\nworker_processes 1;\npid {dir}/pid;\nevents {{ worker_connections 512; }}\n\
         http {{\naccess_log off;\n\
         client_body_temp_path {dir}/body;\nproxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi;\nuwsgi_temp_path {dir}/uwsgi;\nscgi_temp_path {dir}/scgi;\n"
    );
    for (name, default) in [
        ("default", " default_server"),
        (ALLOWED, ""),
        (BLOCKED, ""),
        (NEUTRAL, ""),
    ] {
        text.push_str(&format!(
            "server {{ listen {port}{default}; listen [::]:{port}{default}; server_name {name}; \
             location / {{ default_type text/plain; return 200 \"served <{name}>\\n\"; }} }}\n"
        ));
    }
    text.push_str("}\n");
    text
}
