//! Reverse proxies on the edge whose upstream is a blocked origin: they get the block page at once, and
//! their other upstreams as before.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use filter_tests::{
    certificate::Wildcard,
    client::{Answer, PATIENCE},
    edge::{Edge, exit},
    net::{ControlGroup, Direct},
    process::{Process, wait_for},
    site::Site,
};
use nix::sys::signal::Signal;

const ZONE: &str = "zone.example";
const NAME: &str = "origin.zone.example";

/// `CURLE_COULDNT_CONNECT`: the origin's answer became an RST.
const CURL_NO_CONNECTION: i32 = 7;

/// A page needs no packet of another host.
const AT_ONCE: Duration = Duration::from_millis(1_000);
/// Longer than a controller takes to start the page again.
const SOON: Duration = Duration::from_secs(20);

/// Ports of the proxy, one for each upstream; the last two speak TLS to it.
const UPSTREAMS: [(u16, &str, &str); 6] = [
    (8081, "http", Direct::VISITOR_V4),
    (8082, "http", Direct::VISITOR_V6),
    (8083, "http", Direct::OTHER_V4),
    (8084, "http", Direct::OTHER_V6),
    (8085, "https", Direct::VISITOR_V4),
    (8086, "https", Direct::OTHER_V6),
];

fn is_blocked(upstream: &str) -> bool {
    [Direct::VISITOR_V4, Direct::VISITOR_V6].contains(&upstream)
}

fn policy(action: &str) -> String {
    format!(
        "version = 1\n\
         [[rule]]\nid = \"other\"\nhosts = [\"x.example\"]\naction = \"redirect\"\n\
         [[rule]]\nid = \"origin\"\norigins = [\"{}\", \"{}\"]\nports = [80, 443]\naction = \"{action}\"\n\
         title = \"No way to this origin\"\n",
        Direct::VISITOR_V4,
        Direct::VISITOR_V6,
    )
}

fn configuration(group: &ControlGroup, certificates: &Path, action: &str) -> String {
    format!(
        "[local_proxies]\ncgroup = {:?}\naction = \"{action}\"\n[block_page]\ncertificates = {certificates:?}\n",
        group.path()
    )
}

fn bracketed(address: &str) -> String {
    match address.parse().expect("an address") {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Runs a program in the group.
fn inside(net: &Direct, group: &ControlGroup, program: &str) -> Command {
    let mut command = net.edge.command("sh");
    let join = format!(
        "echo $$ > {}/cgroup.procs && exec {program} \"$@\"",
        group.path().display()
    );
    command.args(["-c", &join, program]);
    command
}

fn nginx(net: &Direct, group: &ControlGroup, folder: &Path) -> Process {
    let here = folder.display();
    let servers: String = UPSTREAMS
        .iter()
        .map(|(port, scheme, upstream)| {
            format!(
                "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {scheme}://{}; \
                 proxy_set_header Host {NAME}; proxy_ssl_server_name on; proxy_ssl_name {NAME}; }} }}\n",
                bracketed(upstream)
            )
        })
        .collect();
    let text = format!(
        "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
         events {{ worker_connections 64; }}\nhttp {{ access_log off;\n\
         client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f;\n\
         uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n{servers}}}\n"
    );
    let config = folder.join("proxy.conf");
    fs::write(&config, text).expect("a configuration");
    let mut command = inside(net, group, "nginx");
    command.arg("-p").arg(folder).arg("-c").arg(config);
    command.arg("-e").arg(folder.join("error.log"));
    started("nginx", net, command)
}

fn haproxy(net: &Direct, group: &ControlGroup, folder: &Path) -> Process {
    let sections: String = UPSTREAMS
        .iter()
        .map(|(port, scheme, upstream)| {
            let (to, tls) = match *scheme {
                "https" => (443, format!(" ssl verify none sni str({NAME})")),
                _ => (80, String::new()),
            };
            format!(
                "listen l{port}\n  bind 127.0.0.1:{port}\n  http-request set-header Host {NAME}\n  \
                 server one {}:{to}{tls}\n",
                bracketed(upstream)
            )
        })
        .collect();
    let text = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  \
         timeout server 5s\n{sections}"
    );
    let config = folder.join("haproxy.cfg");
    fs::write(&config, text).expect("a configuration");
    let mut command = inside(net, group, "haproxy");
    command.arg("-db").arg("-f").arg(config);
    started("haproxy", net, command)
}

fn started(what: &str, net: &Direct, command: Command) -> Process {
    let process = Process::spawn(what, command);
    let answers = || {
        net.edge
            .run(|| std::net::TcpStream::connect(("127.0.0.1", 8086)).is_ok())
    };
    wait_for("the proxy listens", SOON, answers);
    process
}

/// What a client of the proxy gets, how soon, and with which status.
fn ask(net: &Direct, port: u16) -> (Answer, Duration) {
    let mut command = net.edge.command("curl");
    command
        .args([
            "--silent",
            "--noproxy",
            "*",
            "--write-out",
            "%{stderr}%{http_code}",
        ])
        .args(["--header", "Accept: text/plain"])
        .args(["--max-time", &PATIENCE.as_secs_f32().to_string()])
        .arg(format!("http://127.0.0.1:{port}/"));
    let begin = Instant::now();
    let output = command.output().expect("curl");
    let answer = Answer {
        status: output.status.code().unwrap_or(-1),
        body: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    (answer, begin.elapsed())
}

/// Every upstream of a proxy: blocked ones have this status at once, the others answer.
fn assert_answers(net: &Direct, status: &str) {
    for (port, scheme, upstream) in UPSTREAMS {
        let (answer, took) = ask(net, port);
        if !is_blocked(upstream) {
            assert!(answer.is_served(NAME), "{scheme} {upstream}: {answer:?}");
            continue;
        }
        assert_eq!(answer.errors, status, "{scheme} {upstream}: {answer:?}");
        assert!(took < AT_ONCE, "{scheme} {upstream}: {took:?}");
        if status == "451" {
            let is_the_rules = answer.body.contains("No way to this origin");
            assert!(is_the_rules && answer.body.contains(NAME), "{answer:?}");
        }
    }
}

#[test]
fn a_proxy_with_a_blocked_upstream_has_the_page_at_once() {
    let net = Direct::new();
    let certificate = Wildcard::new(ZONE);
    let _site = Site::start_with(&net.visitor, &[NAME], &certificate);
    let group = ControlGroup::new("pages");
    let folder = tempfile::tempdir().expect("a directory");
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy("redirect"));
    let certificates = certificate.directory();
    let with = |action| configuration(&group, &certificates, action);
    edge.configure(&[Direct::EDGE_IF], &with("page"));

    {
        let _proxy = nginx(&net, &group, folder.path());
        for (port, _, upstream) in UPSTREAMS {
            let (answer, _) = ask(&net, port);
            assert!(answer.is_served(NAME), "before, {upstream}: {answer:?}");
        }
        edge.start();
        assert_answers(&net, "451");
        let local = edge.json("counters")["answers"].clone();
        assert!(
            local
                .to_string()
                .contains("{\"answer\":\"page_local\",\"packets\":3}"),
            "{local}"
        );
        assert_eq!(edge.reason_packets("local_connection"), 3);
        assert!(edge.rule_packets("origin") >= 3);
        let (outside, body) = outside(&net);
        assert_eq!(outside, CURL_NO_CONNECTION, "not in the group: {body}");

        // Another controller goes on with the page that is there.
        edge.kill_controller();
        assert_answers(&net, "451");
        edge.start();
        assert_answers(&net, "451");

        // A page that is not served, and rules that do not lead there: the connection fails.
        let page = edge.json("status")["page"]["pid"]
            .as_i64()
            .expect("a process");
        edge.kill_controller();
        let page = nix::unistd::Pid::from_raw(i32::try_from(page).expect("a process id"));
        nix::sys::signal::kill(page, Signal::SIGKILL).expect("the page's process");
        wait_for("the page is gone", SOON, || {
            ask(&net, 8081).0.errors == "502"
        });
        assert_answers(&net, "502");
        edge.start();
        assert_answers(&net, "451");
        for action in ["refuse", "drop"] {
            edge.write_policy(&policy(action));
            wait_for("the rule leads nowhere", SOON, || {
                ask(&net, 8081).0.errors == "502"
            });
            assert_answers(&net, "502");
        }
        edge.write_policy(&policy("redirect"));
        wait_for("the rule leads to the page", SOON, || {
            ask(&net, 8081).0.errors == "451"
        });
        edge.configure(&[Direct::EDGE_IF], &with("refuse"));
        wait_for("connections fail", SOON, || {
            ask(&net, 8081).0.errors == "502"
        });
        assert_answers(&net, "502");
        edge.configure(&[Direct::EDGE_IF], &with("page"));
        wait_for("the page is back", SOON, || {
            ask(&net, 8081).0.errors == "451"
        });
    }
    let _proxy = haproxy(&net, &group, folder.path());
    assert_answers(&net, "451");
    let status = edge.run(&["status"]);
    assert_eq!(status.code, exit::OK, "{status:?}");
    assert!(
        status.stdout.contains("are led to the block page"),
        "{status:?}"
    );
}

/// What curl outside of the group gets of the blocked origin.
fn outside(net: &Direct) -> (i32, String) {
    let mut command = net.edge.command("curl");
    command.args(["--silent", "--noproxy", "*", "--max-time", "1"]);
    let output = command
        .arg(format!("http://{}/", Direct::VISITOR_V4))
        .output()
        .expect("curl");
    let body = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), body)
}

#[test]
fn nobody_outside_reaches_the_page_of_the_proxies() {
    let net = Direct::new();
    let certificate = Wildcard::new(ZONE);
    let group = ControlGroup::new("inside");
    let mut edge = Edge::new(&net.edge, &[Direct::EDGE_IF], &policy("redirect"));
    let more = configuration(&group, &certificate.directory(), "page");
    edge.configure(&[Direct::EDGE_IF], &more);
    edge.start();
    let listening = net
        .edge
        .command("ss")
        .args(["--tcp", "--listening", "--numeric", "--no-header"])
        .output()
        .expect("ss");
    let text = String::from_utf8_lossy(&listening.stdout).into_owned();
    let ports: Vec<u16> = text
        .lines()
        .filter_map(|line| {
            let local = line.split_whitespace().nth(3)?;
            assert!(local.starts_with("0.0.0.0%lo:"), "{text}");
            local.rsplit(':').next()?.parse().ok()
        })
        .collect();
    let [port] = ports[..] else {
        panic!("one socket: {text}");
    };
    let reach = |address: &str| {
        let to = format!("{address}:{port}").parse().expect("an address");
        std::net::TcpStream::connect_timeout(&to, PATIENCE).is_ok()
    };
    assert!(net.edge.run(|| reach("127.64.1.1")));
    assert!(!net.visitor.run(|| reach(Direct::EDGE_V4)));
}
