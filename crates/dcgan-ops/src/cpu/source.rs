//! A map as the next operation reads it: its values, and what is still to be done to them when they are loaded.

use super::kernels::load_op::LoadOp;
use super::kernels::prefetch;
use super::norm::{Normal, Slopes, activate_rows, derive_rows};
use std::borrow::Cow;

/// Values of a map of some images, `(n, h, w, c)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    values: &'a [f32],
    rule: Rule<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Rule<'a> {
    Plain,
    Activated { normal: &'a Normal, negative_slope: f32 },
    Derived { x: &'a [f32], normal: &'a Normal, negative_slope: f32, slopes: &'a Slopes },
}

impl<'a> Source<'a> {
    /// The values themselves.
    pub(super) fn plain(values: &'a [f32]) -> Self {
        Self { values, rule: Rule::Plain }
    }

    /// Batch-norm by channel of `x`, then a rectifier of slope `negative_slope`, 0 to 1, below zero.
    pub(super) fn activated(x: &'a [f32], normal: &'a Normal, negative_slope: f32) -> Self {
        Self { values: x, rule: Rule::Activated { normal, negative_slope } }
    }

    /// The derivative by `x`, from that by the rectifier's result.
    pub(super) fn derived(
        d: &'a [f32],
        x: &'a [f32],
        normal: &'a Normal,
        negative_slope: f32,
        slopes: &'a Slopes,
    ) -> Self {
        assert_eq!(d.len(), x.len());
        Self { values: d, rule: Rule::Derived { x, normal, negative_slope, slopes } }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The finished values: borrowed where nothing is to be done to them.
    pub(super) fn finished(&self) -> Cow<'a, [f32]> {
        if let Rule::Plain = self.rule {
            return Cow::Borrowed(self.values);
        }
        let mut values = vec![0.0; self.values.len()];
        self.write(&mut values);
        Cow::Owned(values)
    }

    /// The finished values: where they are, or written to `place`, which has their length.
    pub(super) fn in_place_or<'p>(&self, place: &'p mut [f32]) -> &'p [f32]
    where
        'a: 'p,
    {
        if let Rule::Plain = self.rule {
            return self.values;
        }
        self.write(place);
        place
    }

    /// `len` values from `start`.
    pub(super) fn part(&self, start: usize, len: usize) -> Self {
        let rule = match self.rule {
            Rule::Derived { x, normal, negative_slope, slopes } => {
                Rule::Derived { x: &x[start..start + len], normal, negative_slope, slopes }
            }
            rule => rule,
        };
        Self { values: &self.values[start..start + len], rule }
    }

    /// Asks for at most `len` values from `start`, as far as there are so many, to be brought near.
    pub(super) fn prefetch(&self, start: usize, len: usize) {
        let len = len.min(self.values.len().saturating_sub(start));
        prefetch::prefetch(self.values.as_ptr().wrapping_add(start), len);
        if let Rule::Derived { x, .. } = self.rule {
            prefetch::prefetch(x.as_ptr().wrapping_add(start), len);
        }
    }

    /// The values before anything is done to them, and what is; checked to have `channels` coefficients.
    pub(super) fn raw(&self, channels: usize) -> (&'a [f32], LoadOp) {
        let load = match self.rule {
            Rule::Plain => LoadOp::Identity,
            Rule::Activated { normal, negative_slope } => {
                assert!(normal.scale.len() == channels && normal.offset.len() == channels);
                LoadOp::NormActivation {
                    scale: normal.scale.as_ptr(),
                    offset: normal.offset.as_ptr(),
                    negative_slope,
                }
            }
            Rule::Derived { x, normal, negative_slope, slopes } => {
                assert!(normal.scale.len() == channels && normal.offset.len() == channels);
                assert!(slopes.slope.len() == channels && slopes.level.len() == channels);
                LoadOp::NormBackward {
                    x: x.as_ptr(),
                    scale: normal.scale.as_ptr(),
                    offset: normal.offset.as_ptr(),
                    negative_slope,
                    slope: slopes.slope.as_ptr(),
                    level: slopes.level.as_ptr(),
                }
            }
        };
        (self.values, load)
    }

    /// Writes the finished values to `out`; both are whole pixels.
    pub(super) fn write(&self, out: &mut [f32]) {
        match self.rule {
            Rule::Plain => out.copy_from_slice(self.values),
            Rule::Activated { normal, negative_slope } => {
                activate_rows(self.values, &normal.scale, &normal.offset, negative_slope, out);
            }
            Rule::Derived { x, normal, negative_slope, slopes } => {
                derive_rows(self.values, x, normal, negative_slope, slopes, out)
            }
        }
    }
}
