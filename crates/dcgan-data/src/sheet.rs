//! Pictures laid out on black, with numbers and signs, as PNG.

use crate::options::PictureShape;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Pixels between two pictures, and around all of them.
pub const GAP: usize = 2;
/// Rows and columns of a character, without the space beside it.
const GLYPH: (usize, usize) = (5, 3);
/// Most pictures on one sheet: more make a PNG that no viewer opens.
pub const MAX_PICTURES: usize = 10_000;

/// Why a sheet could not be made or saved.
#[derive(Debug, thiserror::Error)]
pub enum SheetError {
    /// The file.
    #[error("{}: the picture cannot be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The encoder.
    #[error("the picture cannot be encoded: {0}")]
    Encode(#[from] image::ImageError),
    /// Bytes that are not pictures of the shape.
    #[error("{found} bytes are not pictures of {shape}")]
    Bytes {
        /// Given.
        found: usize,
        /// Expected of each picture.
        shape: PictureShape,
    },
}

/// Text that is no layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: expected RxC, rows and columns, {MAX_PICTURES} cells at most")]
pub struct LayoutError {
    /// As given.
    pub text: String,
}

/// Rows and columns of a sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

impl Layout {
    /// As many columns as rows or one more.
    pub fn square(n: usize) -> Self {
        let columns = (1..=n).find(|c| c * c >= n).unwrap_or(1);
        Self { rows: n.div_ceil(columns), columns }
    }

    /// Cells.
    pub fn cells(self) -> usize {
        self.rows * self.columns
    }
}

impl FromStr for Layout {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        let side = |side: &str| side.parse::<usize>().ok().filter(|side| (1..=MAX_PICTURES).contains(side));
        let sides = text.split_once('x').and_then(|(rows, columns)| Some((side(rows)?, side(columns)?)));
        match sides {
            Some((rows, columns)) if rows * columns <= MAX_PICTURES => Ok(Self { rows, columns }),
            _ => Err(LayoutError { text: text.to_owned() }),
        }
    }
}

/// A picture of any size, u8 with interleaved channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Sheet {
    /// Black, opaque.
    pub fn black(height: usize, width: usize, channels: usize) -> Self {
        let mut pixels = vec![0; height * width * channels];
        if channels == 4 {
            pixels.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 255);
        }
        Self { width, height, channels, pixels }
    }

    /// Each of the pictures in `bytes`, u8 `(n, h, w, c)`, by itself.
    ///
    /// # Errors
    /// Bytes that do not make whole pictures.
    pub fn each(bytes: &[u8], shape: PictureShape) -> Result<Vec<Self>, SheetError> {
        let PictureShape { height, width, channels } = shape;
        if shape.bytes() == 0 || !bytes.len().is_multiple_of(shape.bytes()) {
            return Err(SheetError::Bytes { found: bytes.len(), shape });
        }
        let one = |picture: &[u8]| Self { width, height, channels, pixels: picture.to_vec() };
        Ok(bytes.chunks_exact(shape.bytes()).map(one).collect())
    }

    /// Pictures of `bytes`, u8 `(n, h, w, c)`, in as many columns as rows or one more.
    ///
    /// # Errors
    /// Bytes that do not make whole pictures.
    pub fn square(bytes: &[u8], shape: PictureShape) -> Result<Self, SheetError> {
        let pictures = Self::each(bytes, shape)?;
        Ok(Self::grid(&pictures, Layout::square(pictures.len())))
    }

    /// Pictures of `bytes`, u8 `(n, h, w, c)`, in rows. Cells left over stay black, pictures left over are not shown.
    ///
    /// # Errors
    /// Bytes that do not make whole pictures.
    pub fn of(bytes: &[u8], shape: PictureShape, layout: Layout) -> Result<Self, SheetError> {
        Ok(Self::grid(&Self::each(bytes, shape)?, layout))
    }

    /// Sheets of one size in rows, [`GAP`] pixels between them and around. Cells left over stay black.
    pub fn grid(cells: &[Self], layout: Layout) -> Self {
        let Some(first) = cells.first() else { return Self::black(GAP, GAP, 1) };
        let side = |count: usize, side: usize| count * (side + GAP) + GAP;
        let mut grid =
            Self::black(side(layout.rows, first.height), side(layout.columns, first.width), first.channels);
        for (i, cell) in cells.iter().take(layout.cells()).enumerate() {
            let (row, column) = (i / layout.columns, i % layout.columns);
            grid.paste(cell, side(row, first.height), side(column, first.width));
        }
        grid
    }

    /// Sheets from left to right, centred vertically, nothing between them.
    pub fn beside(sheets: &[Self]) -> Self {
        let height = sheets.iter().map(|sheet| sheet.height).max().unwrap_or(0);
        let width = sheets.iter().map(|sheet| sheet.width).sum();
        let mut whole = Self::black(height, width, sheets.first().map_or(1, |sheet| sheet.channels));
        let mut left = 0;
        for sheet in sheets {
            whole.paste(sheet, (height - sheet.height) / 2, left);
            left += sheet.width;
        }
        whole
    }

    /// Sheets from top to bottom, left edges aligned, nothing between them.
    pub fn below(sheets: &[Self]) -> Self {
        let height = sheets.iter().map(|sheet| sheet.height).sum();
        let width = sheets.iter().map(|sheet| sheet.width).max().unwrap_or(0);
        let mut whole = Self::black(height, width, sheets.first().map_or(1, |sheet| sheet.channels));
        let mut top = 0;
        for sheet in sheets {
            whole.paste(sheet, top, 0);
            top += sheet.height;
        }
        whole
    }

    /// Height and width in pixels, and channels.
    pub fn shape(&self) -> (usize, usize, usize) {
        (self.height, self.width, self.channels)
    }

    /// Rows of pixels from the top, channels interleaved.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Copies `sheet`, of as many channels, onto this one with its upper left corner at (`top`, `left`); what sticks out is cut.
    pub fn paste(&mut self, sheet: &Self, top: usize, left: usize) {
        let width = sheet.width.min(self.width.saturating_sub(left)) * self.channels;
        let rows = sheet.pixels.chunks_exact((sheet.width * sheet.channels).max(1));
        for (y, row) in rows.enumerate().take(self.height.saturating_sub(top)) {
            let at = ((top + y) * self.width + left) * self.channels;
            if let (Some(into), Some(row)) = (self.pixels.get_mut(at..at + width), row.get(..width)) {
                into.copy_from_slice(row);
            }
        }
    }

    /// Sets one pixel, `colour` as (red, green, blue); grey sheets take its brightest part. Outside: nothing.
    pub fn dot(&mut self, y: usize, x: usize, colour: [u8; 3]) {
        if y >= self.height || x >= self.width {
            return;
        }
        let at = (y * self.width + x) * self.channels;
        let grey = [colour.into_iter().max().unwrap_or(0)];
        let colour: &[u8] = if self.channels == 1 { &grey } else { &colour };
        if let Some(into) = self.pixels.get_mut(at..at + colour.len()) {
            into.copy_from_slice(colour);
        }
    }

    /// Writes digits, `+`, `-`, `=`, `.` and `:` in white from (`top`, `left`), each dot `scale` pixels wide; other characters are
    /// spaces. A character takes 5 x 3 dots, and one more dot beside it.
    pub fn write(&mut self, text: &str, top: usize, left: usize, scale: usize) {
        for (i, character) in text.chars().enumerate() {
            let bits = glyph(character);
            for (y, x) in (0..GLYPH.0 * scale).flat_map(|y| (0..GLYPH.1 * scale).map(move |x| (y, x))) {
                let bit = (y / scale) * GLYPH.1 + x / scale;
                if (bits >> (GLYPH.0 * GLYPH.1 - 1 - bit)) & 1 == 1 {
                    self.dot(top + y, left + (i * (GLYPH.1 + 1)) * scale + x, [255; 3]);
                }
            }
        }
    }

    /// A sign between two blocks: a black strip with `text` in its middle.
    pub fn sign(text: &str, height: usize, scale: usize, channels: usize) -> Self {
        let width = (text.chars().count() * (GLYPH.1 + 1) + 1) * scale;
        let mut strip = Self::black(height.max(GLYPH.0 * scale), width, channels);
        strip.write(text, (strip.height - GLYPH.0 * scale) / 2, scale, scale);
        strip
    }

    /// The same with `text` on a strip below it.
    #[must_use]
    pub fn captioned(&self, text: &str) -> Self {
        let mut whole = Self::black(self.height + GLYPH.0 + 3, self.width, self.channels);
        whole.paste(self, 0, 0);
        whole.write(text, self.height + 2, 1, 1);
        whole
    }

    /// Each pixel as `factor` x `factor` pixels.
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

    /// As a PNG.
    ///
    /// # Errors
    /// A sheet too large for the format.
    pub fn png(&self) -> Result<Vec<u8>, SheetError> {
        let colour = match self.channels {
            1 => ExtendedColorType::L8,
            3 => ExtendedColorType::Rgb8,
            _ => ExtendedColorType::Rgba8,
        };
        let side =
            |side: usize| u32::try_from(side).map_err(|e| image::ImageError::IoError(io::Error::other(e)));
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(
            &self.pixels,
            side(self.width)?,
            side(self.height)?,
            colour,
        )?;
        Ok(bytes)
    }

    /// Writes the PNG, whole or not at all.
    ///
    /// # Errors
    /// The operating system's; a sheet too large for the format.
    pub fn save(&self, path: &Path) -> Result<(), SheetError> {
        let png = self.png()?;
        dcgan_cli::files::write_whole(path, &png)
            .map_err(|source| SheetError::Io { path: path.into(), source })
    }
}

/// Fifteen dots of a character, row by row from the top.
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
    use crate::digest::Digest;

    /// One row of text a row of pixels of a grey sheet: `#` where it is not black.
    fn text(sheet: &Sheet) -> Vec<String> {
        let mark = |pixel: &u8| if *pixel > 0 { '#' } else { '.' };
        sheet.pixels.chunks(sheet.width).map(|row| row.iter().map(mark).collect()).collect()
    }

    /// Run folders and what other commands compare with them keep their bytes from version to version.
    #[test]
    fn the_bytes_of_grids_are_pinned() {
        let rows = [
            (1, 1, "f88fe198ad036d53b8a04c2ef2a8719bb400ab6c5c275149a6fc092570f30e57"),
            (5, 3, "6ac3151e2395e30c3473246a28570c7e12b74556857d3cc52d42a73c76001d55"),
            (64, 4, "6e1e4253c75411c47a944a18140dd47388b05180cc362664bd49ccea569c94be"),
        ];
        for (n, channels, expected) in rows {
            let shape = PictureShape { height: 2, width: 3, channels };
            let pixels: Vec<u8> = (0..n * shape.bytes()).map(|i| (i * 37 % 256).to_le_bytes()[0]).collect();
            let sheet = Sheet::square(&pixels, shape).unwrap();
            assert_eq!(Digest::default().field(sheet.png().unwrap()).hex(), expected, "{n} of {channels}");
        }
    }

    #[test]
    fn sheets_are_put_together_pixel_by_pixel() {
        let white = |height: usize, width: usize| Sheet {
            pixels: vec![255; height * width],
            ..Sheet::black(height, width, 1)
        };
        let mut marked = Sheet::black(2, 3, 1);
        marked.dot(0, 1, [9, 0, 0]);
        let mut cut = Sheet::black(2, 3, 1);
        cut.paste(&white(2, 2), 1, 2);
        cut.dot(5, 5, [255; 3]);
        let rows: &[(Sheet, &[&str])] = &[
            (marked, &[".#.", "..."]),
            (cut, &["...", "..#"]),
            (Sheet::beside(&[white(1, 1), Sheet::black(3, 1, 1), white(3, 1)]), &["..#", "#.#", "..#"]),
            (Sheet::below(&[white(1, 2), white(1, 1)]), &["##", "#."]),
            (Sheet::beside(&[white(1, 1), Sheet::black(1, 1, 1)]).enlarged(2), &["##..", "##.."]),
            (
                Sheet::grid(&[white(1, 1)], Layout { rows: 1, columns: 2 }),
                &["........", "........", "..#.....", "........", "........"],
            ),
            (Sheet::sign("+", 0, 1, 1), &[".....", "..#..", ".###.", "..#..", "....."]),
            (
                white(1, 4).captioned("7"),
                &["####", "....", "....", ".###", "...#", "..#.", "..#.", "..#.", "...."],
            ),
        ];
        for (sheet, expected) in rows {
            assert_eq!(text(sheet), *expected);
        }
        // Colours keep their channels, and opaque stays opaque.
        let mut colour = Sheet::black(1, 2, 4);
        colour.dot(0, 1, [1, 2, 3]);
        assert_eq!(colour.pixels, [0, 0, 0, 255, 1, 2, 3, 255]);
        assert_eq!(
            image::load_from_memory(&colour.png().unwrap()).unwrap().to_rgba8().into_raw(),
            colour.pixels
        );
        let shape = PictureShape { height: 2, width: 2, channels: 3 };
        assert!(matches!(Sheet::each(&[0; 25], shape), Err(SheetError::Bytes { found: 25, .. })));
    }

    #[test]
    fn layouts_as_typed() {
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
