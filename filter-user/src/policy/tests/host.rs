//! `edgefilter.toml`.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::super::{
    ConfigError, load_host_config,
    model::{AttachMode, HostConfig, InspectPorts, InterfaceConfig, Metrics, Outcome, Takeover},
    parse_host_config,
};

fn config(text: &str) -> Result<HostConfig, ConfigError> {
    parse_host_config(
        text,
        Path::new("edgefilter.toml"),
        Path::new("/etc/edgefilter"),
    )
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(config("").unwrap(), HostConfig::default());
    let default = HostConfig::default();
    assert_eq!(default.tls, InspectPorts::List(vec![443]));
    assert_eq!(default.http, InspectPorts::List(vec![80]));
    assert_eq!(default.quic, InspectPorts::List(vec![443]));
    assert_eq!(
        (default.protect_self, default.events_per_window),
        (true, 64)
    );
}

#[test]
fn every_key_is_understood() {
    let text = r#"
interfaces = ["eth0", { name = "eth1", mode = "generic" }]
policy = "policy.toml"
debug = true
[inspect]
serves = ["192.0.2.0/24"]
tls = "any"
http = ["8080-8082", 80, { port = [8090, 81], proxy_protocol = true }, { port = 82 }]
quic = []
no_sni = "drop"
http2 = "drop"
[protect]
prefixes = ["2001:db8::/32", "10.0.0.0/8"]
names = ["Status.example."]
domains = ["bücher.example"]
self = false
[events]
per_window = 0
"#;
    let config = config(text).unwrap();
    let interface = |name: &str, mode| InterfaceConfig {
        name: name.into(),
        mode,
    };
    assert_eq!(
        config.interfaces,
        [
            interface("eth0", AttachMode::Auto),
            interface("eth1", AttachMode::Generic)
        ]
    );
    assert_eq!(
        config.policy,
        Some(PathBuf::from("/etc/edgefilter/policy.toml"))
    );
    assert_eq!(config.serves, Some(vec!["192.0.2.0/24".parse().unwrap()]));
    assert_eq!(config.tls, InspectPorts::Any);
    assert_eq!(
        config.http,
        InspectPorts::List(vec![80, 81, 82, 8080, 8081, 8082, 8090])
    );
    assert_eq!(config.proxy_protocol, InspectPorts::List(vec![81, 8090]));
    assert_eq!(
        (config.no_sni, config.http2),
        (Outcome::Drop, Outcome::Drop)
    );
    assert_eq!(config.quic, InspectPorts::List(Vec::new()));
    assert_eq!(config.protect_prefixes.len(), 2);
    assert_eq!(config.protect_names[0].as_str(), "status.example");
    assert_eq!(config.protect_domains[0].as_str(), "xn--bcher-kva.example");
    assert!(!config.protect_self && config.debug);
    assert_eq!(config.events_per_window, 0);
}

#[test]
fn the_block_page_is_configured_in_a_table_of_its_own() {
    let config = config(
        "[block_page]\ncertificates = \"certs\"\nports = [443, \"8000-8001\"]\nlanguages = [\"de\"]\n\
         contact = \"abuse@provider.example\"\nuser = \"page\"\nconnections = 7\ntimeout_s = 3\n\
         takeover = \"repair\"\n\
         [inspect]\nquic_refuse = true",
    )
    .unwrap();
    let page = &config.block_page;
    assert!(page.certificates.as_ref().unwrap().ends_with("certs"));
    assert!(page.certificates.as_ref().unwrap().is_absolute());
    assert_eq!(page.ports, [443, 8000, 8001]);
    assert_eq!(page.languages, ["de"]);
    assert_eq!((page.connections, page.timeout.as_secs()), (7, 3));
    assert_eq!(page.takeover, Takeover::Repair);
    assert!(config.quic_refuse);
}

#[test]
fn interfaces_may_be_written_as_tables() {
    let config = config("[[interfaces]]\nname = \"eth0\"\nmode = \"native\"\n").unwrap();
    assert_eq!(config.interfaces[0].mode, AttachMode::Native);
}

#[test]
fn mistakes_are_refused_with_a_message() {
    for (text, message) in [
        (
            "interfaces = \"eth0\"",
            "`interfaces`: expected a list, found a string",
        ),
        ("interfaces = [5]", "this is not an interface"),
        (
            "interfaces = [\"eth0\", \"eth0\"]",
            "the interface \"eth0\" is listed twice",
        ),
        (
            "interfaces = [\"../eth0\"]",
            "\"../eth0\" cannot be the name of an interface",
        ),
        (
            "interfaces = [\"sixteen-letters-\"]",
            "\"sixteen-letters-\" cannot be the name of an interface",
        ),
        (
            "interfaces = [{ mode = \"auto\" }]",
            "this interface has no `name`",
        ),
        (
            "interfaces = [{ name = \"a\", mode = \"navite\" }]",
            "this is not a mode of attaching",
        ),
        ("interface = [\"eth0\"]", "unknown key \"interface\""),
        ("inspect = 5", "expected a table, found an integer"),
        (
            "[inspect]\nserves = []",
            "`serves` is an empty list, so no name would be read",
        ),
        (
            "[inspect]\nserves = [\"192.0.2.1/24\"]",
            "\"192.0.2.1/24\": bits are set beyond the prefix length",
        ),
        (
            "[inspect]\ntls = \"all\"",
            "\"all\" is not a port or a range of ports",
        ),
        (
            "[inspect]\nno_sni = \"refuse\"",
            "`no_sni` cannot be \"refuse\"",
        ),
        (
            "[inspect]\nquic_refuse = \"yes\"",
            "`quic_refuse`: invalid type: string \"yes\", expected a boolean",
        ),
        (
            "[block_page]\nports = \"any\"",
            "the block page listens on at most 256 ports",
        ),
        (
            "[block_page]\nconnections = 0",
            "`connections` cannot be \"0\"",
        ),
        (
            "[block_page]\ntakeover = \"kfunc\"",
            "`takeover` cannot be \"kfunc\"",
        ),
        (
            "[block_page]\nlanguages = [\"Deutsch\"]",
            "\"Deutsch\" is not the tag of a language",
        ),
        (
            "[block_page]\ncertificate = \"certs\"",
            "unknown key \"certificate\"",
        ),
        (
            "[inspect]\nhttp2 = \"allow\"",
            "`http2` cannot be \"allow\"",
        ),
        (
            "[inspect]\ntls = [{ proxy_protocol = true }]",
            "this entry has no `port`",
        ),
        (
            "[inspect]\ntls = [{ port = 443, proxy = true }]",
            "unknown key \"proxy\"",
        ),
        (
            "[inspect]\ntls = [true]",
            "`tls`: this is no port and no range of ports",
        ),
        (
            "[inspect]\nquic = [{ port = 443, proxy_protocol = true }]",
            "the PROXY protocol is read over TCP only",
        ),
        (
            "[inspect]\ntls = [0]",
            "0 is not a port or a range of ports",
        ),
        (
            "[protect]\nnames = [\"*.a.example\"]",
            "\"*.a.example\": stars are not understood in host names",
        ),
        (
            "[protect]\nself = 1",
            "`self`: invalid type: integer `1`, expected a boolean",
        ),
        (
            "[events]\nper_window = -1",
            "this is not a possible number of events",
        ),
        ("[events]\nper_windows = 1", "unknown key \"per_windows\""),
    ] {
        let error = config(text).unwrap_err();
        let first = &error.report.diagnostics[0];
        assert_eq!(first.message, message, "{text}");
        assert!(first.line.is_some() && first.help.is_some(), "{text}");
    }
}

#[test]
fn an_error_is_rendered_in_full() {
    let error = config("[inspect]\nservs = [\"192.0.2.0/24\"]\n").unwrap_err();
    let expected = "\
error: unknown key \"servs\"
 --> edgefilter.toml:2:1
  |
2 | servs = [\"192.0.2.0/24\"]
  | ^^^^^
  |
  = help: did you mean `serves`?";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_missing_file_is_named() {
    let error = load_host_config(Path::new("/nonexistent/edgefilter.toml")).unwrap_err();
    let expected = "\
error: cannot read the file: there is no such file
--> /nonexistent/edgefilter.toml
 = help: check the path, or create the file";
    assert_eq!(error.to_string(), expected);
}

proptest! {
    #[test]
    fn any_text_loads_or_is_refused_without_a_panic(text in "(?s).{0,200}") {
        let _ = config(&text);
    }
}

#[test]
fn local_proxies_are_refused_or_led_to_the_page() {
    let proxies = |text: &str| config(&format!("[local_proxies]\ncgroup = \"/sys/x\"\n{text}"));
    assert!(!config("").unwrap().local_page);
    assert!(!proxies("").unwrap().local_page);
    assert!(!proxies("action = \"refuse\"").unwrap().local_page);
    let page = proxies("action = \"page\"").unwrap();
    assert!(page.local_page);
    assert_eq!(page.local_proxies, Some("/sys/x".into()));
    let refused = proxies("action = \"pages\"").unwrap_err().to_string();
    assert!(refused.contains("did you mean `page`?"), "{refused}");
    let without = config("[local_proxies]\naction = \"page\"").unwrap_err();
    assert!(without.to_string().contains("no `cgroup`"), "{without}");
}

#[test]
fn metrics_are_told_where_it_says_and_nowhere_else() {
    let metrics = |text: &str| config(&format!("[metrics]\n{text}")).map(|it| it.metrics);
    let listen = |text| metrics(text).unwrap().listen.map(|it| it.to_string());
    assert_eq!(config("").unwrap().metrics, Metrics::default());
    assert_eq!(
        listen("listen = \"[::1]:9469\"").as_deref(),
        Some("[::1]:9469")
    );
    assert_eq!(listen("listen = 9469").as_deref(), Some("127.0.0.1:9469"));
    let file = metrics("file = \"x/edgefilter.prom\"").unwrap().file;
    assert_eq!(file, Some("/etc/edgefilter/x/edgefilter.prom".into()));
    for (text, said) in [
        ("", "neither `listen` nor `file`"),
        ("listen = \"localhost:9469\"", "no address to listen on"),
        ("listen = \"127.0.0.1\"", "no address to listen on"),
        ("listen = 0", "no address to listen on"),
        ("listen = 70000", "no address to listen on"),
        ("listen = \"127.0.0.1:0\"", "no address to listen on"),
        ("file = \"edgefilter.txt\"", "end in `.prom`"),
        ("listen = 1\nother = 2", "other"),
    ] {
        let refused = metrics(text).unwrap_err().to_string();
        assert!(refused.contains(said), "{text}: {refused}");
    }
}
