//! TCP and UDP echo servers on threads inside a namespace.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::net::Namespace;

const POLL: Duration = Duration::from_millis(20);

/// An echo server; dropping it stops its threads.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Answers TCP connections and UDP datagrams on this port of these addresses. Each has a UDP
    /// socket of its own: one for all would answer from whichever address the routes prefer.
    ///
    /// # Panics
    /// If a port is taken.
    pub fn start(namespace: &Namespace, addresses: &[&str], port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for address in addresses {
            let at = SocketAddr::new(address.parse().expect("an address"), port);
            let (tcp, udp) = namespace.run(|| {
                let tcp = TcpListener::bind(at).unwrap_or_else(|e| panic!("TCP echo on {at}: {e}"));
                let udp = UdpSocket::bind(at).unwrap_or_else(|e| panic!("UDP echo on {at}: {e}"));
                (tcp, udp)
            });
            tcp.set_nonblocking(true).expect("non-blocking listener");
            udp.set_read_timeout(Some(POLL)).expect("a read timeout");
            let (stop_tcp, stop_udp) = (Arc::clone(&stop), Arc::clone(&stop));
            threads.push(thread::spawn(move || serve_tcp(&tcp, &stop_tcp)));
            threads.push(thread::spawn(move || serve_udp(&udp, &stop_udp)));
        }
        Self { stop, threads }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                crate::net::report("echo server", &["a thread panicked".to_owned()]);
            }
        }
    }
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else {
                thread::sleep(POLL);
                continue;
            };
            scope.spawn(move || {
                let ready = stream.set_nonblocking(false);
                if ready
                    .and_then(|()| stream.set_read_timeout(Some(POLL)))
                    .is_err()
                {
                    return;
                }
                let mut buffer = [0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    match stream.read(&mut buffer) {
                        Ok(0) => return,
                        Ok(n) if stream.write_all(&buffer[..n]).is_err() => return,
                        Ok(_) => {}
                        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
            });
        }
    });
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        // A lost answer is what clients have time-outs for.
        if let Ok((n, peer)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(&buffer[..n], peer));
        }
    }
}
