//! Real clients: a blocked name is blocked every time, and an allowed one on the same address
//! served every time.

use filter_tests::{
    conform::{all, known::Checksums, scene::Scene},
    live::{Client, compare},
};

/// How many names of each sort.
fn count() -> usize {
    if all() { 100 } else { 5 }
}

fn at_server(client: Client) {
    compare(client, &Scene::server(Checksums::Partial), count());
}

fn at_router(client: Client) {
    compare(client, &Scene::router(Checksums::Partial), count());
}

#[test]
fn curl_at_a_server() {
    at_server(Client::Curl);
}

#[test]
fn curl_at_a_router() {
    at_router(Client::Curl);
}

#[test]
fn openssl_at_a_server() {
    at_server(Client::Openssl);
}

#[test]
fn openssl_at_a_router() {
    at_router(Client::Openssl);
}

#[test]
fn rustls_at_a_server() {
    at_server(Client::Rustls);
}

#[test]
fn rustls_at_a_router() {
    at_router(Client::Rustls);
}

#[test]
fn python_at_a_server() {
    at_server(Client::Python);
}

#[test]
fn go_at_a_server() {
    at_server(Client::Go);
}

#[test]
fn java_at_a_server() {
    at_server(Client::Java);
}

#[test]
fn chromium_at_a_server() {
    at_server(Client::Chromium);
}

#[test]
fn firefox_at_a_server() {
    at_server(Client::Firefox);
}
