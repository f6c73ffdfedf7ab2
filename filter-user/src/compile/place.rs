//! Placement of keys in buckets: two choices per key, the home bucket preferred,
//! and room made by moving others (cuckoo hashing).

/// Moves after which a placement is given up. At the load factors in use a key
/// needs a handful; only a table without a solution gets here.
const MOVES_MAX: usize = 1_000;

const EMPTY: u32 = u32::MAX;

/// Which key sits in which slot.
pub(super) struct Placement {
    slots: Vec<u32>,
    slots_per_bucket: usize,
}

impl Placement {
    /// Bucket, slot and key of every used slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let used = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, key)| **key != EMPTY);
        used.map(|(i, key)| {
            (
                i / self.slots_per_bucket,
                i % self.slots_per_bucket,
                *key as usize,
            )
        })
    }
}

/// Places every key in one of its two buckets (both below `bucket_count`); `None`
/// if that was not possible. `seed` varies which keys are moved.
pub(super) fn place(
    pairs: &[[u32; 2]],
    bucket_count: u32,
    slots_per_bucket: usize,
    seed: u64,
) -> Option<Placement> {
    let buckets = bucket_count as usize;
    let mut fill = vec![0u8; buckets];
    let mut slots = vec![EMPTY; buckets * slots_per_bucket];
    let mut random = seed | 1;
    for first in 0..pairs.len() {
        let mut key = u32::try_from(first).ok()?;
        let mut moves = 0;
        while !settle(
            key,
            pairs[key as usize],
            &mut fill,
            &mut slots,
            slots_per_bucket,
        ) {
            if moves == MOVES_MAX {
                return None;
            }
            moves += 1;
            // xorshift64: only variety is asked of it.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bucket = pairs[key as usize][(random & 1) as usize] as usize;
            let slot = (random >> 32) as usize % slots_per_bucket;
            std::mem::swap(&mut key, &mut slots[bucket * slots_per_bucket + slot]);
        }
    }
    Some(Placement {
        slots,
        slots_per_bucket,
    })
}

/// Puts `key` into a free slot of its home or else its alternative bucket.
fn settle(
    key: u32,
    pair: [u32; 2],
    fill: &mut [u8],
    slots: &mut [u32],
    slots_per_bucket: usize,
) -> bool {
    for bucket in pair {
        let bucket = bucket as usize;
        let used = usize::from(fill[bucket]);
        if used < slots_per_bucket {
            slots[bucket * slots_per_bucket + used] = key;
            fill[bucket] += 1;
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn full_buckets_make_room_by_moving_keys() {
        // Buckets 0 and 1 hold two each; the last key fits only if one of bucket 0 moves on to 2.
        let pairs = [[0, 2], [0, 1], [1, 0], [1, 0], [0, 1]];
        let placement = place(&pairs, 3, 2, 1).expect("there is a solution");
        let mut placed: Vec<usize> = placement
            .iter()
            .map(|(bucket, slot, key)| {
                assert!(slot < 2 && pairs[key].contains(&(bucket as u32)));
                key
            })
            .collect();
        placed.sort_unstable();
        assert_eq!(placed, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_table_without_solution_is_given_up() {
        assert!(place(&[[0, 1]; 5], 2, 2, 1).is_none());
    }
}
