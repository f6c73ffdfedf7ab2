//! A visitor's socket: what was read ahead, bytes counted, and a bound on taking nothing.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use crate::stats::{Counter, Stats};

/// First byte of a TLS record that can begin a connection: a handshake's.
const TLS_HANDSHAKE: u8 = 0x16;

/// What begins an HTTP/2 connection without TLS (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a visitor speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Tls,
    Http,
    /// Without TLS.
    Http2,
    /// The connection ended before it began.
    Nothing,
}

/// A socket that knows what was read of it already.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    ahead: [u8; HTTP2_PREFACE.len()],
    /// What of `ahead` is yet to be given out.
    ahead_from: usize,
    ahead_to: usize,
    write_max: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// When its time ends.
    until: Instant,
    /// Whether the client took nothing for too long.
    is_stuck: bool,
    stats: Arc<Stats>,
}

impl Socket {
    pub(crate) fn new(
        tcp: TcpStream,
        write_max: Duration,
        until: Instant,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            tcp,
            ahead: [0; HTTP2_PREFACE.len()],
            ahead_from: 0,
            ahead_to: 0,
            write_max,
            stalled: None,
            until,
            is_stuck: false,
            stats,
        }
    }

    /// Reads as many bytes ahead as it takes to know what is spoken.
    pub(crate) async fn opening(&mut self) -> io::Result<Opening> {
        loop {
            let seen = &self.ahead[..self.ahead_to];
            match seen {
                [] => {}
                [TLS_HANDSHAKE, ..] => return Ok(Opening::Tls),
                _ if seen == HTTP2_PREFACE => return Ok(Opening::Http2),
                _ if !HTTP2_PREFACE.starts_with(seen) => return Ok(Opening::Http),
                _ => {}
            }
            let count = self.tcp.read(&mut self.ahead[self.ahead_to..]).await?;
            if count == 0 && self.ahead_to == 0 {
                return Ok(Opening::Nothing);
            }
            if count == 0 {
                return Ok(Opening::Http);
            }
            self.stats.add(Counter::BytesIn, count as u64);
            self.ahead_to += count;
        }
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(result) => {
                self.stalled = None;
                if let Ok(count) = result {
                    self.stats.add(Counter::BytesOut, count as u64);
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                let write_max = self.write_max;
                let stalled = self
                    .stalled
                    .get_or_insert_with(|| Box::pin(sleep(write_max)));
                if stalled.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.is_stuck = true;
                self.stats.count(Counter::WriteTimeout);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl Drop for Socket {
    /// Out of time, nothing is left to the kernel: it would go on for minutes with a client that takes nothing,
    /// and nobody would count that connection.
    fn drop(&mut self) {
        if self.is_stuck || Instant::now() >= self.until {
            // Without it the kernel's own limit ends it.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ahead = &this.ahead[this.ahead_from..this.ahead_to];
        if !ahead.is_empty() {
            let count = ahead.len().min(buffer.remaining());
            buffer.put_slice(&ahead[..count]);
            this.ahead_from += count;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.tcp).poll_read(cx, buffer);
        this.stats
            .add(Counter::BytesIn, (buffer.filled().len() - before) as u64);
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.tcp).poll_write(cx, bytes);
        this.written(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.tcp).poll_write_vectored(cx, slices);
        this.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
