//! A real web server with several names on one address: nginx, TLS on 443 and HTTP on 80.

use std::{fs, path::Path, time::Duration};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use crate::{
    certificate::Wildcard,
    net::Namespace,
    process::{Process, wait_for},
};

/// In a virtual host: requests for other names than the hello's are sent back, and HTTP/3 is
/// offered.
const MODERN: &str = "set $greeted $host; if ($https) { set $greeted $ssl_server_name; } \
                      if ($greeted != $host) { return 421; } \
                      add_header Alt-Svc 'h3=\":443\"; ma=86400';";

/// A running server. Each virtual host answers every request with its own name in the body;
/// unknown and missing names get `default`.
#[derive(Debug)]
pub struct Site {
    process: Process,
    dir: TempDir,
}

impl Site {
    /// Serves these names on every address of the namespace.
    ///
    /// # Panics
    /// If nginx is missing or does not come up, with its error log.
    pub fn start(namespace: &Namespace, names: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        write_certificate(dir.path(), names);
        let text = configuration(dir.path(), names, "ssl", "");
        Self::run(namespace, dir, &text)
    }

    /// As [`Site::start`], with HTTP/2 and this certificate. Answers `421` if the name of the
    /// request is not that of the hello, and offers HTTP/3 on the same port, which it does not
    /// have.
    ///
    /// # Panics
    /// As there.
    pub fn start_with(namespace: &Namespace, names: &[&str], certificate: &Wildcard) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (from, name) in [
            (certificate.certificate(), "cert.pem"),
            (certificate.key(), "key.pem"),
        ] {
            fs::copy(from, dir.path().join(name)).expect("a copied file");
        }
        let text = configuration(dir.path(), names, "ssl http2", MODERN);
        Self::run(namespace, dir, &text)
    }

    fn run(namespace: &Namespace, dir: TempDir, configuration: &str) -> Self {
        fs::write(dir.path().join("nginx.conf"), configuration).expect("a configuration file");
        let mut command = namespace.command("nginx");
        command.args(["-g", "daemon off;", "-p"]).arg(dir.path());
        command.arg("-c").arg(dir.path().join("nginx.conf"));
        command.arg("-e").arg(dir.path().join("error.log"));
        let process = Process::spawn("nginx", command);
        let mut site = Self { process, dir };
        let mut exited = false;
        wait_for(
            "nginx answers (Debian package nginx)",
            Duration::from_secs(10),
            || {
                exited = !site.process.is_running();
                exited || namespace.run(|| std::net::TcpStream::connect("127.0.0.1:443").is_ok())
            },
        );
        assert!(
            !exited,
            "nginx exited: {}{}",
            site.process.stderr(),
            site.error_log()
        );
        site
    }

    /// Its process, which is one.
    pub fn pid(&self) -> nix::unistd::Pid {
        self.process.pid()
    }

    /// What nginx complained about.
    pub fn error_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default()
    }
}

fn write_certificate(dir: &Path, names: &[&str]) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(names).expect("a self-signed certificate");
    fs::write(dir.join("cert.pem"), cert.pem()).expect("a certificate file");
    fs::write(dir.join("key.pem"), signing_key.serialize_pem()).expect("a key file");
}

/// `tls` is how it listens on port 443, `more` what each virtual host does first.
fn configuration(dir: &Path, names: &[&str], tls: &str, more: &str) -> String {
    let dir = dir.display();
    // One worker in the same process, so that killing it leaves nothing behind.
    let mut text = format!(
        "master_process off;\nworker_processes 1;\npid {dir}/pid;\nevents {{ worker_connections 256; }}\n\
         http {{\naccess_log off;\nserver_names_hash_bucket_size 128;\n\
         client_body_temp_path {dir}/body;\nproxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi;\nuwsgi_temp_path {dir}/uwsgi;\nscgi_temp_path {dir}/scgi;\n\
         ssl_certificate {dir}/cert.pem;\nssl_certificate_key {dir}/key.pem;\n"
    );
    let mut server = |name: &str, default: &str| {
        text.push_str(&format!(
            "server {{ listen 80{default}; listen [::]:80{default}; listen 443 {tls}{default}; \
             listen [::]:443 {tls}{default}; server_name {name}; {more} \
             location / {{ default_type text/plain; return 200 \"served {name}\\n\"; }} }}\n"
        ));
    };
    server("default", " default_server");
    for name in names {
        server(name, "");
    }
    text.push_str("}\n");
    text
}
