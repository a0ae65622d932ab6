//! Shuffling and mirroring, from random streams keyed by seed and position.

use rand::RngCore;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use crate::block::{Block, WINDOW_BYTES};
use dcgan_base::digest::Digest;
use dcgan_base::random::shuffle;

/// The permutation of `0..len` for `epoch`: Fisher-Yates with a ChaCha12 stream keyed by (seed, "shuffle", epoch).
pub(crate) fn epoch_order(len: u32, seed: u64, epoch: u64) -> Vec<u32> {
    let mut rng = ChaCha12Rng::from_seed(Digest::default().number(seed).field("shuffle").number(epoch).key());
    let mut order: Vec<u32> = (0..len).collect();
    shuffle(&mut rng, &mut order);
    order
}

/// The permutation of `0..len` for `epoch` where images are read in `blocks`: the blocks are shuffled, and then the
/// images within each window, the next blocks with [`WINDOW_BYTES`] or more together. Streams are keyed by (seed,
/// "blocks", epoch) and (seed, "window", epoch, window).
pub(crate) fn windowed_order(len: u32, blocks: &[Block], seed: u64, epoch: u64) -> Vec<u32> {
    let stream = |digest: &mut Digest| ChaCha12Rng::from_seed(digest.key());
    let number = |first: usize| u32::try_from(first).unwrap_or(u32::MAX).min(len);
    let ends = blocks.iter().skip(1).map(|block| number(block.first)).chain([len]);
    let mut ranges: Vec<(u32, u32, u64)> =
        blocks.iter().zip(ends).map(|(block, end)| (number(block.first), end, block.bytes)).collect();
    shuffle(&mut stream(Digest::default().number(seed).field("blocks").number(epoch)), &mut ranges);
    let mut order = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    let (mut first, mut bytes, mut window) = (0, 0, 0);
    let count = ranges.len();
    for (i, (start, end, size)) in ranges.into_iter().enumerate() {
        order.extend(start..end);
        bytes += size;
        if bytes >= WINDOW_BYTES || i + 1 == count {
            let mut key = Digest::default();
            key.number(seed).field("window").number(epoch).number(window);
            shuffle(&mut stream(&mut key), order.get_mut(first..).unwrap_or_default());
            (first, bytes, window) = (order.len(), 0, window + 1);
        }
    }
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

    #[test]
    fn windows_are_permutations_of_few_blocks() {
        // 100 blocks of 7 images, 4 of them a window.
        let blocks: Vec<Block> =
            (0..100).map(|block| Block { first: block * 7, bytes: WINDOW_BYTES / 4 }).collect();
        let order = windowed_order(700, &blocks, 5, 3);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..700).collect::<Vec<_>>());
        for window in order.chunks(28) {
            let mut read: Vec<u32> = window.iter().map(|image| image / 7).collect();
            assert!(!read.is_sorted(), "images of a window are shuffled");
            read.sort_unstable();
            read.dedup();
            assert_eq!(read.len(), 4, "{window:?}");
        }
        let again = |seed, epoch| windowed_order(700, &blocks, seed, epoch);
        assert_eq!(order, again(5, 3));
        assert!(order != again(5, 4) && order != again(6, 3));
        let small = [Block { first: 0, bytes: 9 }, Block { first: 4, bytes: 9 }];
        assert_eq!(windowed_order(10, &small, 7, 0), PINNED_WINDOW);
    }

    /// Checkpoints contain positions in this order: if it changed, old runs would resume with other batches.
    #[test]
    fn the_order_is_pinned() {
        assert_eq!(epoch_order(10, 7, 0), PINNED);
    }

    const PINNED_WINDOW: [u32; 10] = [7, 4, 8, 2, 6, 1, 9, 0, 5, 3];

    const PINNED: [u32; 10] = [3, 0, 1, 6, 4, 7, 9, 8, 2, 5];
}
