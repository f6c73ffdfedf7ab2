//! One connection: what is spoken on it, the handshake, the requests, the end.

use std::{
    convert::Infallible,
    error::Error as _,
    future::{poll_fn, ready},
    io,
    net::SocketAddr,
    sync::Arc,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    linger,
    server::Shared,
    service::Session,
    socket::{Opening, Socket},
    stats::Counter,
    tls::{self, Failure},
    visitors::Place,
};

/// An HTTP/2 server's empty SETTINGS, then GOAWAY with `HTTP_1_1_REQUIRED` (RFC 9113, 6.5, 6.8, 7).
const GOAWAY: [u8; 26] = [
    0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, // SETTINGS, no entries
    0x00, 0x00, 0x08, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, // GOAWAY, eight bytes
    0x00, 0x00, 0x00, 0x00, // no stream was looked at
    0x00, 0x00, 0x00, 0x0d, // HTTP_1_1_REQUIRED
];

/// The least that the HTTP library takes for a buffer.
const BUFFER_BYTES_MIN: usize = 8192;

/// How far the server's own end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Running,
    /// Answers under way are finished.
    Finishing,
    /// Everything ends.
    Ending,
}

/// Serves a connection to its end, which comes after [`crate::Limits::lifetime`] at the latest.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    tcp: TcpStream,
    place: Place,
    mut stage: watch::Receiver<Stage>,
) {
    let until = Instant::now() + shared.limits.lifetime;
    let conversation = timeout_at(until, converse(&shared, tcp, until, stage.clone()));
    let ending = stage.wait_for(|stage| *stage == Stage::Ending);
    tokio::select! {
        ended = conversation => if ended.is_err() {
            shared.stats.count(Counter::LifetimeEnded);
        },
        _ = ending => shared.stats.count(Counter::Stopped),
    }
    drop(place);
}

async fn converse(
    shared: &Arc<Shared>,
    tcp: TcpStream,
    until: Instant,
    stage: watch::Receiver<Stage>,
) {
    let (limits, stats) = (&shared.limits, &shared.stats);
    let deadline = Instant::now() + limits.handshake;
    // Without it an answer in two parts waits for an acknowledgement; it is not worth failing for.
    let _ = tcp.set_nodelay(true);
    let Ok(destination) = tcp.local_addr() else {
        return stats.count(Counter::Broken);
    };
    let mut socket = Socket::new(tcp, limits.write, until, stats.clone());
    let opening = match timeout_at(deadline, socket.opening()).await {
        Ok(Ok(opening)) => opening,
        Ok(Err(_)) => return stats.count(Counter::Broken),
        Err(_) => return stats.count(Counter::SilentTimeout),
    };
    match opening {
        Opening::Nothing => {}
        Opening::Http => requests(shared, socket, destination, None, stage).await,
        Opening::Http2 => {
            stats.count(Counter::Http2Refused);
            if socket.write_all(&GOAWAY).await.is_ok() {
                linger::close(socket, limits).await;
            }
        }
        Opening::Tls => {
            let certificates = shared.certificates.current();
            let handshake = tls::handshake(socket, &certificates, destination.ip().to_canonical());
            match timeout_at(deadline, handshake).await {
                Ok(Ok(stream)) => {
                    stats.count(Counter::Handshakes);
                    let name = stream.get_ref().1.server_name().map(str::to_owned);
                    requests(shared, stream, destination, name, stage).await;
                }
                Ok(Err(Failure { counter, socket })) => {
                    stats.count(counter);
                    if let Some(socket) = socket {
                        linger::close(socket, limits).await;
                    }
                }
                Err(_) => stats.count(Counter::HandshakeTimeout),
            }
        }
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    stream: S,
    destination: SocketAddr,
    tls_name: Option<String>,
    mut stage: watch::Receiver<Stage>,
) {
    let limits = &shared.limits;
    let session = Session::new(shared.clone(), destination, tls_name);
    let service = service_fn(|request| ready(Ok::<_, Infallible>(session.answer(&request))));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_head)
        .max_headers(limits.headers)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(BUFFER_BYTES_MIN))
        .serve_connection(TokioIo::new(stream), service);
    let mut is_finishing = false;
    let result = loop {
        tokio::select! {
            result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break result,
            _ = stage.wait_for(|stage| *stage != Stage::Running), if !is_finishing => {
                is_finishing = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let is_answered = match result {
        Ok(()) => true,
        Err(error) => count_error(shared, &session, &error),
    };
    let stream = connection.into_parts().io.into_inner();
    if is_answered && !linger::close(stream, limits).await {
        shared.stats.count(Counter::Cut);
    }
}

/// Whether an answer is on its way: to a request that was none.
fn count_error(shared: &Shared, session: &Session, error: &hyper::Error) -> bool {
    let counter = if error.is_timeout() && session.requests() > 0 {
        Counter::IdleClosed
    } else if error.is_timeout() {
        Counter::HeadTimeout
    } else if error.is_parse() {
        Counter::BadRequests
    } else if is_stalled(error) {
        // Counted by the socket.
        return false;
    } else {
        Counter::Broken
    };
    shared.stats.count(counter);
    error.is_parse()
}

fn is_stalled(error: &hyper::Error) -> bool {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}
