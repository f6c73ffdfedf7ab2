//! The server on loopback, asked by real clients: curl, OpenSSL, Chromium, and sockets that behave badly.

mod abuse;
mod browser;
mod certificates;
mod kit;
mod pages;
mod rate;
mod requests;
mod tls;
