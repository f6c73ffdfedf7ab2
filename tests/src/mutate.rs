//! Frames bent at random, the same ones in every run.

/// xorshift64* (Vigna 2016): small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }
}

/// Shortest frame that is made: what the kernel's test run takes.
const FRAME_BYTES_MIN: usize = 14;

/// Values that lengths and counts like least.
const EDGES: [u8; 8] = [0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF, 0x16, 0x45];

/// Bends a frame in one to four places: a bit, a byte, a cut, an insertion, a repetition, a run
/// copied from elsewhere, or the tail of `other` behind its own head.
pub fn mutate(frame: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bent = frame.to_vec();
    for _ in 0..=random.below(4) {
        bend(&mut bent, other, random);
    }
    if bent.len() < FRAME_BYTES_MIN {
        bent.resize(FRAME_BYTES_MIN, 0);
    }
    bent
}

fn bend(frame: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let len = frame.len();
    if len <= FRAME_BYTES_MIN {
        frame.push(random.number() as u8);
        return;
    }
    // Headers are where decisions are made: half of all places are among the first 128 bytes.
    let at = if random.below(2) == 0 {
        random.below(len.min(128))
    } else {
        random.below(len)
    };
    match random.below(8) {
        0 => frame[at] ^= 1 << random.below(8),
        1 => frame[at] = random.number() as u8,
        2 => frame[at] = EDGES[random.below(EDGES.len())],
        3 => frame.truncate(at.max(FRAME_BYTES_MIN)),
        4 => {
            let count = 1 + random.below(16);
            frame.splice(at..at, (0..count).map(|_| random.number() as u8));
        }
        5 => {
            let end = (at + 1 + random.below(16)).min(len);
            frame.drain(at..end);
        }
        6 => {
            let end = (at + 1 + random.below(32)).min(len);
            let run = frame[at..end].to_vec();
            let to = random.below(len);
            frame.splice(to..to, run);
        }
        _ => {
            frame.truncate(at.max(FRAME_BYTES_MIN));
            let from = at.min(other.len());
            frame.extend_from_slice(&other[from..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_bends_alike_and_another_does_not() {
        let (frame, other) = (vec![1; 100], vec![2; 200]);
        let run = |seed| {
            let mut random = Random::new(seed);
            (0..50)
                .map(|_| mutate(&frame, &other, &mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        assert!(run(7).iter().all(|bent| bent.len() >= FRAME_BYTES_MIN));
    }
}
