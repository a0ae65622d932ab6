//! Interpolation between z, and walks through the latent space (paper, section 6.1, figure 4).

use crate::latent::{LatentError, LatentSet};
use dcgan_model::Distribution;

/// Below this sine of the angle between two z their great circle is a straight line, or undefined.
const MIN_SINE: f64 = 1e-6;

/// The path from one z to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// A straight line (lerp), as in the paper, whose z are uniform.
    Linear,
    /// A great circle (slerp). Normal z lie near the sphere of radius sqrt(size); the middle of a straight line lies
    /// inside it (White, "Sampling generative networks", 2016, section 2.1).
    Spherical,
}

impl Interpolation {
    /// The interpolation that stays in the region of high density of `distribution`.
    pub fn of(distribution: Distribution) -> Self {
        match distribution {
            Distribution::Uniform => Self::Linear,
            Distribution::Normal => Self::Spherical,
        }
    }

    /// The z at fraction `t` of the path from `from` (t = 0) to `to` (t = 1), both exact. The great circle of two z on
    /// one line through the origin is undefined; the path between them is straight.
    pub fn interpolate(self, from: &[f32], to: &[f32], t: f64) -> Vec<f32> {
        // Not left to rounding: a walk ends at exactly the images of its z.
        if t == 0.0 {
            return from.to_vec();
        }
        if t == 1.0 {
            return to.to_vec();
        }
        let (a, b) = match self {
            Self::Linear => (1.0 - t, t),
            Self::Spherical => slerp(from, to, t),
        };
        from.iter().zip(to).map(|(from, to)| to_f32(a * f64::from(*from) + b * f64::from(*to))).collect()
    }
}

/// A sum in f64 as a value of z.
#[expect(clippy::cast_possible_truncation, reason = "z are f32, intermediate sums f64")]
pub(crate) fn to_f32(value: f64) -> f32 {
    value as f32
}

/// The coefficients of `from` and `to` at fraction `t` of the arc between them.
fn slerp(from: &[f32], to: &[f32], t: f64) -> (f64, f64) {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let cosine = dot(from, to) / (dot(from, from) * dot(to, to)).sqrt();
    let angle = cosine.clamp(-1.0, 1.0).acos();
    let sine = angle.sin();
    // NaN where a z has length 0.
    if sine.is_nan() || sine <= MIN_SINE {
        return (1.0 - t, t);
    }
    (((1.0 - t) * angle).sin() / sine, (t * angle).sin() / sine)
}

/// z by `interpolation`, the label vector after it linearly.
fn interpolate_row(
    interpolation: Interpolation,
    z_size: usize,
    (from, to): (&[f32], &[f32]),
    t: f64,
) -> Vec<f32> {
    let mut row = interpolation.interpolate(&from[..z_size], &to[..z_size], t);
    row.extend(Interpolation::Linear.interpolate(&from[z_size..], &to[z_size..], t));
    row
}

/// Walks from each z to the next, one after the other, each of `steps` z including both ends: `(n - 1) steps` z, the
/// rows of figure 4.
///
/// # Errors
/// Fewer than two z, or steps.
pub fn walks(z: &LatentSet, steps: usize, interpolation: Interpolation) -> Result<LatentSet, LatentError> {
    let between = |from, to, t| interpolate_row(interpolation, z.z_size(), (from, to), t);
    let values = z.rows().zip(z.rows().skip(1)).flat_map(|(from, to)| {
        (0..steps)
            .filter(move |_| steps > 1)
            .flat_map(move |i| between(from, to, i as f64 / (steps - 1) as f64))
    });
    z.with_values(values.collect(), "a walk of fewer than 2 z or steps")
}

/// A closed walk through all z and back to the first without repeated z: the `n (steps - 1)` frames of a looping
/// animation.
///
/// # Errors
/// Fewer than two steps.
pub fn closed_walk(
    z: &LatentSet,
    steps: usize,
    interpolation: Interpolation,
) -> Result<LatentSet, LatentError> {
    let last = steps.saturating_sub(1);
    let between = |from, to, t| interpolate_row(interpolation, z.z_size(), (from, to), t);
    let values = z
        .rows()
        .zip(z.rows().cycle().skip(1))
        .flat_map(|(from, to)| (0..last).flat_map(move |i| between(from, to, i as f64 / last as f64)));
    z.with_values(values.collect(), "a walk of fewer than 2 steps")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z(values: &[f32], size: usize) -> LatentSet {
        LatentSet::new(values.to_vec(), size, "a test").unwrap()
    }

    #[test]
    fn interpolated_z_match_known_values() {
        let half = std::f32::consts::FRAC_1_SQRT_2;
        struct Case {
            interpolation: Interpolation,
            from: [f32; 2],
            to: [f32; 2],
            t: f64,
            expected: [f32; 2],
        }
        let case = |interpolation, from, to, t, expected| Case { interpolation, from, to, t, expected };
        let linear = |from, to, t, expected| case(Interpolation::Linear, from, to, t, expected);
        let spherical = |from, to, t, expected| case(Interpolation::Spherical, from, to, t, expected);
        let cases = [
            linear([0.1, 0.7], [0.3, -0.2], 0.0, [0.1, 0.7]),
            linear([0.1, 0.7], [0.3, -0.2], 1.0, [0.3, -0.2]),
            linear([1.0, 0.0], [0.0, 1.0], 0.25, [0.75, 0.25]),
            spherical([0.1, 0.7], [0.3, -0.2], 0.0, [0.1, 0.7]),
            spherical([0.1, 0.7], [0.3, -0.2], 1.0, [0.3, -0.2]),
            spherical([1.0, 0.0], [0.0, 1.0], 0.5, [half, half]),
            // A third of a right angle.
            spherical([2.0, 0.0], [0.0, 2.0], 1.0 / 3.0, [3_f32.sqrt(), 1.0]),
            // On one line through the origin there is no great circle.
            spherical([1.0, 2.0], [3.0, 6.0], 0.5, [2.0, 4.0]),
            spherical([1.0, 0.0], [-1.0, 0.0], 0.25, [0.5, 0.0]),
            spherical([0.0, 0.0], [1.0, 3.0], 0.5, [0.5, 1.5]),
        ];
        for Case { interpolation, from, to, t, expected } in cases {
            let found = interpolation.interpolate(&from, &to, t);
            if [0.0, 1.0].contains(&t) {
                assert_eq!(found, expected, "the ends, to the last bit");
            }
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{interpolation:?} {from:?} {to:?} {t}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn walks_share_end_points_and_closed_walks_repeat_none() {
        let z = z(&[0.0, 1.0, 1.0, 0.0, -1.0, 0.5], 2);
        let open = walks(&z, 3, Interpolation::Linear).unwrap();
        let expected = [0.0, 1.0, 0.5, 0.5, 1.0, 0.0, 1.0, 0.0, 0.0, 0.25, -1.0, 0.5];
        assert_eq!(open.values(), expected);
        let closed = closed_walk(&z, 3, Interpolation::Linear).unwrap();
        assert_eq!(closed.values(), [0.0, 1.0, 0.5, 0.5, 1.0, 0.0, 0.0, 0.25, -1.0, 0.5, -0.5, 0.75]);
        assert!(walks(&z, 1, Interpolation::Linear).is_err());
        assert!(walks(&z.select(&[0], "one").unwrap(), 3, Interpolation::Linear).is_err());
        assert!(closed_walk(&z, 1, Interpolation::Linear).is_err());
    }
}
