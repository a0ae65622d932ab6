//! Image grids: images arranged on a black background with numbers and labels, saved as PNG, JPEG or WebP.

use crate::image_file::{EXTENSIONS, ImageFileFormat};
use crate::shape::ImageShape;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Pixels between images and around the grid.
pub const GAP: usize = 2;
/// Rows and columns of a character, without spacing.
const GLYPH: (usize, usize) = (5, 3);
/// Maximum number of images in a grid. Viewers do not open larger PNGs.
pub const MAX_IMAGES: usize = 10_000;

/// Errors of creating or saving an image grid.
#[derive(Debug, thiserror::Error)]
pub enum ImageGridError {
    /// The file cannot be written.
    #[error("{}: the image cannot be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The image cannot be encoded.
    #[error("the image cannot be encoded: {0}")]
    Encode(#[from] image::ImageError),
    /// The name has the extension of another format.
    #[error("{}: expected the extension {}, or none for PNG", path.display(), EXTENSIONS.join(", "))]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// The number of bytes is not a multiple of the image size.
    #[error("found {found} bytes, expected whole images of {shape}")]
    Bytes {
        /// Bytes found.
        found: usize,
        /// The expected shape of each image.
        shape: ImageShape,
    },
}

/// An invalid layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: expected ROWSxCOLUMNS with at most {MAX_IMAGES} cells, such as 4x8")]
pub struct LayoutError {
    /// The invalid text.
    pub text: String,
}

/// Rows and columns of an image grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

impl Layout {
    /// The layout of `n` images with as many columns as rows, or one more.
    pub fn square(n: usize) -> Self {
        let columns = (1..=n).find(|c| c * c >= n).unwrap_or(1);
        Self { rows: n.div_ceil(columns), columns }
    }

    /// Number of cells.
    pub fn cells(self) -> usize {
        self.rows * self.columns
    }
}

impl FromStr for Layout {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        let side = |side: &str| side.parse::<usize>().ok().filter(|side| (1..=MAX_IMAGES).contains(side));
        let sides = text.split_once('x').and_then(|(rows, columns)| Some((side(rows)?, side(columns)?)));
        match sides {
            Some((rows, columns)) if rows * columns <= MAX_IMAGES => Ok(Self { rows, columns }),
            _ => Err(LayoutError { text: text.to_owned() }),
        }
    }
}

/// An image of any size, u8 `(h, w, c)`: a grid of images, or a single image to arrange in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageGrid {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

/// Cells in the order of a grid of `rows` rows that they fill column by column: cell `i` in row `i % rows`.
pub fn by_column<T: Clone>(cells: &[T], rows: usize) -> Vec<T> {
    (0..rows).flat_map(|row| cells.iter().skip(row).step_by(rows)).cloned().collect()
}

impl ImageGrid {
    /// An opaque black image.
    pub fn black(height: usize, width: usize, channels: usize) -> Self {
        let mut pixels = vec![0; height * width * channels];
        if channels == 4 {
            pixels.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 255);
        }
        Self { width, height, channels, pixels }
    }

    /// Splits a batch, u8 `(n, h, w, c)`, into its images.
    ///
    /// # Errors
    /// `bytes` is not a whole number of images.
    pub fn split_batch(bytes: &[u8], shape: ImageShape) -> Result<Vec<Self>, ImageGridError> {
        let ImageShape { height, width, channels } = shape;
        if shape.bytes() == 0 || !bytes.len().is_multiple_of(shape.bytes()) {
            return Err(ImageGridError::Bytes { found: bytes.len(), shape });
        }
        let one = |image: &[u8]| Self { width, height, channels, pixels: image.to_vec() };
        Ok(bytes.chunks_exact(shape.bytes()).map(one).collect())
    }

    /// A grid of the batch `bytes`, u8 `(n, h, w, c)`, in [`Layout::square`].
    ///
    /// # Errors
    /// `bytes` is not a whole number of images.
    pub fn square(bytes: &[u8], shape: ImageShape) -> Result<Self, ImageGridError> {
        let images = Self::split_batch(bytes, shape)?;
        Ok(Self::grid(&images, Layout::square(images.len())))
    }

    /// A grid of the batch `bytes`, u8 `(n, h, w, c)`. Unused cells are black; surplus images are omitted.
    ///
    /// # Errors
    /// `bytes` is not a whole number of images.
    pub fn with_layout(bytes: &[u8], shape: ImageShape, layout: Layout) -> Result<Self, ImageGridError> {
        Ok(Self::grid(&Self::split_batch(bytes, shape)?, layout))
    }

    /// A grid of images of equal shape with [`GAP`] pixels between and around them. Unused cells are black; surplus
    /// images are omitted.
    pub fn grid(cells: &[Self], layout: Layout) -> Self {
        Self::grid_with_gap(cells, layout, GAP)
    }

    /// [`ImageGrid::grid`] with `gap` pixels between and around the images.
    pub fn grid_with_gap(cells: &[Self], layout: Layout, gap: usize) -> Self {
        let Some(first) = cells.first() else { return Self::black(gap, gap, 1) };
        let side = |count: usize, side: usize| count * (side + gap) + gap;
        let mut grid =
            Self::black(side(layout.rows, first.height), side(layout.columns, first.width), first.channels);
        for (i, cell) in cells.iter().take(layout.cells()).enumerate() {
            let (row, column) = (i / layout.columns, i % layout.columns);
            grid.paste(cell, side(row, first.height), side(column, first.width));
        }
        grid
    }

    /// Images in a row, centered vertically, without gaps.
    pub fn hstack(grids: &[Self]) -> Self {
        let height = grids.iter().map(|grid| grid.height).max().unwrap_or(0);
        let width = grids.iter().map(|grid| grid.width).sum();
        let mut whole = Self::black(height, width, grids.first().map_or(1, |grid| grid.channels));
        let mut left = 0;
        for grid in grids {
            whole.paste(grid, (height - grid.height) / 2, left);
            left += grid.width;
        }
        whole
    }

    /// Images in a column, aligned left, without gaps.
    pub fn vstack(grids: &[Self]) -> Self {
        let height = grids.iter().map(|grid| grid.height).sum();
        let width = grids.iter().map(|grid| grid.width).max().unwrap_or(0);
        let mut whole = Self::black(height, width, grids.first().map_or(1, |grid| grid.channels));
        let mut top = 0;
        for grid in grids {
            whole.paste(grid, top, 0);
            top += grid.height;
        }
        whole
    }

    /// Height, width and channels.
    pub fn shape(&self) -> (usize, usize, usize) {
        (self.height, self.width, self.channels)
    }

    /// The pixels, u8 `(h, w, c)`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Copies `image`, which has the same number of channels, into this image with its upper left corner at
    /// (`top`, `left`). Pixels outside are cropped.
    pub fn paste(&mut self, image: &Self, top: usize, left: usize) {
        let width = image.width.min(self.width.saturating_sub(left)) * self.channels;
        let rows = image.pixels.chunks_exact((image.width * image.channels).max(1));
        for (y, row) in rows.enumerate().take(self.height.saturating_sub(top)) {
            let at = ((top + y) * self.width + left) * self.channels;
            if let (Some(into), Some(row)) = (self.pixels.get_mut(at..at + width), row.get(..width)) {
                into.copy_from_slice(row);
            }
        }
    }

    /// Sets a pixel to `color` (red, green, blue), or to its maximum in a grey image. Pixels outside are ignored.
    pub fn set_pixel(&mut self, y: usize, x: usize, color: [u8; 3]) {
        if y >= self.height || x >= self.width {
            return;
        }
        let at = (y * self.width + x) * self.channels;
        let grey = [color.into_iter().max().unwrap_or(0)];
        let color: &[u8] = if self.channels == 1 { &grey } else { &color };
        if let Some(into) = self.pixels.get_mut(at..at + color.len()) {
            into.copy_from_slice(color);
        }
    }

    /// Draws `text` in white with its upper left corner at (`top`, `left`).
    ///
    /// Supported characters are digits, `+`, `-`, `=`, `.` and `:`; others are spaces. A character has 5 x 3 dots of
    /// `scale` x `scale` pixels, and one dot of spacing.
    pub fn draw_text(&mut self, text: &str, top: usize, left: usize, scale: usize) {
        for (i, character) in text.chars().enumerate() {
            let bits = glyph(character);
            for (y, x) in (0..GLYPH.0 * scale).flat_map(|y| (0..GLYPH.1 * scale).map(move |x| (y, x))) {
                let bit = (y / scale) * GLYPH.1 + x / scale;
                if (bits >> (GLYPH.0 * GLYPH.1 - 1 - bit)) & 1 == 1 {
                    self.set_pixel(top + y, left + (i * (GLYPH.1 + 1)) * scale + x, [255; 3]);
                }
            }
        }
    }

    /// A black column of at least `height` pixels with `text` in its middle, to put between other images.
    pub fn label_strip(text: &str, height: usize, scale: usize, channels: usize) -> Self {
        let width = (text.chars().count() * (GLYPH.1 + 1) + 1) * scale;
        let mut strip = Self::black(height.max(GLYPH.0 * scale), width, channels);
        strip.draw_text(text, (strip.height - GLYPH.0 * scale) / 2, scale, scale);
        strip
    }

    /// This image with `text` below it.
    #[must_use]
    pub fn captioned(&self, text: &str) -> Self {
        let mut whole = Self::black(self.height + GLYPH.0 + 3, self.width, self.channels);
        whole.paste(self, 0, 0);
        whole.draw_text(text, self.height + 2, 1, 1);
        whole
    }

    /// This image upscaled by an integer factor (nearest neighbour).
    #[must_use]
    pub fn enlarged(&self, factor: usize) -> Self {
        let factor = factor.max(1);
        let mut whole = Self::black(self.height * factor, self.width * factor, self.channels);
        let channels = self.channels;
        for (i, into) in whole.pixels.chunks_exact_mut(channels.max(1)).enumerate() {
            let (y, x) = (i / (self.width * factor) / factor, i % (self.width * factor) / factor);
            let at = (y * self.width + x) * channels;
            if let Some(pixel) = self.pixels.get(at..at + channels) {
                into.copy_from_slice(pixel);
            }
        }
        whole
    }

    /// Encodes the image as PNG.
    ///
    /// # Errors
    /// The image is too large for the format.
    pub fn png(&self) -> Result<Vec<u8>, ImageGridError> {
        Ok(ImageFileFormat::Png.encode(&self.pixels, self.shape())?)
    }

    /// Writes the image atomically, in the format that the extension of `path` names ([`ImageFileFormat`]). The path
    /// `-` is standard output.
    ///
    /// # Errors
    /// Another extension; a file that cannot be written; an image that is too large for the format.
    pub fn save(&self, path: &Path) -> Result<(), ImageGridError> {
        let format =
            ImageFileFormat::of(path).ok_or_else(|| ImageGridError::Extension { path: path.into() })?;
        let bytes = format.encode(&self.pixels, self.shape())?;
        dcgan_base::files::write_atomic(path, &bytes)
            .map_err(|source| ImageGridError::Io { path: path.into(), source })
    }
}

/// The 5 x 3 dots of a character in row-major order, first dot in the highest bit.
fn glyph(character: char) -> u16 {
    match character {
        '0' => 0b111_101_101_101_111,
        '1' => 0b010_110_010_010_111,
        '2' => 0b111_001_111_100_111,
        '3' => 0b111_001_111_001_111,
        '4' => 0b101_101_111_001_001,
        '5' => 0b111_100_111_001_111,
        '6' => 0b111_100_111_101_111,
        '7' => 0b111_001_010_010_010,
        '8' => 0b111_101_111_101_111,
        '9' => 0b111_101_111_001_111,
        '+' => 0b000_010_111_010_000,
        '-' => 0b000_000_111_000_000,
        '=' => 0b000_111_000_111_000,
        '.' => 0b000_000_000_000_010,
        ':' => 0b000_010_000_010_000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcgan_base::digest::Digest;

    /// A grey image as text, one line per row: `#` where a pixel is not black.
    fn text(grid: &ImageGrid) -> Vec<String> {
        let mark = |pixel: &u8| if *pixel > 0 { '#' } else { '.' };
        grid.pixels.chunks(grid.width).map(|row| row.iter().map(mark).collect()).collect()
    }

    /// Image grids of run folders are compared byte by byte, so their encoding must not change.
    #[test]
    fn the_bytes_of_grids_are_pinned() {
        let rows = [
            (1, 1, "f88fe198ad036d53b8a04c2ef2a8719bb400ab6c5c275149a6fc092570f30e57"),
            (5, 3, "6ac3151e2395e30c3473246a28570c7e12b74556857d3cc52d42a73c76001d55"),
            (64, 4, "6e1e4253c75411c47a944a18140dd47388b05180cc362664bd49ccea569c94be"),
        ];
        for (n, channels, expected) in rows {
            let shape = ImageShape { height: 2, width: 3, channels };
            let pixels: Vec<u8> = (0..n * shape.bytes()).map(|i| (i * 37 % 256).to_le_bytes()[0]).collect();
            let grid = ImageGrid::square(&pixels, shape).unwrap();
            assert_eq!(Digest::default().field(grid.png().unwrap()).hex(), expected, "{n} of {channels}");
        }
    }

    #[test]
    fn images_are_arranged_pixel_by_pixel() {
        let white = |height: usize, width: usize| ImageGrid {
            pixels: vec![255; height * width],
            ..ImageGrid::black(height, width, 1)
        };
        let mut marked = ImageGrid::black(2, 3, 1);
        marked.set_pixel(0, 1, [9, 0, 0]);
        let mut cut = ImageGrid::black(2, 3, 1);
        cut.paste(&white(2, 2), 1, 2);
        cut.set_pixel(5, 5, [255; 3]);
        let rows: &[(ImageGrid, &[&str])] = &[
            (marked, &[".#.", "..."]),
            (cut, &["...", "..#"]),
            (
                ImageGrid::hstack(&[white(1, 1), ImageGrid::black(3, 1, 1), white(3, 1)]),
                &["..#", "#.#", "..#"],
            ),
            (ImageGrid::vstack(&[white(1, 2), white(1, 1)]), &["##", "#."]),
            (ImageGrid::hstack(&[white(1, 1), ImageGrid::black(1, 1, 1)]).enlarged(2), &["##..", "##.."]),
            (
                ImageGrid::grid(&[white(1, 1)], Layout { rows: 1, columns: 2 }),
                &["........", "........", "..#.....", "........", "........"],
            ),
            (ImageGrid::label_strip("+", 0, 1, 1), &[".....", "..#..", ".###.", "..#..", "....."]),
            (
                white(1, 4).captioned("7"),
                &["####", "....", "....", ".###", "...#", "..#.", "..#.", "..#.", "...."],
            ),
        ];
        for (grid, expected) in rows {
            assert_eq!(text(grid), *expected);
        }
        // The order of channels is kept, and alpha stays opaque.
        let mut color = ImageGrid::black(1, 2, 4);
        color.set_pixel(0, 1, [1, 2, 3]);
        assert_eq!(color.pixels, [0, 0, 0, 255, 1, 2, 3, 255]);
        assert_eq!(
            image::load_from_memory(&color.png().unwrap()).unwrap().to_rgba8().into_raw(),
            color.pixels
        );
        let shape = ImageShape { height: 2, width: 2, channels: 3 };
        assert!(matches!(
            ImageGrid::split_batch(&[0; 25], shape),
            Err(ImageGridError::Bytes { found: 25, .. })
        ));
    }

    #[test]
    fn layouts_are_parsed() {
        let rows: &[(&str, Option<(usize, usize)>)] = &[
            ("3x4", Some((3, 4))),
            ("1x10000", Some((1, 10_000))),
            ("101x100", None),
            ("18446744073709551615x2", None),
            ("3", None),
            ("3x", None),
            ("-3x4", None),
        ];
        for (text, expected) in rows {
            let found = text.parse::<Layout>().ok().map(|layout| (layout.rows, layout.columns));
            assert_eq!(found, *expected, "{text}");
        }
    }
}
