//! Debug messages of the kernel program (`debug = true` in the host configuration).

use std::{io, thread, time::Duration};

use aya_log::EbpfLogger;

use super::Root;

/// Debugging is for people; nobody reads faster.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Hands the program's messages to the `log` facade, on a thread of its own for the life of the
/// process; follows the program over every swap.
///
/// # Errors
///
/// No thread could be started.
pub fn follow_kernel_log(root: Root) -> io::Result<()> {
    thread::Builder::new()
        .name("kernel-log".to_owned())
        .spawn(move || {
            let mut open: Option<(u32, Flush)> = None;
            loop {
                let running = root
                    .current_number()
                    .ok()
                    .flatten()
                    .and_then(|number| root.program_id(number).ok());
                if let Some(id) = running
                    && open.as_ref().is_none_or(|(opened, _)| *opened != id)
                {
                    open = Some((id, flusher(id)));
                }
                if let Some((_, flush)) = &mut open {
                    flush();
                }
                thread::sleep(FLUSH_EVERY);
            }
        })?;
    Ok(())
}

/// Takes what has come out of the ring.
type Flush = Box<dyn FnMut()>;

fn flusher(program_id: u32) -> Flush {
    match EbpfLogger::init_from_id(program_id) {
        Ok(mut logger) => Box::new(move || logger.flush()),
        Err(error) => {
            tracing::warn!(%error, "this generation's debug messages are not read");
            Box::new(|| {})
        }
    }
}
