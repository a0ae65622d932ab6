//! Grids of pictures as PNG files.

use crate::PictureShape;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use std::io;
use std::path::{Path, PathBuf};

/// Pixels between two pictures.
const GAP: usize = 2;

/// Pictures laid out in rows on black.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

/// Why a grid could not be saved.
#[derive(Debug, thiserror::Error)]
#[error("{}: the picture cannot be written: {source}", path.display())]
pub struct GridError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl Grid {
    /// Lays out `pixels`, u8 `(n, h, w, c)`, with as many columns as rows or one more.
    pub fn new(pixels: &[u8], shape: PictureShape) -> Self {
        let PictureShape { height, width, channels } = shape;
        let n = pixels.len() / (height * width * channels).max(1);
        let columns = (1..=n).find(|c| c * c >= n).unwrap_or(1);
        let rows = n.div_ceil(columns);
        let side = |count: usize, side: usize| count * (side + GAP) + GAP;
        let (full_width, full_height) = (side(columns, width), side(rows, height));
        let mut grid = vec![0; full_width * full_height * channels];
        if channels == 4 {
            // Opaque black between the pictures.
            grid.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 255);
        }
        for (i, picture) in pixels.chunks_exact(height * width * channels).enumerate() {
            let (top, left) = (side(i / columns, height), side(i % columns, width));
            for (y, row) in picture.chunks_exact(width * channels).enumerate() {
                let at = ((top + y) * full_width + left) * channels;
                grid[at..at + row.len()].copy_from_slice(row);
            }
        }
        Self { width: full_width, height: full_height, channels, pixels: grid }
    }

    /// Writes a PNG beside `path` and renames it, so that the file is whole or absent.
    ///
    /// # Errors
    /// The operating system's.
    pub fn save(&self, path: &Path) -> Result<(), GridError> {
        let failed = |source| GridError { path: path.into(), source };
        let colour = match self.channels {
            1 => ExtendedColorType::L8,
            3 => ExtendedColorType::Rgb8,
            _ => ExtendedColorType::Rgba8,
        };
        let side = |side: usize| u32::try_from(side).map_err(|e| failed(io::Error::other(e)));
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(&self.pixels, side(self.width)?, side(self.height)?, colour)
            .map_err(|e| failed(io::Error::other(e)))?;
        dcgan_cli::files::write_whole(path, &bytes).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_land_in_their_cells() {
        for (n, columns, rows) in [(1_u8, 1, 1), (2, 2, 1), (4, 2, 2), (5, 3, 2), (64, 8, 8)] {
            let shape = PictureShape { height: 2, width: 3, channels: 3 };
            let pixels: Vec<u8> = (0..n).flat_map(|i| [i + 1; 18]).collect();
            let grid = Grid::new(&pixels, shape);
            assert_eq!((grid.width, grid.height), (columns * 5 + 2, rows * 4 + 2));
            for i in 0..usize::from(n) {
                let (x, y) = ((i % columns) * 5 + 2, (i / columns) * 4 + 2);
                assert_eq!(grid.pixels[((y + 1) * grid.width + x + 2) * 3 + 2], pixels[i * 18]);
            }
        }
    }
}
