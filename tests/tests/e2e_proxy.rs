//! Servers that demand a PROXY protocol header, behind the filter.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use filter_tests::{
    client::{PATIENCE, curl_with},
    edge::Edge,
    net::{Direct, Namespace},
    packet::{http::Request, tls::ClientHello},
    process::{Process, wait_for},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

const BLOCKED: &str = "blocked.example";
const NEIGHBOUR: &str = "neighbour.example";
const POLICY: &str = r#"
version = 1
[[rule]]
id = "host"
hosts = ["blocked.example"]
action = "drop"
"#;

/// Ports: nginx with TLS and without, HAProxy without.
const NGINX_TLS: u16 = 443;
const NGINX_HTTP: u16 = 80;
const HAPROXY_HTTP: u16 = 8080;
const INSPECT: &str = "[inspect]\ntls = [{ port = 443, proxy_protocol = true }]\n\
                       http = [{ port = [80, 8080], proxy_protocol = true }]\n";

/// nginx and HAProxy, which refuse connections without a header.
struct Servers {
    _processes: [Process; 2],
    _dir: TempDir,
}

impl Servers {
    fn start(namespace: &Namespace) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        let names = [BLOCKED, NEIGHBOUR].map(str::to_owned);
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("a self-signed certificate");
        write(&at("cert.pem"), &cert.pem());
        write(&at("key.pem"), &signing_key.serialize_pem());
        write(&at("nginx.conf"), &nginx_configuration(dir.path()));
        write(&at("haproxy.cfg"), &haproxy_configuration());
        let mut nginx = namespace.command("nginx");
        nginx.args(["-g", "daemon off;", "-p"]).arg(dir.path());
        nginx.arg("-c").arg(at("nginx.conf"));
        nginx.arg("-e").arg(at("error.log"));
        let mut haproxy = namespace.command("haproxy");
        haproxy.args(["-db", "-f"]).arg(at("haproxy.cfg"));
        let processes = [
            Process::spawn("nginx", nginx),
            Process::spawn("haproxy", haproxy),
        ];
        for port in [NGINX_TLS, NGINX_HTTP, HAPROXY_HTTP] {
            wait_for("the servers listen", Duration::from_secs(20), || {
                namespace.run(|| TcpStream::connect(("127.0.0.1", port)).is_ok())
            });
        }
        Self {
            _processes: processes,
            _dir: dir,
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn nginx_configuration(dir: &Path) -> String {
    let dir = dir.display();
    let mut text = format!(
        "master_process off;\nworker_processes 1;\npid {dir}/pid;\nevents {{ worker_connections 256; }}\n\
         http {{\naccess_log off;\n\
         client_body_temp_path {dir}/body;\nproxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi;\nuwsgi_temp_path {dir}/uwsgi;\nscgi_temp_path {dir}/scgi;\n\
         ssl_certificate {dir}/cert.pem;\nssl_certificate_key {dir}/key.pem;\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n"
    );
    for name in [BLOCKED, NEIGHBOUR] {
        text.push_str(&format!(
            "server {{ listen {NGINX_HTTP} proxy_protocol; listen {NGINX_TLS} ssl proxy_protocol; \
             server_name {name}; location / {{ default_type text/plain; return 200 \"served {name}\\n\"; }} }}\n"
        ));
    }
    text.push_str("}\n");
    text
}

fn haproxy_configuration() -> String {
    format!(
        "defaults\n mode http\n timeout client 20s\n timeout server 20s\n timeout connect 5s\n\
         frontend f\n bind :{HAPROXY_HTTP} accept-proxy\n\
         http-request return status 200 content-type text/plain lf-string \"served %[req.hdr(host)]\\n\"\n"
    )
}

/// A header of each version, and the local command of version 2.
fn headers() -> [Vec<u8>; 3] {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let addresses = [10, 0, 0, 9, 198, 51, 100, 1, 0x9c, 0x40, 1, 0xbb];
    [
        b"PROXY TCP4 10.0.0.9 198.51.100.1 40000 443\r\n".to_vec(),
        [&signature[..], &[0x21, 0x11, 0, 12], &addresses].concat(),
        [&signature[..], &[0x20, 0, 0, 0]].concat(),
    ]
}

/// Sends these pieces, and waits for the first bytes of an answer.
fn answer(from: &Namespace, port: u16, pieces: &[&[u8]]) -> std::io::Result<Vec<u8>> {
    let to = SocketAddr::new(Direct::EDGE_V4.parse().expect("an address"), port);
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        for piece in pieces {
            stream.write_all(piece)?;
        }
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer)?;
        answer.truncate(read);
        Ok(answer)
    })
}

/// What is sent for a name on a port.
fn hello(port: u16, name: &str) -> Vec<u8> {
    match port {
        NGINX_TLS => ClientHello::named(name)
            .extension(51, &key_share())
            .record(),
        _ => Request::to(name).bytes(),
    }
}

/// How a header and what follows are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Both in one segment.
    Together,
    /// The header alone, then pieces of this many bytes.
    Behind(usize),
    /// Byte by byte, the header too.
    Bytes,
}

impl Cut {
    fn pieces(self, both: &[u8], header: usize) -> Vec<&[u8]> {
        match self {
            Self::Together => vec![both],
            Self::Behind(piece) => {
                let (header, rest) = both.split_at(header);
                [header].into_iter().chain(rest.chunks(piece)).collect()
            }
            Self::Bytes => both.chunks(1).collect(),
        }
    }

    /// Whether servers take it: nginx and HAProxy want the header in one segment, as its
    /// specification promises them.
    fn is_accepted(self) -> bool {
        self != Self::Bytes
    }
}

/// The base point of X25519: a key that every server takes.
fn key_share() -> Vec<u8> {
    let mut share = vec![0, 36, 0, 0x1d, 0, 32, 9];
    share.extend_from_slice(&[0; 31]);
    share
}

/// Whether the server took the hello, or served the name.
fn is_served(port: u16, answer: &std::io::Result<Vec<u8>>, name: &str) -> bool {
    const SERVER_HELLO: [u8; 2] = [22, 3];
    answer.as_ref().is_ok_and(|bytes| match port {
        NGINX_TLS => bytes.starts_with(&SERVER_HELLO),
        _ => String::from_utf8_lossy(bytes).contains(&format!("served {name}")),
    })
}

#[test]
fn names_behind_proxy_headers_are_blocked_and_their_neighbours_served_however_they_are_cut() {
    let net = Direct::new();
    let _servers = Servers::start(&net.edge);
    let visitor = &net.visitor;
    let ports = [NGINX_TLS, NGINX_HTTP, HAPROXY_HTTP];
    let first = &headers()[0];
    for port in ports {
        let before = answer(visitor, port, &[first, &hello(port, BLOCKED)]);
        assert!(is_served(port, &before, BLOCKED), "{port}: {before:?}");
    }
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    edge.configure(&[Direct::EDGE_IF], INSPECT);
    assert_eq!(edge.run(&["apply"]).code, 0);
    thread::scope(|scope| {
        let mut attempts = Vec::new();
        for port in ports {
            for (version, header) in headers().into_iter().enumerate() {
                for cut in [Cut::Together, Cut::Behind(7), Cut::Behind(1), Cut::Bytes] {
                    for name in [BLOCKED, NEIGHBOUR] {
                        let (both, len) =
                            ([&header, &hello(port, name)[..]].concat(), header.len());
                        let expected = name == NEIGHBOUR && cut.is_accepted();
                        if name == NEIGHBOUR && !expected {
                            continue;
                        }
                        attempts.push(scope.spawn(move || {
                            let answer = answer(visitor, port, &cut.pieces(&both, len));
                            let what = format!("port {port} header {version} {cut:?} {name}");
                            (what, is_served(port, &answer, name), expected, answer)
                        }));
                    }
                }
            }
        }
        for attempt in attempts {
            let (what, served, expected, answer) = attempt.join().expect("no panic");
            assert_eq!(served, expected, "{what}: {answer:?}");
        }
    });
    // nginx may have refused cut headers before the name came.
    assert!(edge.rule_packets("host") >= 3 * 3 * 3 + 3);
}

#[test]
fn curl_behind_a_proxy_header_is_blocked_by_name() {
    let net = Direct::new();
    let _servers = Servers::start(&net.edge);
    let edge = Edge::new(&net.edge, &[Direct::EDGE_IF], POLICY);
    edge.configure(&[Direct::EDGE_IF], INSPECT);
    assert_eq!(edge.run(&["apply"]).code, 0);
    for scheme in ["http", "https"] {
        let fetch = |name: &str| {
            let url = format!("{scheme}://{name}/");
            curl_with(&net.visitor, &url, Direct::EDGE_V4, &["--haproxy-protocol"])
        };
        assert!(fetch(NEIGHBOUR).is_served(NEIGHBOUR), "{scheme}");
        assert!(!fetch(BLOCKED).is_served(BLOCKED), "{scheme}");
    }
    // Without the header the server refuses, and the filter has read it nevertheless.
    let before = edge.rule_packets("host");
    let without = curl_with(
        &net.visitor,
        &format!("https://{BLOCKED}/"),
        Direct::EDGE_V4,
        &[],
    );
    assert!(!without.is_served(BLOCKED));
    assert!(edge.rule_packets("host") > before);
}
