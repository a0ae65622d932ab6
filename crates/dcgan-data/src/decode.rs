//! Decoding of images with limits on size and memory.

use std::borrow::Cow;
use std::io::{Cursor, Read};

use flate2::read::MultiGzDecoder;
use image::error::ImageError;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::gif_blocks::has_first_frame;
use crate::jpeg;
use crate::kind::{HEAD_BYTES, NOT_AN_IMAGE, describe, image_format, is_gzip};
use crate::tiff_palette::Indexed;

/// Longest side of a decoded image, in pixels.
const MAX_SIDE: u32 = 32_768;

/// Maximum bytes of one decoded image; several threads decode at the same time.
const MAX_DECODED_BYTES: u64 = 256 << 20;

/// Maximum bytes of one encoded image, read or inflated.
pub(crate) const MAX_ENCODED_BYTES: u64 = 256 << 20;

/// Decodes an image and applies its EXIF orientation. For an animation it decodes the first frame, for a TIFF file the
/// first image. A gzip-compressed image is inflated first.
///
/// # Errors
///
/// A message without the image's name, which the caller adds.
pub(crate) fn decode(encoded: &[u8]) -> Result<DynamicImage, String> {
    let encoded = inflated(encoded)?;
    let indexed = Indexed::read(&encoded).transpose()?;
    let mut decoder = decoder(indexed.as_ref().map_or(&encoded[..], |indexed| &indexed.grey))?;
    // The pixels are valid even if the EXIF block is not.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(problem)?;
    if let Some(indexed) = indexed {
        image = indexed.colored(&image);
    }
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(image)
}

/// Height, width and channels of an image, from its header.
///
/// # Errors
///
/// As for [`decode`].
pub(crate) fn dimensions(encoded: &[u8]) -> Result<(u32, u32, u8), String> {
    let encoded = inflated(encoded)?;
    let indexed = Indexed::read(&encoded).transpose()?;
    let decoder = decoder(indexed.as_ref().map_or(&encoded[..], |indexed| &indexed.grey))?;
    let (width, height) = decoder.dimensions();
    let channels = if indexed.is_some() { 3 } else { decoder.color_type().channel_count() };
    Ok((height, width, channels))
}

/// Whether an image can have transparent pixels, from its header; false if it cannot be read.
pub(crate) fn can_have_alpha(encoded: &[u8]) -> bool {
    let has_alpha = |encoded: Cow<'_, [u8]>| Ok::<_, String>(decoder(&encoded)?.color_type().has_alpha());
    inflated(encoded).and_then(has_alpha).unwrap_or(false)
}

/// Whether the PNG, JPEG or WebP image that starts with `head` has color; `None` if `head` is too short to say.
pub(crate) fn is_color(head: &[u8]) -> Option<bool> {
    match image_format(head) {
        // The color type follows 8 bytes of signature, 8 of chunk header, width, height and depth: 2 is RGB, 3 has a
        // palette, 6 is RGB with alpha.
        Some(ImageFormat::Png) => head.get(25).map(|color| matches!(color, 2 | 3 | 6)),
        Some(ImageFormat::Jpeg) => jpeg::is_color(head),
        format => Some(format == Some(ImageFormat::WebP)),
    }
}

/// The content of gzip data; other data as it is.
fn inflated(encoded: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if !is_gzip(encoded) {
        return Ok(encoded.into());
    }
    let mut bytes = Vec::new();
    let inflated = MultiGzDecoder::new(encoded).take(MAX_ENCODED_BYTES + 1).read_to_end(&mut bytes);
    inflated.map_err(|error| format!("is damaged or truncated gzip data: {error}"))?;
    if bytes.len() as u64 > MAX_ENCODED_BYTES {
        return Err(format!("inflates to more than the limit of {MAX_ENCODED_BYTES} bytes"));
    }
    Ok(bytes.into())
}

fn decoder(encoded: &[u8]) -> Result<impl ImageDecoder + '_, String> {
    let head = &encoded[..encoded.len().min(usize::try_from(HEAD_BYTES).unwrap_or(0))];
    let Some(format) = image_format(head) else {
        return Err(match describe(head) {
            Some(_) if encoded.is_empty() => "is empty".to_owned(),
            Some(what) => format!("is {what}"),
            None => format!("is {NOT_AN_IMAGE}"),
        });
    };
    let encoded = match format {
        ImageFormat::Jpeg => jpeg::image_of(encoded)
            .ok_or_else(|| "is truncated: the end of the JPEG data is missing".to_owned())?,
        ImageFormat::Gif if !has_first_frame(encoded) => {
            return Err("is truncated: the end of the first frame is missing".to_owned());
        }
        _ => encoded,
    };
    let mut reader = ImageReader::with_format(Cursor::new(encoded), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(problem)?;
    // Checked here, because the decoders' own errors do not state the size and the limit.
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(format!("declares {height}x{width} pixels, expected at least one"));
    }
    if width > MAX_SIDE || height > MAX_SIDE || decoder.total_bytes() > MAX_DECODED_BYTES {
        return Err(format!(
            "declares {height}x{width} pixels ({} bytes), the limit is {MAX_SIDE} per side and {MAX_DECODED_BYTES} bytes",
            decoder.total_bytes()
        ));
    }
    Ok(decoder)
}

#[allow(clippy::needless_pass_by_value, reason = "the argument of map_err")]
fn problem(error: ImageError) -> String {
    match error {
        ImageError::Limits(_) => format!("needs more than the limit of {MAX_DECODED_BYTES} bytes to decode"),
        error => format!("cannot be decoded: {error}"),
    }
}
