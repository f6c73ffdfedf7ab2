//! Frames that the program holds back because bytes before them are missing. On a live
//! interface the sender repeats them; a capture has them once, so they are kept here.

use std::collections::HashMap;

use super::flows::Side;

/// Frames kept of one direction of one flow: more than a hello of the longest size has.
pub(super) const HELD_FRAMES_PER_FLOW_MAX: usize = 256;

/// Bytes kept over all flows.
pub(super) const HELD_BYTES_MAX: usize = 64 << 20;

/// One direction of a flow.
type Direction = (usize, Side);

/// The frames held back, by direction.
#[derive(Default)]
pub(super) struct Held {
    frames: HashMap<Direction, Vec<Vec<u8>>>,
    bytes: usize,
}

impl Held {
    /// Keeps a frame; `false` if a limit forbids it.
    #[must_use]
    pub(super) fn keep(&mut self, direction: Direction, frame: Vec<u8>) -> bool {
        let frames = self.frames.entry(direction).or_default();
        if frames.len() >= HELD_FRAMES_PER_FLOW_MAX || self.bytes + frame.len() > HELD_BYTES_MAX {
            return false;
        }
        self.bytes += frame.len();
        frames.push(frame);
        true
    }

    /// Takes all frames of a direction, in the order of their arrival.
    pub(super) fn take(&mut self, direction: Direction) -> Vec<Vec<u8>> {
        let frames = self.frames.remove(&direction).unwrap_or_default();
        self.bytes -= frames.iter().map(Vec::len).sum::<usize>();
        frames
    }

    /// The directions that still have frames, and how many.
    pub(super) fn left(&self) -> impl Iterator<Item = (Direction, usize)> {
        self.frames
            .iter()
            .filter(|(_, frames)| !frames.is_empty())
            .map(|(&direction, frames)| (direction, frames.len()))
    }
}
