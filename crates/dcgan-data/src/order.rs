//! Shuffling and mirroring, from random streams keyed by seed and position.

use rand::RngCore;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use dcgan_base::digest::Digest;
use dcgan_base::random::shuffle;

/// The permutation of `0..len` for `epoch`: Fisher-Yates with a ChaCha12 stream keyed by (seed, "shuffle", epoch).
pub(crate) fn epoch_order(len: u32, seed: u64, epoch: u64) -> Vec<u32> {
    let mut rng = ChaCha12Rng::from_seed(Digest::default().number(seed).field("shuffle").number(epoch).key());
    let mut order: Vec<u32> = (0..len).collect();
    shuffle(&mut rng, &mut order);
    order
}

/// Random mirroring of batch `batch` of `epoch`: each call returns whether to mirror the next image.
pub(crate) fn mirrored(seed: u64, epoch: u64, batch: u64) -> impl FnMut() -> bool {
    let key = Digest::default().number(seed).field("mirror").number(epoch).number(batch).key();
    let mut rng = ChaCha12Rng::from_seed(key);
    move || rng.next_u32() & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_a_permutation_that_depends_only_on_seed_and_epoch() {
        for len in [1, 2, 7, 1000] {
            let mut sorted = epoch_order(len, 5, 3);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..len).collect::<Vec<_>>());
        }
        assert_eq!(epoch_order(50, 5, 3), epoch_order(50, 5, 3));
        assert_ne!(epoch_order(50, 5, 3), epoch_order(50, 5, 4));
        assert_ne!(epoch_order(50, 5, 3), epoch_order(50, 6, 3));
    }

    /// Checkpoints contain positions in this order: if it changed, old runs would resume with other batches.
    #[test]
    fn the_order_is_pinned() {
        assert_eq!(epoch_order(10, 7, 0), PINNED);
    }

    const PINNED: [u32; 10] = [3, 0, 1, 6, 4, 7, 9, 8, 2, 5];
}
