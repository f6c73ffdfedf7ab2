//! Closing so that what was said arrives: a socket closed on unread bytes resets the connection, and
//! the client may lose the answer to it.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use crate::config::Limits;

/// Bytes thrown away at a time.
const CHUNK: usize = 4096;

/// Closes the own direction, then reads on for a while. Whether the client closed, too.
pub(crate) async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    limits: &Limits,
) -> bool {
    if stream.shutdown().await.is_err() {
        return true;
    }
    drained(&mut stream, limits.drain_bytes, limits.drain).await
}

async fn drained<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes_max: usize,
    time_max: Duration,
) -> bool {
    let all = async {
        let mut chunk = [0; CHUNK];
        let mut left = bytes_max;
        while left > 0 {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return true,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
        false
    };
    timeout(time_max, all).await.unwrap_or(false)
}
