//! Vector arithmetic on concepts, and the «turn» vector (paper, section 6.3.2, figures 7 and 8).
//!
//! A concept is the mean of several z: the paper found sums of single z unstable, and means of three good.

use crate::latent::{LatentError, Latents};
use crate::series::narrowed;
use dcgan_model::random::{self, Purpose};
use rand::Rng;

/// The sum of the means of `plus` less those of `minus`, `(size)`.
///
/// # Errors
/// No set at all; sets of different lengths of z.
pub fn combined(plus: &[Latents], minus: &[Latents]) -> Result<Vec<f32>, LatentError> {
    let Some(size) = plus.iter().chain(minus).map(Latents::size).next() else {
        return Err(LatentError::Nothing { what: "arithmetic on nothing".to_owned() });
    };
    let mut sums = vec![0.0; size];
    for (set, sign) in plus.iter().map(|set| (set, 1.0)).chain(minus.iter().map(|set| (set, -1.0))) {
        if set.size() != size {
            let what = "a concept".to_owned();
            return Err(LatentError::Size { what, expected: size, found: set.size() });
        }
        sums.iter_mut().zip(set.mean()).for_each(|(sum, value)| *sum += sign * f64::from(value));
    }
    Ok(sums.into_iter().map(narrowed).collect())
}

/// `z` itself, then `n` z around it: each value moved by uniform noise in \[-`noise`, `noise`\]; the paper's figure has 8 at 0.25.
///
/// # Errors
/// A `z` that is not finite or empty.
pub fn around(z: &[f32], noise: f32, n: usize, seed: u64) -> Result<Latents, LatentError> {
    let mut values = z.to_vec();
    for i in 0..n as u64 {
        let mut rng = random::stream(seed, Purpose::LatentNoise, i);
        values.extend(z.iter().map(|value| value + noise * rng.random_range(-1.0..=1.0_f32)));
    }
    Latents::new(values, z.len(), "the result")
}

/// Each of `samples` turned: `steps` z evenly from `z + strength (mean(left) - mean(right))` to `z - strength (...)`, sample after
/// sample. With an odd number of steps the middle one is the sample itself, exactly.
///
/// # Errors
/// No step; sets of different lengths of z.
pub fn turned(
    samples: &Latents,
    (left, right): (&Latents, &Latents),
    steps: usize,
    strength: f32,
) -> Result<Latents, LatentError> {
    let axis = combined(std::slice::from_ref(left), std::slice::from_ref(right))?;
    if axis.len() != samples.size() {
        let what = "the samples to turn".to_owned();
        return Err(LatentError::Size { what, expected: axis.len(), found: samples.size() });
    }
    let part = |step: usize| match steps {
        0 | 1 => 0.0,
        _ => f64::from(strength) * (1.0 - 2.0 * step as f64 / (steps - 1) as f64),
    };
    let values = samples.rows().flat_map(|z| {
        let axis = &axis;
        (0..steps).flat_map(move |step| {
            let part = part(step);
            z.iter().zip(axis).map(move |(z, axis)| narrowed(f64::from(*z) + part * f64::from(*axis)))
        })
    });
    Latents::new(values.collect(), samples.size(), "a turn of 0 steps")
}

/// The mean of images, values `(n, len)` one after the other: what a concept is in pixels.
pub fn mean_image(images: &[f32], len: usize) -> Vec<f32> {
    let mut sums = vec![0.0; len];
    let n = (images.len() / len.max(1)).max(1) as f64;
    for image in images.chunks_exact(len.max(1)) {
        sums.iter_mut().zip(image).for_each(|(sum, value)| *sum += f64::from(*value) / n);
    }
    sums.into_iter().map(narrowed).collect()
}

/// The sum of the images `plus` less those of `minus`, value by value: the arithmetic in pixels that the paper shows to fail.
pub fn combined_images(plus: &[Vec<f32>], minus: &[Vec<f32>]) -> Vec<f32> {
    let mut sums = vec![0.0; plus.iter().chain(minus).map(Vec::len).next().unwrap_or(0)];
    for (image, sign) in plus.iter().map(|p| (p, 1.0)).chain(minus.iter().map(|p| (p, -1.0))) {
        sums.iter_mut().zip(image).for_each(|(sum, value)| *sum += sign * value);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z(values: &[f32]) -> Latents {
        Latents::new(values.to_vec(), 2, "a test").unwrap()
    }

    #[test]
    fn concepts_are_means() {
        let (a, b, c) = (z(&[1.0, 0.0, 3.0, 1.0]), z(&[1.0, 1.0]), z(&[0.5, 0.5, 0.5, 0.0, 0.5, 1.0]));
        // smiling woman - neutral woman + neutral man
        assert_eq!(combined(&[a.clone(), c.clone()], std::slice::from_ref(&b)).unwrap(), [1.5, 0.0]);
        assert_eq!(combined(std::slice::from_ref(&a), &[]).unwrap(), [2.0, 0.5]);
        assert!(combined(&[], &[]).is_err());
        let other = Latents::new(vec![1.0; 3], 3, "a test").unwrap();
        assert!(matches!(combined(&[a, other], &[]), Err(LatentError::Size { expected: 2, found: 3, .. })));
        let image = mean_image(&[0.0, 1.0, 1.0, 0.0], 2);
        assert_eq!(combined_images(&[image, vec![1.0, 1.0]], &[vec![0.0, 2.0]]), [1.5, -0.5]);
    }

    #[test]
    fn neighbours_stay_within_the_noise_and_fill_it() {
        let middle = [0.5, -2.0];
        let found = around(&middle, 0.25, 500, 3).unwrap();
        assert_eq!(found.rows().next().unwrap(), middle);
        let far: Vec<f32> =
            found.rows().skip(1).flat_map(|z| z.iter().zip(middle).map(|(z, middle)| z - middle)).collect();
        let (least, most) = far.iter().fold((0.0_f32, 0.0_f32), |(a, b), x| (a.min(*x), b.max(*x)));
        assert!((-0.2501..-0.24).contains(&least) && (0.24..0.2501).contains(&most), "{least} {most}");
        // The first neighbours are the same however many are asked for; another seed gives others.
        assert_eq!(around(&middle, 0.25, 8, 3).unwrap().values(), &found.values()[..18]);
        assert_ne!(around(&middle, 0.25, 8, 4).unwrap().values(), &found.values()[..18]);
    }

    #[test]
    fn a_turn_goes_from_left_to_right_through_the_sample() {
        let samples = z(&[0.1, 0.2, 5.0, 6.0]);
        let found = turned(&samples, (&z(&[1.0, 0.0]), &z(&[0.0, 2.0])), 3, 0.5).unwrap();
        let expected = [0.6, -0.8, 0.1, 0.2, -0.4, 1.2, 5.5, 5.0, 5.0, 6.0, 4.5, 7.0];
        for (found, expected) in found.values().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(found.rows().nth(1), samples.rows().next());
        assert!(turned(&samples, (&samples, &samples), 0, 0.5).is_err());
    }
}
