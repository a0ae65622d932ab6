//! What a layer's linear operation (dense, convolution or transposed convolution) reads: the layer's input resampled,
//! with class labels after its channels.

use super::buffer::Buffer;
use super::map_view::MapView;
use super::state::ImageMut;
use crate::{Layer, MapShape, Maps, Resample};
use rayon::prelude::*;

/// Calls `body` with the pixels of the layer's input that pixel (`row`, `column`) of the linear operation's input comes
/// from.
fn for_each_pixel(layer: &Layer, (row, column): (usize, usize), mut body: impl FnMut(usize)) {
    let width = layer.input.width;
    match layer.resample {
        None => body(row * width + column),
        Some(Resample::Nearest(factor)) => body(row / factor * width + column / factor),
        Some(Resample::MaxPool(factor)) => {
            for y in row * factor..(row + 1) * factor {
                (column * factor..(column + 1) * factor).for_each(|x| body(y * width + x));
            }
        }
    }
}

/// The positions of a map's pixels in order, with their channels.
fn pixels(shape: MapShape) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.height).flat_map(move |row| (0..shape.width).map(move |column| (row, column)))
}

/// What the linear operation of `layer` reads, in `buffer`; the source itself where that is the same.
pub(super) fn linear_input<'a>(
    layer: &Layer,
    source: MapView<'a>,
    labels: Option<&Maps>,
    buffer: &'a mut Buffer,
) -> MapView<'a> {
    if !layer.changes_input() {
        return source;
    }
    let (plain, shape, channels) = (source.finished(), layer.linear_input(), layer.input.channels);
    let joined = buffer.sized(plain.len() / layer.input.len() * shape.len());
    let images = joined.par_chunks_exact_mut(shape.len()).zip(plain.par_chunks_exact(layer.input.len()));
    images.enumerate().for_each(|(image, (joined, plain))| {
        for (joined, at) in joined.chunks_exact_mut(shape.channels).zip(pixels(shape)) {
            let (own, row) = joined.split_at_mut(channels);
            let mut is_first = true;
            for_each_pixel(layer, at, |pixel| {
                let read = &plain[pixel * channels..][..channels];
                if is_first {
                    own.copy_from_slice(read);
                } else {
                    own.iter_mut().zip(read).for_each(|(own, read)| *own = own.max(*read));
                }
                is_first = false;
            });
            if let (Some(labels), false) = (labels, row.is_empty()) {
                row.copy_from_slice(labels.map(image));
            }
        }
    });
    MapView::plain(joined)
}

/// The gradient with respect to the layer's input in `out`, from that with respect to the linear operation's input in
/// `grad`. The gradient of a maximum goes to the first of equal values. Calls `each` with every image of `out`.
pub(super) fn gradient(layer: &Layer, plain: &[f32], grad: &[f32], out: &mut [f32], each: ImageMut<'_>) {
    let (shape, channels, len) = (layer.linear_input(), layer.input.channels, layer.input.len());
    let images = out.par_chunks_exact_mut(len).zip(grad.par_chunks_exact(shape.len()));
    images.zip(plain.par_chunks_exact(len)).enumerate().for_each(|(image, ((out, grad), plain))| {
        out.fill(0.0);
        for (grad, at) in grad.chunks_exact(shape.channels).zip(pixels(shape)) {
            match layer.resample {
                None | Some(Resample::Nearest(_)) => for_each_pixel(layer, at, |pixel| {
                    let out = &mut out[pixel * channels..][..channels];
                    out.iter_mut().zip(grad).for_each(|(out, grad)| *out += grad);
                }),
                Some(Resample::MaxPool(_)) => {
                    for (channel, grad) in grad[..channels].iter().enumerate() {
                        let (mut most, mut found) = (f32::NEG_INFINITY, None);
                        for_each_pixel(layer, at, |pixel| {
                            let value = plain[pixel * channels + channel];
                            if found.is_none() || value > most {
                                (most, found) = (value, Some(pixel));
                            }
                        });
                        found.into_iter().for_each(|pixel| out[pixel * channels + channel] += grad);
                    }
                }
            }
        }
        each(image, out);
    });
}
