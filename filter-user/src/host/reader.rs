//! Hellos outside any connection: what the path of a packet is compared with.

use filter_common::{
    abi::Protocol, hello::Progress, limits::STREAM_BYTES_MAX, work::Variable as _,
};

use super::env::{self, HostWork};

/// Reads whole streams.
pub struct Reader {
    work: Box<HostWork>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            work: env::working_area(),
        }
    }
}

impl Reader {
    /// How far the reading of a stream gets, and the names, as sent. `certain` if a request is known to
    /// start there. Of a stream longer than [`STREAM_BYTES_MAX`] only the first bytes are read, and
    /// protocols without hellos are [`Progress::Other`].
    pub fn read(
        &mut self,
        protocol: Protocol,
        stream: &[u8],
        certain: bool,
    ) -> (Progress, Vec<Vec<u8>>) {
        let stream = &stream[..stream.len().min(STREAM_BYTES_MAX)];
        let len = stream.len() as u32;
        let work = &mut *self.work;
        work.bytes[..stream.len()].copy_from_slice(stream);
        let progress = match protocol {
            Protocol::Tls => env::read_tls(work, len),
            Protocol::Http => env::read_http(work, len, certain),
            Protocol::Quic | Protocol::None => return (Progress::Other, Vec::new()),
        };
        let names = (0..work.name_count.get()).map(|index| {
            let span = work.name(index);
            work.bytes[span.at as usize..][..span.len as usize].to_vec()
        });
        (progress, names.collect())
    }
}
