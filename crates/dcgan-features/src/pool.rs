//! Max-pooling of activation maps to a 4x4 grid (paper, section 5.1).

use std::ops::Range;

/// Rows and columns that every map is pooled to.
pub const GRID: usize = 4;

/// Features of a map of `channels` channels.
pub const fn features_of(channels: usize) -> usize {
    channels * GRID * GRID
}

/// The window of cell `i` of [`GRID`] along a side, as in PyTorch's adaptive pooling: from `floor(i side / 4)` to
/// `ceil((i + 1) side / 4)`. Windows overlap by at most one; below a side of 4 they have one element and repeat.
fn window(i: usize, side: usize) -> Range<usize> {
    i * side / GRID..((i + 1) * side).div_ceil(GRID)
}

/// Pools one image's map to 4x4 and flattens channel-major: feature `(channel x 4 + row) x 4 + column`.
///
/// # Shapes
/// - `map`: `(h, w, c)`, `sides` its height and width
/// - `out`: `16 c` values
///
/// # Panics
/// If `map` or `out` has another length.
pub fn max_pool(map: &[f32], (height, width): (usize, usize), out: &mut [f32]) {
    let channels = out.len() / (GRID * GRID);
    assert!(out.len() == features_of(channels) && map.len() == height * width * channels, "max_pool: sizes");
    let mut largest = [0.0_f32; AT_ONCE];
    for first in (0..channels).step_by(AT_ONCE) {
        let count = AT_ONCE.min(channels - first);
        let largest = &mut largest[..count];
        for cell in 0..GRID * GRID {
            largest.fill(f32::NEG_INFINITY);
            for y in window(cell / GRID, height) {
                for x in window(cell % GRID, width) {
                    let pixel = &map[(y * width + x) * channels + first..][..count];
                    for (largest, &value) in largest.iter_mut().zip(pixel) {
                        // Unlike with `f32::max`, NaN propagates and is reported later.
                        *largest = if value > *largest || value.is_nan() { value } else { *largest };
                    }
                }
            }
            for (channel, &value) in largest.iter().enumerate() {
                out[(first + channel) * GRID * GRID + cell] = value;
            }
        }
    }
}

/// Channels per block: their features stay in the first-level cache.
const AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_cover_the_side_in_order() {
        let rows: &[(usize, [Range<usize>; 4])] = &[
            (1, [0..1, 0..1, 0..1, 0..1]),
            (2, [0..1, 0..1, 1..2, 1..2]),
            (4, [0..1, 1..2, 2..3, 3..4]),
            (7, [0..2, 1..4, 3..6, 5..7]),
            (14, [0..4, 3..7, 7..11, 10..14]),
            (16, [0..4, 4..8, 8..12, 12..16]),
        ];
        for (side, expected) in rows {
            assert_eq!([0, 1, 2, 3].map(|i| window(i, *side)), *expected, "side {side}");
        }
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            channels in 1_usize..70, height in 1_usize..12, width in 1_usize..12, seed in any::<u32>(),
        ) {
            let len = channels * height * width;
            let map = (0..len).map(|i| (u64::from(seed) + i as u64).wrapping_mul(2_654_435_761) % 97);
            let map: Vec<f32> = map.map(|value| value as f32 - 48.0).collect();
            let mut out = vec![f32::NAN; channels * 16];
            max_pool(&map, (height, width), &mut out);
            for c in 0..channels {
                for cell in 0..16 {
                    let mut expected = f32::NEG_INFINITY;
                    for y in window(cell / 4, height) {
                        for x in window(cell % 4, width) {
                            expected = expected.max(map[(y * width + x) * channels + c]);
                        }
                    }
                    prop_assert_eq!(out[c * 16 + cell], expected);
                }
            }
        }
    }

    #[test]
    fn nan_propagates() {
        let mut values = vec![1.0_f32; 16];
        values[5] = f32::NAN;
        values[6] = 2.0;
        let mut out = vec![0.0; 16];
        max_pool(&values, (4, 4), &mut out);
        assert!(out[5].is_nan() && out[6] == 2.0);
    }
}
