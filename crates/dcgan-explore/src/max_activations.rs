//! Maximally activating images: the largest activations of every channel over many images, and their receptive fields.

use candle_core::Tensor;
use dcgan_data::ImageShape;
use dcgan_ops::{Layer, Resample};

/// Index of one value of an activation `(c, h, w)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationIndex {
    /// Channel, the index of a feature map.
    pub channel: usize,
    /// Row of the feature map.
    pub row: usize,
    /// Column of the feature map.
    pub column: usize,
}

/// Invalid activations.
#[derive(Debug, thiserror::Error)]
pub enum MaxActivationsError {
    /// Another number of channels.
    #[error("found activations of {found} channels, expected {expected}")]
    Channels {
        /// Channels of [`MaxActivations`].
        expected: usize,
        /// Channels given.
        found: usize,
    },
    /// Another shape, or a failed operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The largest activation of a channel in one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxActivation {
    /// The activation.
    pub value: f32,
    /// Index of the image.
    pub image: usize,
    /// Where in the activation.
    pub index: ActivationIndex,
}

/// For every channel the images with the largest activations; only the largest activation of an image counts.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxActivations {
    keep: usize,
    channels: Vec<Vec<MaxActivation>>,
}

impl MaxActivations {
    /// No images yet; `keep` images per channel will be kept.
    pub fn new(channels: usize, keep: usize) -> Self {
        Self { keep, channels: vec![Vec::new(); channels] }
    }

    /// Adds the activations `(n, c, h, w)` of the images `first..first + n`. Of equal values the first is kept.
    ///
    /// # Errors
    /// [`MaxActivationsError`].
    pub fn add(&mut self, activations: &Tensor, first: usize) -> Result<(), MaxActivationsError> {
        let (_, channels, height, width) = activations.dims4()?;
        if channels != self.channels.len() {
            return Err(MaxActivationsError::Channels { expected: self.channels.len(), found: channels });
        }
        let values = activations.flatten_all()?.to_vec1::<f32>()?;
        for (i, map) in values.chunks(height * width).enumerate() {
            let start = (0, f32::NEG_INFINITY);
            let larger = |best: (usize, f32), (at, &value): (usize, &f32)| {
                if value > best.1 { (at, value) } else { best }
            };
            let (at, value) = map.iter().enumerate().fold(start, larger);
            let index = ActivationIndex { channel: i % channels, row: at / width, column: at % width };
            let found = MaxActivation { value, image: first + i / channels, index };
            let best = &mut self.channels[index.channel];
            let rank = best.partition_point(|other| other.value >= value);
            if rank < self.keep {
                best.insert(rank, found);
                best.truncate(self.keep);
            }
        }
        Ok(())
    }

    /// The kept maxima of a channel, largest first; none for a channel out of range.
    pub fn of(&self, channel: usize) -> &[MaxActivation] {
        self.channels.get(channel).map_or(&[], Vec::as_slice)
    }

    /// The `count` channels with the largest means of the kept maxima, largest first.
    pub fn most_active(&self, count: usize) -> Vec<usize> {
        let mean = |channel: usize| {
            let maxima = &self.channels[channel];
            maxima.iter().map(|maximum| f64::from(maximum.value)).sum::<f64>() / maxima.len().max(1) as f64
        };
        let mut order: Vec<usize> = (0..self.channels.len()).collect();
        order.sort_by(|&a, &b| mean(b).total_cmp(&mean(a)));
        order.truncate(count);
        order
    }
}

/// A rectangle of pixels; it may reach beyond the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceptiveField {
    /// First row.
    pub top: i64,
    /// First column.
    pub left: i64,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Largest distance of a receptive field's edge from the upper left corner, in pixels: beyond every image, and small
/// enough that products with an image's side do not overflow.
const MAX_EXTENT: i64 = 1 << 24;

/// The receptive field of the value at `row`, `column` of the last of `layers`, convolutions with max pooling or none
/// before them: the pixels that it depends on, zero padding included, clamped to 2^24 pixels since it grows
/// exponentially with the number of strided layers.
pub fn receptive_field(layers: &[Layer], row: usize, column: usize) -> ReceptiveField {
    // First and last position along a side, from the last layer's output down to the pixels.
    let extent = |at: usize, side: fn((usize, usize)) -> usize| {
        let start = (as_i64(at), as_i64(at));
        layers.iter().rev().fold(start, |(first, last), layer| {
            let (stride, padding) = (as_i64(layer.stride), as_i64(side(layer.padding)));
            let before = |at: i64| at.saturating_mul(stride).saturating_sub(padding);
            let last = before(last).saturating_add(as_i64(side(layer.kernel)) - 1);
            let window = match layer.resample {
                Some(Resample::MaxPool(window)) => as_i64(window),
                Some(Resample::Nearest(_)) | None => 1, // D has no upsampling
            };
            let first = before(first).saturating_mul(window);
            let last = last.saturating_mul(window).saturating_add(window - 1);
            (first.clamp(-MAX_EXTENT, MAX_EXTENT), last.clamp(-MAX_EXTENT, MAX_EXTENT))
        })
    };
    let (top, bottom) = extent(row, |(rows, _)| rows);
    let (left, right) = extent(column, |(_, columns)| columns);
    let len = |first: i64, last: i64| usize::try_from(last - first + 1).unwrap_or(0);
    ReceptiveField { top, left, height: len(top, bottom), width: len(left, right) }
}

/// Crops `image`, u8 `(h, w, c)`, to `field` and resizes the crop (nearest pixel) to the largest size that fits into
/// `shape`. Pixels beyond the image, and those that the aspect ratio of the crop leaves over, are `fill`.
pub fn crop_resized(image: &[u8], shape: ImageShape, field: ReceptiveField, fill: u8) -> Vec<u8> {
    let ImageShape { height, width, channels } = shape;
    let mut out = vec![fill; shape.bytes()];
    if channels == 4 {
        out.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 255);
    }
    if field.height == 0 || field.width == 0 {
        return out;
    }
    // Sides of the resized crop: one of them fills the image.
    let is_tall = field.height * width >= field.width * height;
    let (rows, columns) = if is_tall {
        (height, (field.width * height / field.height).max(1))
    } else {
        ((field.height * width / field.width).max(1), width)
    };
    let (top, left) = ((height - rows) / 2, (width - columns) / 2);
    let inside = |start: i64, offset: usize, side: usize| {
        usize::try_from(start + as_i64(offset)).ok().filter(|&at| at < side)
    };
    for y in 0..rows {
        for x in 0..columns {
            let from_y = inside(field.top, y * field.height / rows, height);
            let from_x = inside(field.left, x * field.width / columns, width);
            if let (Some(from_y), Some(from_x)) = (from_y, from_x) {
                let from = (from_y * width + from_x) * channels;
                let to = ((top + y) * width + left + x) * channels;
                out[to..to + channels].copy_from_slice(&image[from..from + channels]);
            }
        }
    }
    out
}

/// Saturates; sides of images and kernels are far below 2^63.
fn as_i64(side: usize) -> i64 {
    i64::try_from(side).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcgan_ops::{Kind, MapShape};

    #[test]
    fn receptive_fields_cover_pooling_windows() {
        let map = |side: usize| MapShape::new(1, side, side);
        let layer = |i: usize, input: usize, resample| {
            let (kernel, padding) = ((3, 3), (1, 1));
            let plain = Layer::plain(format!("blocks.{i}"), Kind::Conv, map(input), map(16 >> i));
            Layer { kernel, padding, resample, ..plain }
        };
        let pool = Some(Resample::MaxPool(2));
        let layers = [layer(0, 16, None), layer(1, 16, pool), layer(2, 8, pool)];
        // Layers, position, first pixel and number of pixels along a side.
        for (n, at, first, count) in
            [(1, 1, 0, 3), (2, 1, -1, 8), (2, 0, -3, 8), (3, 1, -3, 18), (3, 3, 5, 18)]
        {
            let field = receptive_field(&layers[..n], at, at);
            assert_eq!((field.top, field.left), (first, first), "{n} layers, {at}");
            assert_eq!((field.height, field.width), (count, count), "{n} layers, {at}");
        }
    }

    #[test]
    fn receptive_fields_of_many_strided_layers_are_clamped() {
        let (input, output) = (MapShape::new(1, 4, 4), MapShape::new(1, 2, 2));
        let layer = |i: usize| Layer {
            kernel: (4, 4),
            stride: 2,
            padding: (1, 1),
            ..Layer::plain(format!("blocks.{i}"), Kind::Conv, input, output)
        };
        let layers: Vec<Layer> = (0..70).map(layer).collect();
        let field = receptive_field(&layers[..8], 1, 0);
        assert_eq!((field.top, field.height), (1, 3 * 255 + 1));
        for n in [22, 70] {
            let field = receptive_field(&layers[..n], 3, 0);
            assert!(field.height.max(field.width) <= (1 << 25) + 1, "{field:?}");
            let shape = ImageShape { height: 3, width: 2, channels: 1 };
            assert_eq!(crop_resized(&[7; 6], shape, field, 9).len(), 6);
        }
    }
}
