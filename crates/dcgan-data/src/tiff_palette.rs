//! TIFF images with a palette. The image crate reads the values of grey images only, so the tag that says what the
//! values mean is changed from palette to grey, and the colors are looked up afterwards.
//! Format: TIFF 6.0, section 5 (Palette-color Images).

use image::{DynamicImage, RgbImage};

/// Tags, see TIFF 6.0, part 1.
const BITS_PER_SAMPLE: u16 = 258;
const PHOTOMETRIC: u16 = 262;
const COLOR_MAP: u16 = 320;

/// The type of numbers of two bytes.
const SHORT: u16 = 3;

/// Values of [`PHOTOMETRIC`].
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;

/// The colors of 8-bit values.
const COLORS: usize = 256;

/// An image with a palette of 256 colors.
pub(crate) struct Indexed {
    /// The file of an image of the same size whose grey values are the numbers of the colors.
    pub(crate) grey: Vec<u8>,
    colors: Vec<[u8; 3]>,
}

impl Indexed {
    /// The first image of a TIFF file; `None` if it has no palette.
    ///
    /// # Errors
    ///
    /// A message without the image's name: a palette of another size, or a damaged one.
    pub(crate) fn read(encoded: &[u8]) -> Option<Result<Self, String>> {
        let file = File::new(encoded)?;
        let photometric = file.entry(PHOTOMETRIC)?;
        if file.short(photometric.value)? != PALETTE {
            return None;
        }
        let bits = file.entry(BITS_PER_SAMPLE).and_then(|bits| file.short(bits.value)).unwrap_or(1);
        if bits != 8 {
            return Some(Err(format!(
                "is a TIFF image with a palette and {bits} bits per pixel: convert it to PNG, with \
                 magick IN.tif OUT.png"
            )));
        }
        let Some(colors) = file.colors() else {
            return Some(Err("is a TIFF image without the colors of its palette: it is damaged".to_owned()));
        };
        let mut grey = encoded.to_vec();
        let value = file.bytes_of(BLACK_IS_ZERO);
        grey[photometric.value..photometric.value + 2].copy_from_slice(&value);
        Some(Ok(Self { grey, colors }))
    }

    /// The colors of the decoded image.
    pub(crate) fn colored(&self, numbers: &DynamicImage) -> DynamicImage {
        let numbers = numbers.to_luma8();
        let color = |x, y| image::Rgb(self.colors[usize::from(numbers.get_pixel(x, y).0[0])]);
        RgbImage::from_fn(numbers.width(), numbers.height(), color).into()
    }
}

/// A file and its byte order.
struct File<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
    /// Offset of the directory of the first image.
    directory: usize,
}

/// An entry of the directory.
struct Entry {
    kind: u16,
    count: u32,
    /// Offset of its value, or of the offset of its values if they take more than four bytes.
    value: usize,
}

impl<'a> File<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let is_big_endian = match bytes.first_chunk()? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        let mut file = Self { bytes, is_big_endian, directory: 0 };
        file.directory = usize::try_from(file.long(4)?).ok()?;
        Some(file)
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn bytes_of(&self, value: u16) -> [u8; 2] {
        if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// The entry of `tag`.
    fn entry(&self, tag: u16) -> Option<Entry> {
        let count = usize::from(self.short(self.directory)?);
        let start = |i: usize| self.directory.checked_add(2 + 12 * i);
        let at = (0..count).map_while(start).find(|at| self.short(*at) == Some(tag))?;
        Some(Entry { kind: self.short(at + 2)?, count: self.long(at + 4)?, value: at + 8 })
    }

    /// The palette: all red values, then green, then blue, of 16 bits each. Some programs write 8 bits in 16.
    fn colors(&self) -> Option<Vec<[u8; 3]>> {
        let Entry { kind: SHORT, count, value } = self.entry(COLOR_MAP)? else { return None };
        let first = usize::try_from(self.long(value)?).ok()?;
        let values: Vec<u16> =
            (0..3 * COLORS).map(|i| self.short(first.checked_add(2 * i)?)).collect::<Option<_>>()?;
        let shift = if values.iter().all(|value| *value < 256) { 0 } else { 8 };
        let part = |channel: usize, i: usize| u8::try_from(values[channel * COLORS + i] >> shift).ok();
        let color = |i| Some([part(0, i)?, part(1, i)?, part(2, i)?]);
        if usize::try_from(count).ok()? == values.len() { (0..COLORS).map(color).collect() } else { None }
    }
}
