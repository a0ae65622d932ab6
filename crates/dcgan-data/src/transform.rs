//! The transform from a decoded image of any size and color type to the output shape; mirroring.

use image::{DynamicImage, GrayImage, Luma, RgbImage, RgbaImage};

use crate::background::Background;
use crate::resize::{View, resize};
use crate::shape::ImageShape;

/// Mirrors an image `(h, w, c)` horizontally.
pub(crate) fn mirror(image: &mut [u8], shape: ImageShape) {
    for row in image.chunks_exact_mut(shape.width * shape.channels) {
        row.reverse();
        row.chunks_exact_mut(shape.channels).for_each(<[u8]>::reverse);
    }
}

/// Before resizing, the long side is cropped to this many times the target's aspect ratio. The final crop removes these
/// pixels anyway, and a 1 x 60,000 image would otherwise be resized to gigabytes.
const MAX_ASPECT_EXCESS: u64 = 8;

/// Optional center crop, resize to cover the target, center crop to the target; conversion to grey, RGB or RGBA.
///
/// Resizing uses a triangle filter that widens for downscaling (antialiased bilinear). Grey is the luma of Rec. 601.
/// For 1 and 3 channels, images with alpha are composited on the background. 16-bit values are scaled to 8 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transform {
    pub(crate) shape: ImageShape,
    pub(crate) crop: Option<usize>,
    pub(crate) background: Background,
}

/// A transformed image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Transformed {
    /// `(h, w, c)`
    pub(crate) pixels: Vec<u8>,
    /// Whether transparent pixels were composited on the background.
    pub(crate) is_composited: bool,
}

impl Transform {
    /// Whether the transform does not change images of shape `stored`.
    pub(crate) fn is_identity(&self, stored: ImageShape) -> bool {
        stored == self.shape && self.crop.is_none_or(|side| side >= stored.height && side >= stored.width)
    }

    /// The transformed image `(h, w, c)`, `shape.bytes()` bytes.
    pub(crate) fn apply(&self, image: DynamicImage) -> Transformed {
        let image = match self.crop.map(|side| u32::try_from(side).unwrap_or(u32::MAX)) {
            Some(side) if side < image.width() || side < image.height() => {
                let (x, y) =
                    (image.width().saturating_sub(side) / 2, image.height().saturating_sub(side) / 2);
                image.crop_imm(x, y, side.min(image.width()), side.min(image.height()))
            }
            _ => image,
        };
        let size = (image.height(), image.width());
        if self.shape.channels == 4 {
            let pixels = self.fit::<4>(image.into_rgba8().into_raw(), size);
            return Transformed { pixels, is_composited: false };
        }
        let (image, is_composited) = self.composited(image);
        let pixels = if self.shape.channels == 1 {
            self.fit::<1>(grey(image).into_raw(), size)
        } else {
            self.fit::<3>(image.into_rgb8().into_raw(), size)
        };
        Transformed { pixels, is_composited }
    }

    /// The image on the background, and whether it has transparent pixels. Images without alpha are unchanged.
    fn composited(&self, image: DynamicImage) -> (DynamicImage, bool) {
        if !image.color().has_alpha() {
            return (image, false);
        }
        let rgba: RgbaImage = image.into_rgba8();
        let is_transparent = rgba.pixels().any(|pixel| pixel.0[3] < 255);
        let Background(background) = self.background;
        let opaque = RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
            let [red, green, blue, alpha] = rgba.get_pixel(x, y).0;
            let [red_below, green_below, blue_below] = background;
            image::Rgb([
                blend(red, red_below, alpha),
                blend(green, green_below, alpha),
                blend(blue, blue_below, alpha),
            ])
        });
        (opaque.into(), is_transparent)
    }

    fn fit<const C: usize>(&self, pixels: Vec<u8>, (height, width): (u32, u32)) -> Vec<u8> {
        let (height, width) = (u64::from(height), u64::from(width));
        let (to_height, to_width) = (self.shape.height as u64, self.shape.width as u64);
        if (height, width) == (to_height, to_width) {
            return pixels;
        }
        let size = |height: u64, width: u64| (narrow(height), narrow(width));
        let max_width = (height * to_width * MAX_ASPECT_EXCESS).div_ceil(to_height).min(width);
        let max_height = (width * to_height * MAX_ASPECT_EXCESS).div_ceil(to_width).min(height);
        let center = View::center::<C>(&pixels, size(height, width), size(max_height, max_width));
        let (height, width) = (max_height, max_width);
        // The larger of the two scale factors, so that the image covers the target.
        let (new_height, new_width) = if to_height * width >= to_width * height {
            (to_height, rounded(width * to_height, height).max(to_width))
        } else {
            (rounded(height * to_width, width).max(to_height), to_width)
        };
        let to = size(to_height, to_width);
        if (new_height, new_width) == (height, width) {
            return View::center::<C>(&center.copy::<C>(), size(height, width), to).copy::<C>();
        }
        resize::<C>(center, size(new_height, new_width), to)
    }
}

/// `a / b` rounded to the nearest integer, halves up.
fn rounded(a: u64, b: u64) -> u64 {
    (2 * a + b) / (2 * b)
}

/// Sides are bounded by checked shapes and decoder limits, far below `u32::MAX`.
fn narrow(side: u64) -> usize {
    usize::try_from(side).unwrap_or(usize::MAX)
}

/// `(value * alpha + below * (255 - alpha)) / 255`, rounded; at most 255.
fn blend(value: u8, below: u8, alpha: u8) -> u8 {
    let sum = u32::from(value) * u32::from(alpha) + u32::from(below) * u32::from(255 - alpha);
    u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX)
}

/// Grey values: the luma of Rec. 601 in 16-bit fixed point, as in PIL's `convert("L")`. Grey images are unchanged.
fn grey(image: DynamicImage) -> GrayImage {
    if !image.color().has_color() {
        return image.into_luma8();
    }
    let rgb = image.into_rgb8();
    GrayImage::from_fn(rgb.width(), rgb.height(), |x, y| {
        let [red, green, blue] = rgb.get_pixel(x, y).0.map(u32::from);
        let luma = (red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16;
        Luma([u8::try_from(luma).unwrap_or(u8::MAX)])
    })
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageBuffer, Luma, Rgba};

    use super::*;

    fn transform(height: usize, width: usize, channels: usize, crop: Option<usize>) -> Transform {
        let shape = ImageShape { height, width, channels };
        Transform { shape, crop, background: Background::BLACK }
    }

    /// A 2 x 3 image of six different pixels.
    #[test]
    fn crops_keep_rows_columns_and_channels_in_order() {
        let pixels: Vec<u8> = (0..18).collect();
        let image = RgbImage::from_raw(3, 2, pixels.clone()).unwrap();
        assert_eq!(transform(2, 3, 3, None).apply(image.clone().into()).pixels, pixels);
        assert_eq!(
            transform(2, 2, 3, Some(2)).apply(image.clone().into()).pixels,
            [0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14]
        );
        assert_eq!(transform(2, 1, 3, None).apply(image.into()).pixels, [3, 4, 5, 12, 13, 14]);
    }

    #[test]
    fn color_types_are_converted() {
        let half = RgbaImage::from_pixel(1, 1, Rgba([200, 100, 50, 128]));
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(1, 1, Luma([0x8080]));
        let grey = GrayImage::from_pixel(1, 1, Luma([9]));
        let deep_color: ImageBuffer<image::Rgb<u16>, Vec<u16>> =
            ImageBuffer::from_pixel(1, 1, image::Rgb([0xc8c8, 0x2828, 0x2828]));
        let color = |color: [u8; 3]| DynamicImage::from(RgbImage::from_pixel(1, 1, image::Rgb(color)));
        let rows: [(DynamicImage, usize, &[u8]); 13] = [
            (half.clone().into(), 3, &[100, 50, 25]),
            (half.into(), 4, &[200, 100, 50, 128]),
            (deep.clone().into(), 1, &[0x80]),
            (deep.into(), 3, &[0x80, 0x80, 0x80]),
            (grey.clone().into(), 4, &[9, 9, 9, 255]),
            (grey.into(), 3, &[9, 9, 9]),
            // The values of PIL for convert("L").
            (color([200, 40, 40]), 1, &[88]),
            (color([40, 200, 40]), 1, &[134]),
            (color([40, 40, 200]), 1, &[58]),
            (color([230, 230, 60]), 1, &[211]),
            (color([255, 255, 255]), 1, &[255]),
            (color([77, 77, 77]), 1, &[77]),
            (deep_color.into(), 1, &[88]),
        ];
        for (image, channels, expected) in rows {
            assert_eq!(transform(1, 1, channels, None).apply(image).pixels, expected);
        }
    }

    #[test]
    fn alpha_is_composited_on_the_background() {
        let image = |alpha: u8| DynamicImage::from(RgbaImage::from_pixel(1, 1, Rgba([200, 100, 50, alpha])));
        type Row<'a> = (u8, [u8; 3], usize, &'a [u8], bool);
        let rows: [Row<'_>; 7] = [
            (255, [9, 9, 9], 3, &[200, 100, 50], false),
            (0, [9, 8, 7], 3, &[9, 8, 7], true),
            (128, [0, 0, 0], 3, &[100, 50, 25], true),
            (128, [255, 255, 255], 3, &[227, 177, 152], true),
            (0, [255, 255, 255], 1, &[255], true),
            (0, [200, 40, 40], 1, &[88], true),
            (0, [9, 8, 7], 4, &[200, 100, 50, 0], false),
        ];
        for (alpha, background, channels, pixels, is_composited) in rows {
            let transform =
                Transform { background: Background(background), ..transform(1, 1, channels, None) };
            let expected = Transformed { pixels: pixels.to_vec(), is_composited };
            assert_eq!(transform.apply(image(alpha)), expected, "{alpha} on {background:?}");
        }
    }

    /// An image of three vertical bands: for all sizes, the center of the output is the center of the image.
    #[test]
    fn resizing_covers_the_target_and_keeps_the_center() {
        for (height, width, to_height, to_width, crop) in [
            (90, 90, 30, 30, None),
            (40, 90, 20, 20, None),
            (300, 90, 7, 9, None),
            (9, 9, 32, 64, None),
            (1, 20_000, 64, 64, None),
            (20_000, 3, 64, 32, None),
            (90, 90, 1, 1, Some(3)),
            (5, 5, 8, 8, Some(100)),
        ] {
            let image =
                GrayImage::from_fn(width, height, |x, _| Luma([if x * 3 / width == 1 { 255 } else { 0 }]));
            let out = transform(to_height, to_width, 1, crop).apply(image.into()).pixels;
            assert_eq!(out.len(), to_height * to_width);
            // Upscaling three columns blends the outer pixels of the band.
            let center = out[to_height / 2 * to_width + to_width / 2];
            assert!(center > 200, "{center}: {height}x{width} to {to_height}x{to_width}");
        }
    }
}
