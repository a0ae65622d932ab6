//! Animations: grids one after the other as a GIF that goes round.

use dcgan_data::image_grid::ImageGrid;
use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, RgbaImage};
use std::io;
use std::path::{Path, PathBuf};

/// Why an animation could not be made or saved.
#[derive(Debug, thiserror::Error)]
pub enum GifError {
    /// The file.
    #[error("{}: the animation cannot be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The encoder.
    #[error("the animation cannot be encoded: {0}")]
    Encode(#[from] image::ImageError),
    /// Frames of different sizes, or none.
    #[error("an animation needs frames of one size, and at least one")]
    Frames,
}

/// How carefully 256 colors are chosen: 1 (best) to 30; 10 is what the encoder's authors advise.
const SPEED: i32 = 10;

/// The frames as a GIF, `rate` a second (GIF counts hundredths of a second), without end.
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
    drop(encoder); // writes the end of the file
    Ok(bytes)
}

/// Writes the bytes of an animation, whole or not at all.
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
    fn frames_come_back() {
        for channels in [1, 3, 4] {
            let shape = ImageShape { height: 2, width: 3, channels };
            // Few colors, so that none are lost; opaque where there is alpha.
            let level =
                |i: usize| if channels == 4 && i % 4 == 3 { 255 } else { u8::try_from(i * 5 % 256).unwrap() };
            let bytes: Vec<u8> = (0..3 * shape.bytes()).map(level).collect();
            let frames = ImageGrid::each(&bytes, shape).unwrap();
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
