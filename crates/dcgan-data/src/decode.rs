//! Decoding of PNG, JPEG and WebP with limits on size and memory.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

/// Longest side of a decoded image, in pixels.
const MAX_SIDE: u32 = 32_768;

/// Maximum bytes of one decoded image; several threads decode at the same time.
const MAX_DECODED_BYTES: u64 = 256 << 20;

/// Length of the file prefix that determines the image format.
pub(crate) const SIGNATURE_BYTES: u64 = 16;

/// The image format of a file that starts with `head`, if it is supported.
pub(crate) fn image_format(head: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(head).ok()?;
    matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP).then_some(format)
}

/// Decodes an image and applies its EXIF orientation. For an animation it decodes the first frame.
///
/// # Errors
///
/// A message without the image's name, which the caller adds.
pub(crate) fn decode(encoded: &[u8]) -> Result<DynamicImage, String> {
    let mut decoder = decoder(encoded)?;
    // The pixels are valid even if the EXIF block is not.
    let orientation = decoder.orientation().ok();
    let mut image =
        DynamicImage::from_decoder(decoder).map_err(|error| format!("cannot be decoded: {error}"))?;
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
    let decoder = decoder(encoded)?;
    let (width, height) = decoder.dimensions();
    Ok((height, width, decoder.color_type().channel_count()))
}

fn decoder(encoded: &[u8]) -> Result<impl ImageDecoder + '_, String> {
    let Some(format) = image_format(encoded) else {
        return Err(
            if encoded.is_empty() { "is empty" } else { "is not a PNG, JPEG or WebP image" }.to_owned()
        );
    };
    if format == ImageFormat::Jpeg && !jpeg_is_complete(encoded) {
        return Err("is truncated: the end of the JPEG data is missing".to_owned());
    }
    let mut reader = ImageReader::with_format(Cursor::new(encoded), format);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| format!("cannot be decoded: {error}"))?;
    // Not every decoder checks the limits itself.
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE || decoder.total_bytes() > MAX_DECODED_BYTES {
        return Err(format!(
            "declares {height}x{width} pixels, the limit is {MAX_SIDE} per side and {MAX_DECODED_BYTES} bytes"
        ));
    }
    Ok(decoder)
}

/// Whether there is an end marker after the last scan. The JPEG decoder fills missing data with grey and does not fail.
/// Neither marker occurs in the compressed data of a scan, where 0xff is followed by 0 or a restart marker.
fn jpeg_is_complete(encoded: &[u8]) -> bool {
    let last = |marker: u8| encoded.windows(2).rposition(|pair| pair == [0xff, marker]);
    last(0xd9) > last(0xda)
}
