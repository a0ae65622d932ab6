//! The formats of image files that are written, chosen by the extension of the name.

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use image::error::{ParameterError, ParameterErrorKind};
use image::{ExtendedColorType, ImageEncoder, ImageError, ImageResult};
use std::path::Path;

/// Extensions of [`ImageFileFormat`], lowercase.
pub const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// Quality of JPEG files, of 100.
const JPEG_QUALITY: u8 = 95;

/// The format of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFileFormat {
    /// PNG. Also for names without an extension and for standard output.
    Png,
    /// JPEG of quality 95. It has no alpha: images are blended over black.
    Jpeg,
    /// Lossless WebP.
    WebP,
}

impl ImageFileFormat {
    /// The format that the extension of `path` names, in either case; `None` for another extension.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).as_deref() {
            None | Some("png") => Some(Self::Png),
            Some("jpg" | "jpeg") => Some(Self::Jpeg),
            Some("webp") => Some(Self::WebP),
            Some(_) => None,
        }
    }

    /// Encodes `pixels`, u8 `(height, width, channels)` of 1 (grey), 3 (RGB) or 4 channels (RGB and alpha).
    ///
    /// # Errors
    /// Sides that the format does not have: 65,535 pixels at most for JPEG, 16,383 for WebP.
    pub fn encode(self, pixels: &[u8], shape: (usize, usize, usize)) -> ImageResult<Vec<u8>> {
        let (height, width, channels) = shape;
        let side = |side: usize| u32::try_from(side).map_err(|_| too_large());
        let (height, width) = (side(height)?, side(width)?);
        let color = match channels {
            1 => ExtendedColorType::L8,
            3 => ExtendedColorType::Rgb8,
            _ => ExtendedColorType::Rgba8,
        };
        let mut bytes = Vec::new();
        match self {
            Self::Png => PngEncoder::new(&mut bytes).write_image(pixels, width, height, color)?,
            Self::WebP => WebPEncoder::new_lossless(&mut bytes).write_image(pixels, width, height, color)?,
            Self::Jpeg if channels == 4 => {
                let opaque: Vec<u8> = pixels.chunks_exact(4).flat_map(over_black).collect();
                jpeg(&mut bytes).write_image(&opaque, width, height, ExtendedColorType::Rgb8)?;
            }
            Self::Jpeg => jpeg(&mut bytes).write_image(pixels, width, height, color)?,
        }
        Ok(bytes)
    }
}

fn jpeg(bytes: &mut Vec<u8>) -> JpegEncoder<&mut Vec<u8>> {
    JpegEncoder::new_with_quality(bytes, JPEG_QUALITY)
}

fn too_large() -> ImageError {
    ImageError::Parameter(ParameterError::from_kind(ParameterErrorKind::DimensionMismatch))
}

/// A pixel with alpha over black.
fn over_black(pixel: &[u8]) -> [u8; 3] {
    let alpha = u16::from(pixel[3]);
    [0, 1, 2].map(|i| u8::try_from((u16::from(pixel[i]) * alpha + 127) / 255).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_chooses_the_format() {
        let rows = [
            ("a.png", Some(ImageFileFormat::Png)),
            ("a", Some(ImageFileFormat::Png)),
            ("-", Some(ImageFileFormat::Png)),
            ("b.c/a", Some(ImageFileFormat::Png)),
            ("a.JPG", Some(ImageFileFormat::Jpeg)),
            ("a.png.jpeg", Some(ImageFileFormat::Jpeg)),
            ("a.webp", Some(ImageFileFormat::WebP)),
            ("a.tiff", None),
            ("a.png.gz", None),
        ];
        for (path, expected) in rows {
            assert_eq!(ImageFileFormat::of(Path::new(path)), expected, "{path}");
        }
        for extension in EXTENSIONS {
            assert!(ImageFileFormat::of(Path::new(&format!("a.{extension}"))).is_some(), "{extension}");
        }
    }

    #[test]
    fn files_are_what_their_extension_says() {
        use image::ImageFormat;
        for (format, expected, loss) in [
            (ImageFileFormat::Png, ImageFormat::Png, 0),
            (ImageFileFormat::WebP, ImageFormat::WebP, 0),
            (ImageFileFormat::Jpeg, ImageFormat::Jpeg, 3),
        ] {
            for channels in [1, 3, 4] {
                // Flat colors, which JPEG keeps but for rounding. Alpha is half.
                let pixel = [[200, 100, 40, 128], [90, 0, 0, 0]][usize::from(channels == 1)];
                let pixels: Vec<u8> = (0..16 * 24).flat_map(|_| pixel[..channels].to_vec()).collect();
                let bytes = format.encode(&pixels, (16, 24, channels)).unwrap();
                assert_eq!(image::guess_format(&bytes).unwrap(), expected);
                let read = image::load_from_memory(&bytes).unwrap();
                assert_eq!((read.width(), read.height()), (24, 16));
                let mut wanted: Vec<i32> = pixel[..channels].iter().map(|&value| i32::from(value)).collect();
                let found = match (channels, format) {
                    (1, ImageFileFormat::WebP) => read.to_luma8().into_raw()[..1].to_vec(), // WebP has no grey
                    (4, ImageFileFormat::Jpeg) => {
                        wanted = vec![100, 50, 20];
                        read.as_bytes()[..3].to_vec()
                    }
                    _ => read.as_bytes()[..channels].to_vec(),
                };
                let off = wanted.iter().zip(found).map(|(a, b)| (a - i32::from(b)).abs()).max().unwrap();
                assert!(off <= loss, "{format:?} of {channels}: {off}");
            }
        }
        assert!(ImageFileFormat::Jpeg.encode(&vec![0; 70_000], (1, 70_000, 1)).is_err());
    }
}
