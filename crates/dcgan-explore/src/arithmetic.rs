//! Vector arithmetic on concepts, and the "turn" vector (paper, section 6.3.2, figures 7 and 8).
//!
//! A concept is the mean of several z: in the paper arithmetic on single z is unstable, on means of three z stable.

use crate::interpolation::to_f32;
use crate::latent::{LatentError, LatentSet};
use dcgan_model::random::{self, Purpose};
use rand::Rng;

/// The sum of the means of `plus` minus the sum of the means of `minus`: one z. The classes of a conditional model are
/// added and subtracted as well.
///
/// # Errors
/// No set at all; sets of z of different lengths.
pub fn combine(plus: &[LatentSet], minus: &[LatentSet]) -> Result<LatentSet, LatentError> {
    let Some(first) = plus.iter().chain(minus).next() else {
        return Err(LatentError::Empty { what: "arithmetic without operands".to_owned() });
    };
    let size = first.size();
    let mut sums = vec![0.0; size];
    for (set, sign) in plus.iter().map(|set| (set, 1.0)).chain(minus.iter().map(|set| (set, -1.0))) {
        if set.size() != size {
            let what = "a concept".to_owned();
            return Err(LatentError::Size { what, expected: size, found: set.size() });
        }
        sums.iter_mut().zip(set.mean()).for_each(|(sum, value)| *sum += sign * f64::from(value));
    }
    first.with_values(sums.into_iter().map(to_f32).collect(), "the result")
}

/// `z` itself, then `n` copies with uniform noise in \[-`noise`, `noise`\] added to each value, without noise on
/// classes; in the paper's figure 8 copies with noise 0.25. `z` is the first of its set.
///
/// # Errors
/// A result that is not finite.
pub fn perturb(z: &LatentSet, noise: f32, n: usize, seed: u64) -> Result<LatentSet, LatentError> {
    let row = &z.values()[..z.size()];
    let (own, classes) = row.split_at(z.z_size());
    let mut values = row.to_vec();
    for i in 0..n as u64 {
        let mut rng = random::stream(seed, Purpose::LatentNoise, i);
        values.extend(own.iter().map(|value| value + noise * rng.random_range(-1.0..=1.0_f32)));
        values.extend(classes);
    }
    z.with_values(values, "the result")
}

/// For each of `samples`, `steps` z evenly spaced from `z + strength (mean(left) - mean(right))` to
/// `z - strength (mean(left) - mean(right))`. If `steps` is odd, the middle z is exactly the sample.
///
/// # Errors
/// No step; sets of z of different lengths.
pub fn turn(
    samples: &LatentSet,
    (left, right): (&LatentSet, &LatentSet),
    steps: usize,
    strength: f32,
) -> Result<LatentSet, LatentError> {
    let direction = combine(std::slice::from_ref(left), std::slice::from_ref(right))?;
    if direction.size() != samples.size() {
        let what = "the samples to turn".to_owned();
        return Err(LatentError::Size { what, expected: direction.size(), found: samples.size() });
    }
    let direction = direction.values();
    let coefficient = |step: usize| match steps {
        0 | 1 => 0.0,
        _ => f64::from(strength) * (1.0 - 2.0 * step as f64 / (steps - 1) as f64),
    };
    let values = samples.rows().flat_map(|z| {
        (0..steps).flat_map(move |step| {
            let coefficient = coefficient(step);
            z.iter()
                .zip(direction)
                .map(move |(z, direction)| to_f32(f64::from(*z) + coefficient * f64::from(*direction)))
        })
    });
    samples.with_values(values.collect(), "a turn of 0 steps")
}

/// The mean of n images, values `(n, len)`: a concept in pixel space.
pub fn mean_image(images: &[f32], len: usize) -> Vec<f32> {
    let mut sums = vec![0.0; len];
    let n = (images.len() / len.max(1)).max(1) as f64;
    for image in images.chunks_exact(len.max(1)) {
        sums.iter_mut().zip(image).for_each(|(sum, value)| *sum += f64::from(*value) / n);
    }
    sums.into_iter().map(to_f32).collect()
}

/// The sum of the images `plus` minus the images `minus`, value by value: arithmetic in pixel space, which fails in the
/// paper.
pub fn combine_images(plus: &[Vec<f32>], minus: &[Vec<f32>]) -> Vec<f32> {
    let mut sums = vec![0.0; plus.iter().chain(minus).map(Vec::len).next().unwrap_or(0)];
    for (image, sign) in plus.iter().map(|p| (p, 1.0)).chain(minus.iter().map(|p| (p, -1.0))) {
        sums.iter_mut().zip(image).for_each(|(sum, value)| *sum += sign * value);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z(values: &[f32]) -> LatentSet {
        LatentSet::new(values.to_vec(), 2, "a test").unwrap()
    }

    #[test]
    fn concepts_are_means() {
        let (a, b, c) = (z(&[1.0, 0.0, 3.0, 1.0]), z(&[1.0, 1.0]), z(&[0.5, 0.5, 0.5, 0.0, 0.5, 1.0]));
        // smiling woman - neutral woman + neutral man
        assert_eq!(combine(&[a.clone(), c.clone()], std::slice::from_ref(&b)).unwrap().values(), [1.5, 0.0]);
        assert_eq!(combine(std::slice::from_ref(&a), &[]).unwrap().values(), [2.0, 0.5]);
        assert!(combine(&[], &[]).is_err());
        let other = LatentSet::new(vec![1.0; 3], 3, "a test").unwrap();
        assert!(matches!(combine(&[a, other], &[]), Err(LatentError::Size { expected: 2, found: 3, .. })));
        let image = mean_image(&[0.0, 1.0, 1.0, 0.0], 2);
        assert_eq!(combine_images(&[image, vec![1.0, 1.0]], &[vec![0.0, 2.0]]), [1.5, -0.5]);
    }

    #[test]
    fn perturbed_z_fill_the_range_of_the_noise() {
        let middle = [0.5, -2.0];
        let z = LatentSet::new(middle.to_vec(), 2, "a test").unwrap();
        let found = perturb(&z, 0.25, 500, 3).unwrap();
        assert_eq!(found.rows().next().unwrap(), middle);
        let differences: Vec<f32> =
            found.rows().skip(1).flat_map(|z| z.iter().zip(middle).map(|(z, middle)| z - middle)).collect();
        let (least, most) = differences.iter().fold((0.0_f32, 0.0_f32), |(a, b), x| (a.min(*x), b.max(*x)));
        assert!((-0.2501..-0.24).contains(&least) && (0.24..0.2501).contains(&most), "{least} {most}");
        // The first copies do not depend on n; another seed gives others.
        assert_eq!(perturb(&z, 0.25, 8, 3).unwrap().values(), &found.values()[..18]);
        assert_ne!(perturb(&z, 0.25, 8, 4).unwrap().values(), &found.values()[..18]);
    }

    #[test]
    fn a_turn_goes_from_left_to_right_through_the_sample() {
        let samples = z(&[0.1, 0.2, 5.0, 6.0]);
        let found = turn(&samples, (&z(&[1.0, 0.0]), &z(&[0.0, 2.0])), 3, 0.5).unwrap();
        let expected = [0.6, -0.8, 0.1, 0.2, -0.4, 1.2, 5.5, 5.0, 5.0, 6.0, 4.5, 7.0];
        for (found, expected) in found.values().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(found.rows().nth(1), samples.rows().next());
        assert!(turn(&samples, (&samples, &samples), 0, 0.5).is_err());
    }
}
