//! Looping animations: image grids as the frames of a GIF.

use dcgan_data::image_grid::ImageGrid;
use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, RgbaImage};
use std::io;
use std::path::{Path, PathBuf};

/// Why an animation could not be encoded or saved.
#[derive(Debug, thiserror::Error)]
pub enum GifError {
    /// The file.
    #[error("cannot write the animation {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The encoder.
    #[error("cannot encode the animation: {0}")]
    Encode(#[from] image::ImageError),
    /// No frame, or frames of different sizes.
    #[error("an animation takes at least one frame, all of one size")]
    Frames,
}

/// Speed of the color quantization to 256 colors, 1 (best quality) to 30; the encoder's documentation recommends 10.
const SPEED: i32 = 10;

/// The frames as a GIF that loops forever, `rate` frames per second (rounded to hundredths of a second by the format).
///
/// # Errors
/// No frame; frames of different sizes, or larger than 65,535 pixels a side.
pub fn encode(frames: &[ImageGrid], rate: u32) -> Result<Vec<u8>, GifError> {
    let first = frames.first().ok_or(GifError::Frames)?;
    if frames.iter().any(|frame| frame.shape() != first.shape()) {
        return Err(GifError::Frames);
    }
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, SPEED);
    encoder.set_repeat(Repeat::Infinite)?;
    for frame in frames {
        let delay = Delay::from_numer_denom_ms(1000, rate.max(1));
        encoder.encode_frame(Frame::from_parts(rgba(frame)?, 0, 0, delay))?;
    }
    drop(encoder); // writes the trailer
    Ok(bytes)
}

/// Writes an encoded animation atomically.
///
/// # Errors
/// The operating system's.
pub fn save(path: &Path, bytes: &[u8]) -> Result<(), GifError> {
    dcgan_base::files::write_atomic(path, bytes).map_err(|source| GifError::Io { path: path.into(), source })
}

fn rgba(grid: &ImageGrid) -> Result<RgbaImage, GifError> {
    let (height, width, channels) = grid.shape();
    let pixel = |pixel: &[u8]| match *pixel {
        [red, green, blue] => [red, green, blue, 255],
        [red, green, blue, alpha] => [red, green, blue, alpha],
        _ => pixel.first().map_or([0; 4], |grey| [*grey, *grey, *grey, 255]),
    };
    let pixels = grid.pixels().chunks_exact(channels.max(1)).flat_map(pixel).collect();
    let side = |side: usize| u32::try_from(side).map_err(|_| GifError::Frames);
    RgbaImage::from_raw(side(width)?, side(height)?, pixels).ok_or(GifError::Frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcgan_data::ImageShape;
    use image::AnimationDecoder;
    use image::codecs::gif::GifDecoder;
    use std::io::Cursor;

    #[test]
    fn frames_survive_a_round_trip() {
        for channels in [1, 3, 4] {
            let shape = ImageShape { height: 2, width: 3, channels };
            // At most 256 colors, so that quantization loses none; opaque where there is alpha.
            let level =
                |i: usize| if channels == 4 && i % 4 == 3 { 255 } else { u8::try_from(i * 5 % 256).unwrap() };
            let bytes: Vec<u8> = (0..3 * shape.bytes()).map(level).collect();
            let frames = ImageGrid::split_batch(&bytes, shape).unwrap();
            let gif = encode(&frames, 20).unwrap();
            let decoded: Vec<Frame> = GifDecoder::new(Cursor::new(gif.as_slice()))
                .unwrap()
                .into_frames()
                .collect::<Result<_, _>>()
                .unwrap();
            assert_eq!(decoded.len(), 3);
            for (frame, grid) in decoded.iter().zip(&frames) {
                assert_eq!(frame.buffer(), &rgba(grid).unwrap());
                assert_eq!(frame.delay().numer_denom_ms(), (50, 1));
            }
        }
        assert!(matches!(encode(&[], 20), Err(GifError::Frames)));
        let two = [ImageGrid::black(2, 2, 1), ImageGrid::black(2, 3, 1)];
        assert!(matches!(encode(&two, 20), Err(GifError::Frames)));
    }
}
