//! Max-pooling of activation maps to a 4x4 grid (paper, section 5.1).

use candle_core::{Device, Storage, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Rows and columns that every map is pooled to.
pub const GRID: usize = 4;

/// Features that a map of `channels` channels gives.
pub const fn features_of(channels: usize) -> usize {
    channels * GRID * GRID
}

/// The window of cell `i` of [`GRID`] along a side: a quarter of it where 4 divides the side, else from `floor(i side / 4)`
/// to `ceil((i + 1) side / 4)`, windows that overlap by at most one (PyTorch's adaptive pooling). A side below 4 gives
/// windows of one that repeat.
fn window(i: usize, side: usize) -> Range<usize> {
    i * side / GRID..((i + 1) * side).div_ceil(GRID)
}

/// Pools `maps` to 4x4 and flattens channel-major: feature `(channel x 4 + row) x 4 + column`.
///
/// # Shapes
/// - `maps`: `(n, c, h, w)`; fastest where its memory is channels-last, as the CPU executor leaves it
/// - `out`: n rows of `stride` values; this map's `c x 16` go to `offset` in each
///
/// # Errors
/// Those of candle: a tensor of another rank or type, the device.
///
/// # Panics
/// Where `out` is too short: a mistake of the caller.
pub fn max_pool(maps: &Tensor, out: &mut [f32], stride: usize, offset: usize) -> candle_core::Result<()> {
    let (n, channels, height, width) = maps.dims4()?;
    let width_of_map = features_of(channels);
    assert!(out.len() >= n * stride && offset + width_of_map <= stride, "max_pool: the output is too short");
    // (n, h, w, c)
    let maps = maps.to_device(&Device::Cpu)?.permute((0, 2, 3, 1))?.contiguous()?;
    let (storage, layout) = maps.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { candle_core::bail!("activations did not come to the host") };
    let values = &storage.as_slice::<f32>()?[layout.start_offset()..];
    let picture = height * width * channels;
    out.par_chunks_mut(stride).zip(values.par_chunks(picture)).take(n).for_each_init(
        || vec![0.0_f32; channels],
        |largest, (row, map)| {
            let row = &mut row[offset..offset + width_of_map];
            for cell in 0..GRID * GRID {
                largest.fill(f32::NEG_INFINITY);
                for y in window(cell / GRID, height) {
                    for x in window(cell % GRID, width) {
                        let pixel = &map[(y * width + x) * channels..][..channels];
                        for (largest, &value) in largest.iter_mut().zip(pixel) {
                            // Unlike `f32::max` this lets a NaN through, so that it is found and named later.
                            *largest = if value > *largest || value.is_nan() { value } else { *largest };
                        }
                    }
                }
                for (channel, &value) in largest.iter().enumerate() {
                    row[channel * GRID * GRID + cell] = value;
                }
            }
        },
    );
    Ok(())
}

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
            n in 1_usize..3, channels in 1_usize..5, height in 1_usize..12, width in 1_usize..12, seed in any::<u32>(),
        ) {
            let len = n * channels * height * width;
            let values: Vec<f32> =
                (0..len).map(|i| ((u64::from(seed) + i as u64).wrapping_mul(2_654_435_761) % 97) as f32 - 48.0).collect();
            let maps = Tensor::from_vec(values.clone(), (n, channels, height, width), &Device::Cpu).unwrap();
            let stride = channels * 16 + 3;
            let mut out = vec![f32::NAN; n * stride];
            max_pool(&maps, &mut out, stride, 2).unwrap();
            for (i, row) in out.chunks(stride).enumerate() {
                for c in 0..channels {
                    for cell in 0..16 {
                        let mut expected = f32::NEG_INFINITY;
                        for y in window(cell / 4, height) {
                            for x in window(cell % 4, width) {
                                expected = expected.max(values[((i * channels + c) * height + y) * width + x]);
                            }
                        }
                        prop_assert_eq!(row[2 + c * 16 + cell], expected);
                    }
                }
                prop_assert!(row[0].is_nan() && row[stride - 1].is_nan());
            }
        }
    }

    #[test]
    fn a_nan_comes_through() {
        let mut values = vec![1.0_f32; 16];
        values[5] = f32::NAN;
        values[6] = 2.0;
        let maps = Tensor::from_vec(values, (1, 1, 4, 4), &Device::Cpu).unwrap();
        let mut out = vec![0.0; 16];
        max_pool(&maps, &mut out, 16, 0).unwrap();
        assert!(out[5].is_nan() && out[6] == 2.0);
    }
}
