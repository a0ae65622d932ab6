//! A map as an operation reads it: its values, and the function that is applied to them when they are loaded.

use super::kernels::load_op::LoadOp;
use super::kernels::prefetch;
use super::norm::{InputGradient, Normalization, activate_rows, input_gradient_rows};
use std::borrow::Cow;

/// Values of a map of some images, `(n, h, w, c)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapView<'a> {
    values: &'a [f32],
    transform: Transform<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Transform<'a> {
    Plain,
    Activated {
        normal: &'a Normalization,
        negative_slope: f32,
    },
    Gradient {
        x: &'a [f32],
        normal: &'a Normalization,
        negative_slope: f32,
        input_gradient: &'a InputGradient,
    },
}

impl<'a> MapView<'a> {
    /// The values themselves.
    pub(super) fn plain(values: &'a [f32]) -> Self {
        Self { values, transform: Transform::Plain }
    }

    /// Batch norm per channel of `x`, then a rectifier with `negative_slope` from 0 to 1.
    pub(super) fn activated(x: &'a [f32], normal: &'a Normalization, negative_slope: f32) -> Self {
        Self { values: x, transform: Transform::Activated { normal, negative_slope } }
    }

    /// The gradient with respect to `x`, from that with respect to the rectifier's output.
    pub(super) fn gradient(
        d: &'a [f32],
        x: &'a [f32],
        normal: &'a Normalization,
        negative_slope: f32,
        input_gradient: &'a InputGradient,
    ) -> Self {
        assert_eq!(d.len(), x.len());
        Self { values: d, transform: Transform::Gradient { x, normal, negative_slope, input_gradient } }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The values with the function applied: borrowed for plain ones.
    pub(super) fn finished(&self) -> Cow<'a, [f32]> {
        if let Transform::Plain = self.transform {
            return Cow::Borrowed(self.values);
        }
        let mut values = vec![0.0; self.values.len()];
        self.write(&mut values);
        Cow::Owned(values)
    }

    /// The values with the function applied: borrowed for plain ones, else written to `place`, which has their length.
    pub(super) fn in_place_or<'p>(&self, place: &'p mut [f32]) -> &'p [f32]
    where
        'a: 'p,
    {
        if let Transform::Plain = self.transform {
            return self.values;
        }
        self.write(place);
        place
    }

    /// `len` values from `start`.
    pub(super) fn part(&self, start: usize, len: usize) -> Self {
        let transform = match self.transform {
            Transform::Gradient { x, normal, negative_slope, input_gradient } => {
                Transform::Gradient { x: &x[start..start + len], normal, negative_slope, input_gradient }
            }
            transform => transform,
        };
        Self { values: &self.values[start..start + len], transform }
    }

    /// Prefetches `len` values from `start`, or as many as there are.
    pub(super) fn prefetch(&self, start: usize, len: usize) {
        let len = len.min(self.values.len().saturating_sub(start));
        prefetch::prefetch(self.values.as_ptr().wrapping_add(start), len);
        if let Transform::Gradient { x, .. } = self.transform {
            prefetch::prefetch(x.as_ptr().wrapping_add(start), len);
        }
    }

    /// The stored values, and the function; its coefficients are checked to be `channels`.
    pub(super) fn raw(&self, channels: usize) -> (&'a [f32], LoadOp) {
        let load = match self.transform {
            Transform::Plain => LoadOp::Identity,
            Transform::Activated { normal, negative_slope } => {
                assert!(normal.scale.len() == channels && normal.offset.len() == channels);
                LoadOp::NormActivation {
                    scale: normal.scale.as_ptr(),
                    offset: normal.offset.as_ptr(),
                    negative_slope,
                }
            }
            Transform::Gradient { x, normal, negative_slope, input_gradient } => {
                assert!(normal.scale.len() == channels && normal.offset.len() == channels);
                assert!(
                    input_gradient.x_coefficient.len() == channels
                        && input_gradient.constant.len() == channels
                );
                LoadOp::NormBackward {
                    x: x.as_ptr(),
                    scale: normal.scale.as_ptr(),
                    offset: normal.offset.as_ptr(),
                    negative_slope,
                    slope: input_gradient.x_coefficient.as_ptr(),
                    level: input_gradient.constant.as_ptr(),
                }
            }
        };
        (self.values, load)
    }

    /// Writes the values with the function applied to `out`; both are whole pixels.
    pub(super) fn write(&self, out: &mut [f32]) {
        match self.transform {
            Transform::Plain => out.copy_from_slice(self.values),
            Transform::Activated { normal, negative_slope } => {
                activate_rows(self.values, &normal.scale, &normal.offset, negative_slope, out);
            }
            Transform::Gradient { x, normal, negative_slope, input_gradient } => {
                input_gradient_rows(self.values, x, normal, negative_slope, input_gradient, out)
            }
        }
    }
}
