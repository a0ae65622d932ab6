//! Whether the pixels of two images agree, but for a small shift, brightness and the losses of compression.

use super::SHAPE;

const SIDE: usize = 32;
/// Distance around a pixel whose mean is subtracted: fine structure tells images apart whose colors are alike.
const RADIUS: usize = 2;
/// Largest shift in pixels.
const SHIFT: usize = 1;
/// Standard deviation of the fine structure, in grey levels, below which images are too flat for it.
const FLAT: f32 = 2.0;

/// The correlation, from -1 to 1, of the fine structure of two images `(32, 32, 3)` at the best of nine shifts. Flat
/// images are compared by their pixels.
pub fn correlation(a: &[u8], b: &[u8]) -> f32 {
    let (first, second) = (fine(a), fine(b));
    if deviation(&first) < FLAT || deviation(&second) < FLAT {
        return 1.0 - difference(a, b) / 8.0;
    }
    let mut best = -1.0_f32;
    for y in 0..=2 * SHIFT {
        for x in 0..=2 * SHIFT {
            best = best.max(shifted(&first, &second, y, x));
        }
    }
    best
}

/// Each value without the mean of its surroundings, by channel.
fn fine(image: &[u8]) -> Vec<f32> {
    let value = |y: usize, x: usize, c: usize| f32::from(image[(y * SIDE + x) * SHAPE.channels + c]);
    let mut out = Vec::with_capacity(image.len());
    // Sums of rows first: the surroundings are a square.
    let near = |i: usize| i.saturating_sub(RADIUS)..(i + RADIUS + 1).min(SIDE);
    let mut rows = vec![0.0; image.len()];
    for y in 0..SIDE {
        for x in 0..SIDE {
            for c in 0..SHAPE.channels {
                let range = near(x);
                let n = range.len() as f32;
                rows[(y * SIDE + x) * SHAPE.channels + c] = range.map(|x| value(y, x, c)).sum::<f32>() / n;
            }
        }
    }
    for y in 0..SIDE {
        for x in 0..SIDE {
            for c in 0..SHAPE.channels {
                let range = near(y);
                let n = range.len() as f32;
                let mean = range.map(|y| rows[(y * SIDE + x) * SHAPE.channels + c]).sum::<f32>() / n;
                out.push(value(y, x, c) - mean);
            }
        }
    }
    out
}

fn deviation(values: &[f32]) -> f32 {
    (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt()
}

/// The root mean squared difference of pixels without their means.
fn difference(a: &[u8], b: &[u8]) -> f32 {
    let mean = |image: &[u8]| image.iter().map(|&value| f32::from(value)).sum::<f32>() / image.len() as f32;
    let (first, second) = (mean(a), mean(b));
    let squares = a.iter().zip(b).map(|(&a, &b)| (f32::from(a) - first - f32::from(b) + second).powi(2));
    (squares.sum::<f32>() / a.len() as f32).sqrt()
}

/// The correlation where `b` is moved by `(y - 1, x - 1)` pixels, over the pixels that both have then.
fn shifted(a: &[f32], b: &[f32], y: usize, x: usize) -> f32 {
    let c = SHAPE.channels;
    let width = (SIDE - 2 * SHIFT) * c;
    let (mut product, mut squares_a, mut squares_b) = (0.0_f32, 0.0_f32, 0.0_f32);
    for row in 0..SIDE - 2 * SHIFT {
        let at = |y: usize, x: usize| ((row + y) * SIDE + x) * c;
        let (start_a, start_b) = (at(SHIFT, SHIFT), at(y, x));
        for (a, b) in a[start_a..start_a + width].iter().zip(&b[start_b..start_b + width]) {
            product += a * b;
            squares_a += a * a;
            squares_b += b * b;
        }
    }
    product / (squares_a * squares_b).sqrt().max(1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Noise, moved by columns.
    fn image(seed: u64, columns: usize) -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let noise: Vec<u8> = (0..32 * 40 * 3).map(|_| rng.random_range(60..190)).collect();
        noise.chunks(40 * 3).flat_map(|row| row[columns * 3..][..32 * 3].to_vec()).collect()
    }

    #[test]
    fn shifts_and_brightness_agree_and_other_images_do_not() {
        let brighter = |image: &[u8]| image.iter().map(|value| value / 2 + 30).collect::<Vec<u8>>();
        let rows = [
            (image(1, 0), image(1, 0), true),
            (image(1, 0), image(1, 1), true),
            (image(1, 1), image(1, 0), true),
            (image(1, 0), brighter(&image(1, 0)), true),
            (image(1, 0), image(1, 2), false),
            (image(1, 0), image(2, 0), false),
            (vec![90; SHAPE.bytes()], vec![120; SHAPE.bytes()], true),
            (vec![90; SHAPE.bytes()], image(1, 0), false),
        ];
        for (i, (a, b, agree)) in rows.iter().enumerate() {
            assert_eq!(correlation(a, b) > 0.75, *agree, "row {i}: {}", correlation(a, b));
        }
    }
}
