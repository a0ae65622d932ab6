//! Looping animations: image grids as the frames of a GIF.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, RgbaImage};

use crate::image_grid::ImageGrid;
use crate::shape::ImageShape;

/// Why an animation could not be encoded or saved.
#[derive(Debug, thiserror::Error)]
pub enum GifError {
    /// The file.
    #[error("{}: {source}", path.display())]
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

/// A looping animation that is written frame by frame: one frame is in memory at a time.
pub struct Animation<W: Write> {
    encoder: GifEncoder<W>,
    shape: Option<(usize, usize, usize)>,
}

impl<W: Write> fmt::Debug for Animation<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Animation").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl<W: Write> Animation<W> {
    /// Starts an animation that loops forever.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W) -> Result<Self, GifError> {
        let mut encoder = GifEncoder::new_with_speed(out, SPEED);
        encoder.set_repeat(Repeat::Infinite)?;
        Ok(Self { encoder, shape: None })
    }

    /// Writes a frame that is shown for `delay`, which the format rounds to hundredths of a second.
    ///
    /// # Errors
    /// A frame of another size than the first, or larger than 65,535 pixels a side; those of the output.
    pub fn write(&mut self, frame: &ImageGrid, delay: Duration) -> Result<(), GifError> {
        if *self.shape.get_or_insert(frame.shape()) != frame.shape() {
            return Err(GifError::Frames);
        }
        let delay = Delay::from_saturating_duration(delay);
        Ok(self.encoder.encode_frame(Frame::from_parts(rgba(frame)?, 0, 0, delay))?)
    }

    /// Writes the end of the animation.
    pub fn finish(self) {
        drop(self.encoder); // writes the trailer
    }
}

/// The frames as a GIF that loops forever, `rate` frames per second (rounded to hundredths of a second by the format).
///
/// # Errors
/// No frame; frames of different sizes, or larger than 65,535 pixels a side.
pub fn encode(frames: &[ImageGrid], rate: u32) -> Result<Vec<u8>, GifError> {
    if frames.is_empty() {
        return Err(GifError::Frames);
    }
    let mut bytes = Vec::new();
    let mut animation = Animation::new(&mut bytes)?;
    for frame in frames {
        animation.write(frame, Duration::from_secs(1) / rate.max(1))?;
    }
    animation.finish();
    Ok(bytes)
}

/// Reads an image of a file as a frame.
///
/// # Errors
/// A file that cannot be read, or is not an image.
pub fn read_frame(path: &Path) -> Result<ImageGrid, GifError> {
    let bytes = std::fs::read(path).map_err(|source| GifError::Io { path: path.into(), source })?;
    let image = image::load_from_memory(&bytes)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let (channels, bytes) = match image.color().channel_count() {
        1 => (1, image.into_luma8().into_raw()),
        3 => (3, image.into_rgb8().into_raw()),
        _ => (4, image.into_rgba8().into_raw()),
    };
    let mut images =
        ImageGrid::split_batch(&bytes, ImageShape { height, width, channels }).unwrap_or_default();
    images.pop().ok_or(GifError::Frames)
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
