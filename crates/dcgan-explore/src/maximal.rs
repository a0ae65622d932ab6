//! What excites a feature most: the largest activations of every map over many images, and the pixels that they see.

use candle_core::Tensor;
use dcgan_data::ImageShape;
use dcgan_ops::Layer;

/// One value of an activation `(c, h, w)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Feature map.
    pub map: usize,
    /// Row of it.
    pub row: usize,
    /// Column of it.
    pub column: usize,
}

/// Activations that cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum MaximalError {
    /// Of another number of maps.
    #[error("activations of {found} maps, expected {expected}")]
    Maps {
        /// Maps that are looked at.
        expected: usize,
        /// Maps given.
        found: usize,
    },
    /// Of another shape, or on a device that fails.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The largest activation of a map in one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Maximum {
    /// The activation.
    pub value: f32,
    /// Number of the image.
    pub image: usize,
    /// Where.
    pub place: Place,
}

/// For every feature map the images in which it is largest; each image counts once, where it is largest.
#[derive(Clone, Debug, PartialEq)]
pub struct Maxima {
    keep: usize,
    maps: Vec<Vec<Maximum>>,
}

impl Maxima {
    /// Nothing seen yet; `keep` images a map will be remembered.
    pub fn new(maps: usize, keep: usize) -> Self {
        Self { keep, maps: vec![Vec::new(); maps] }
    }

    /// Looks at the activations `(n, c, h, w)` of the images `first..first + n`. Of equal values the one seen first counts.
    ///
    /// # Errors
    /// [`MaximalError`].
    pub fn add(&mut self, activations: &Tensor, first: usize) -> Result<(), MaximalError> {
        let (_, channels, height, width) = activations.dims4()?;
        if channels != self.maps.len() {
            return Err(MaximalError::Maps { expected: self.maps.len(), found: channels });
        }
        let values = activations.flatten_all()?.to_vec1::<f32>()?;
        for (i, map) in values.chunks(height * width).enumerate() {
            let start = (0, f32::NEG_INFINITY);
            let larger = |best: (usize, f32), (at, &value): (usize, &f32)| {
                if value > best.1 { (at, value) } else { best }
            };
            let (at, value) = map.iter().enumerate().fold(start, larger);
            let place = Place { map: i % channels, row: at / width, column: at % width };
            let found = Maximum { value, image: first + i / channels, place };
            let best = &mut self.maps[place.map];
            let rank = best.partition_point(|other| other.value >= value);
            if rank < self.keep {
                best.insert(rank, found);
                best.truncate(self.keep);
            }
        }
        Ok(())
    }

    /// The remembered maxima of a map, largest first; none for a map that does not exist.
    pub fn of(&self, map: usize) -> &[Maximum] {
        self.maps.get(map).map_or(&[], Vec::as_slice)
    }

    /// The `count` maps whose remembered maxima are largest on average, largest first.
    pub fn most_active(&self, count: usize) -> Vec<usize> {
        let mean = |map: usize| {
            let maxima = &self.maps[map];
            maxima.iter().map(|maximum| f64::from(maximum.value)).sum::<f64>() / maxima.len().max(1) as f64
        };
        let mut order: Vec<usize> = (0..self.maps.len()).collect();
        order.sort_by(|&a, &b| mean(b).total_cmp(&mean(a)));
        order.truncate(count);
        order
    }
}

/// Pixels in rows and columns; it may reach beyond the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub top: i64,
    /// First column.
    pub left: i64,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Farthest from the upper left corner that a window reaches, in pixels: beyond every image, and products of it with an image's
/// side are far from overflow.
const FARTHEST: i64 = 1 << 24;

/// The pixels that the value at `row`, `column` of the last of `layers` (convolutions) depends on: its receptive field, the zero
/// padding that it sees included, up to 2^24 pixels away. Fields of strided layers grow by powers.
pub fn receptive_field(layers: &[Layer], row: usize, column: usize) -> Window {
    // First and last position of the field along a side, from the last layer's output down to the pixels.
    let field = |at: usize, kernel: fn(&Layer) -> usize| {
        let start = (as_i64(at), as_i64(at));
        layers.iter().rev().fold(start, |(first, last), layer| {
            let (stride, padding) = (as_i64(layer.stride), as_i64(layer.padding));
            let before = |at: i64| at.saturating_mul(stride).saturating_sub(padding);
            let last = before(last).saturating_add(as_i64(kernel(layer)) - 1);
            (before(first).clamp(-FARTHEST, FARTHEST), last.clamp(-FARTHEST, FARTHEST))
        })
    };
    let (top, bottom) = field(row, |layer| layer.kernel.0);
    let (left, right) = field(column, |layer| layer.kernel.1);
    let len = |first: i64, last: i64| usize::try_from(last - first + 1).unwrap_or(0);
    Window { top, left, height: len(top, bottom), width: len(left, right) }
}

/// The pixels of `image`, u8 `(h, w, c)`, in `window`, as large as they fit into an image of the same shape (nearest pixel).
/// What lies beyond the image, and what the window's proportions leave over, has the level `ground`.
pub fn enlarged(image: &[u8], shape: ImageShape, window: Window, ground: u8) -> Vec<u8> {
    let ImageShape { height, width, channels } = shape;
    let mut out = vec![ground; shape.bytes()];
    if channels == 4 {
        out.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 255);
    }
    if window.height == 0 || window.width == 0 {
        return out;
    }
    // Sides of the enlarged window: one fills the image.
    let is_tall = window.height * width >= window.width * height;
    let (rows, columns) = if is_tall {
        (height, (window.width * height / window.height).max(1))
    } else {
        ((window.height * width / window.width).max(1), width)
    };
    let (top, left) = ((height - rows) / 2, (width - columns) / 2);
    let inside = |start: i64, offset: usize, side: usize| {
        usize::try_from(start + as_i64(offset)).ok().filter(|&at| at < side)
    };
    for y in 0..rows {
        for x in 0..columns {
            let from_y = inside(window.top, y * window.height / rows, height);
            let from_x = inside(window.left, x * window.width / columns, width);
            if let (Some(from_y), Some(from_x)) = (from_y, from_x) {
                let from = (from_y * width + from_x) * channels;
                let to = ((top + y) * width + left + x) * channels;
                out[to..to + channels].copy_from_slice(&image[from..from + channels]);
            }
        }
    }
    out
}

/// Sides of images and kernels are far below 2^63.
fn as_i64(side: usize) -> i64 {
    i64::try_from(side).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcgan_ops::{Activation, Kind, MapShape};

    #[test]
    fn fields_of_many_strided_layers_end_beyond_every_image() {
        let layer = |i: usize| Layer {
            name: format!("blocks.{i}"),
            kind: Kind::Conv,
            input: MapShape { channels: 1, height: 4, width: 4 },
            output: MapShape { channels: 1, height: 2, width: 2 },
            kernel: (4, 4),
            stride: 2,
            padding: 1,
            output_padding: 0,
            norm: None,
            activation: Activation::Relu,
        };
        let layers: Vec<Layer> = (0..70).map(layer).collect();
        let field = receptive_field(&layers[..8], 1, 0);
        assert_eq!((field.top, field.height), (1, 3 * 255 + 1));
        for n in [22, 70] {
            let field = receptive_field(&layers[..n], 3, 0);
            assert!(field.height.max(field.width) <= (1 << 25) + 1, "{field:?}");
            let shape = ImageShape { height: 3, width: 2, channels: 1 };
            assert_eq!(enlarged(&[7; 6], shape, field, 9).len(), 6);
        }
    }
}
