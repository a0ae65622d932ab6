//! The header of a numpy array in a file (.npy), and what its axes mean for images and labels.
//! Format: NumPy, "numpy.lib.format" (NEP 1).

use crate::raw::PixelOrder;
use crate::shape::ImageShape;

/// The magic number of a .npy file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// Maximum length of a header, which contains the type and the sizes.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// Type, order and sizes of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Type of the values, such as `|u1` (u8) or `<f4` (f32, little-endian).
    pub(crate) descr: String,
    /// Whether the first axis is the fastest.
    pub(crate) is_fortran: bool,
    /// Sizes, slowest axis first unless `is_fortran`.
    pub(crate) sizes: Vec<usize>,
    /// Offset of the values in the file.
    pub(crate) first: usize,
}

/// Images in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) count: usize,
    pub(crate) shape: ImageShape,
    pub(crate) order: PixelOrder,
}

impl Header {
    /// Reads the header at the start of `file`.
    pub(crate) fn read(file: &[u8]) -> Result<Self, String> {
        let truncated = || "is truncated in the header of its array".to_owned();
        let version = *file.get(6).filter(|_| file.starts_with(MAGIC)).ok_or_else(truncated)?;
        let (start, length) = match version {
            1 => {
                let [a, b] = *file.get(8..).and_then(<[u8]>::first_chunk).ok_or_else(truncated)?;
                (10, usize::from(u16::from_le_bytes([a, b])))
            }
            2 | 3 => {
                let bytes = *file.get(8..).and_then(<[u8]>::first_chunk).ok_or_else(truncated)?;
                (12, usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX))
            }
            _ => return Err(format!("has an array of format version {version}, expected 1 to 3")),
        };
        if length > MAX_HEADER_BYTES {
            return Err(format!("declares a header of {length} bytes, the limit is {MAX_HEADER_BYTES}"));
        }
        let text = file.get(start..start + length).ok_or_else(truncated)?;
        let text =
            std::str::from_utf8(text).map_err(|_| "has an array header that is not text".to_owned())?;
        let value = |key: &str| {
            let (_, rest) = text.split_once(key)?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        };
        let parsed = || {
            let descr = value("'descr'")?.strip_prefix('\'')?.split_once('\'')?.0.to_owned();
            let is_fortran = value("'fortran_order'")?.starts_with("True");
            let (sizes, _) = value("'shape'")?.strip_prefix('(')?.split_once(')')?;
            let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
            // Python 2 writes a long integer with an L.
            let sizes =
                sizes.map(|size| size.trim_end_matches('L').parse()).collect::<Result<_, _>>().ok()?;
            Some(Self { descr, is_fortran, sizes, first: start + length })
        };
        parsed().ok_or_else(|| format!("has an array header without type and sizes: {}", text.trim_end()))
    }

    /// The sizes and the type, for messages.
    pub(crate) fn describe(&self) -> String {
        let sizes: Vec<String> = self.sizes.iter().map(usize::to_string).collect();
        format!("({}) {}", sizes.join(", "), self.descr)
    }

    /// The same after a name.
    #[cfg(feature = "hdf5")]
    pub(crate) fn describe_named(&self, name: &str) -> String {
        format!("{name} {}", self.describe())
    }

    /// Number of values, if it fits into memory addresses.
    pub(crate) fn values(&self) -> Option<usize> {
        self.sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
    }

    /// How the array contains images: `(n, h, w)`, `(n, h, w, c)`, `(n, c, h, w)`, or `(h, w, c)` for a single image.
    pub(crate) fn layout(&self) -> Result<Layout, String> {
        if !matches!(self.descr.as_str(), "|u1" | "u1" | "<u1" | ">u1" | "=u1") {
            return Err(format!(
                "contains values of type {}, expected u8 from 0 to 255: save array.astype(numpy.uint8)",
                self.descr
            ));
        }
        if self.is_fortran {
            return Err("is in Fortran order: save numpy.ascontiguousarray(array)".to_owned());
        }
        let is_channels = |size: usize| matches!(size, 1 | 3 | 4);
        let (count, height, width, channels, order) = match self.sizes[..] {
            [h, w, c] if is_channels(c) && h > 4 && w > 4 => (1, h, w, c, PixelOrder::Hwc),
            [n, h, w] => (n, h, w, 1, PixelOrder::Hwc),
            [n, h, w, c] if is_channels(c) => (n, h, w, c, PixelOrder::Hwc),
            [n, c, h, w] if is_channels(c) => (n, h, w, c, PixelOrder::Chw),
            _ => {
                return Err(format!(
                    "has sizes {}, expected (n, h, w), (n, h, w, c) or (n, c, h, w) with 1, 3 or 4 channels: \
                     use array.reshape",
                    self.describe()
                ));
            }
        };
        let shape = ImageShape { height, width, channels };
        shape.check().map_err(|error| error.to_string())?;
        Ok(Layout { count, shape, order })
    }

    /// Checks that the sizes are `(count)`, `(count, 1)`, or `(count, 1, 1, 1)` as in PatchCamelyon.
    pub(crate) fn check_label_sizes(&self, count: usize) -> Result<(), String> {
        match &self.sizes[..] {
            [n, ones @ ..] if *n == count && ones.iter().all(|size| *size == 1) => Ok(()),
            _ => Err(format!("has sizes {}, expected ({count})", self.describe())),
        }
    }

    /// The class labels in an array of `count` integers, or why it contains none.
    pub(crate) fn labels(&self, bytes: &[u8], count: usize) -> Result<Vec<u32>, String> {
        self.check_label_sizes(count)?;
        let values = integers(&self.descr, bytes).filter(|values| values.len() == count);
        let values = values.ok_or_else(|| format!("contains values of type {}", self.descr))?;
        let classes = values.into_iter().map(|value| u32::try_from(value).map_err(|_| value));
        classes.collect::<Result<_, _>>().map_err(|value| format!("contains {value}"))
    }
}

/// The integers of type `descr` in `bytes`.
pub(crate) fn integers(descr: &str, bytes: &[u8]) -> Option<Vec<i64>> {
    let is_big_endian = descr.starts_with('>');
    let (is_signed, size) = match descr.trim_start_matches(['|', '<', '>', '=']) {
        "u1" => (false, 1),
        "u2" => (false, 2),
        "u4" => (false, 4),
        "u8" => (false, 8),
        "i1" => (true, 1),
        "i2" => (true, 2),
        "i4" => (true, 4),
        "i8" => (true, 8),
        _ => return None,
    };
    let value = |chunk: &[u8]| {
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        let value = if is_big_endian { chunk.iter().fold(0, fold) } else { chunk.iter().rev().fold(0, fold) };
        let unused = 64 - 8 * size;
        if is_signed { Some((value << unused).cast_signed() >> unused) } else { i64::try_from(value).ok() }
    };
    bytes.chunks_exact(size).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(descr: &str, sizes: &[usize]) -> Header {
        Header { descr: descr.to_owned(), is_fortran: false, sizes: sizes.to_vec(), first: 0 }
    }

    #[test]
    fn headers_are_read() {
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 5, 4L), }   \n";
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        let file = [MAGIC, &[1, 0], &length, text.as_bytes()].concat();
        let expected = Header { first: file.len(), ..header("|u1", &[2, 5, 4]) };
        assert_eq!(Header::read(&file), Ok(expected));
        for length in 0..file.len() {
            assert!(Header::read(&file[..length]).is_err());
        }
    }

    #[test]
    fn axes_are_recognized() {
        type Expected = Option<(usize, (usize, usize, usize), PixelOrder)>;
        let rows: [(&[usize], Expected); 9] = [
            (&[7, 28, 28], Some((7, (28, 28, 1), PixelOrder::Hwc))),
            (&[7, 32, 30, 3], Some((7, (32, 30, 3), PixelOrder::Hwc))),
            (&[7, 3, 32, 30], Some((7, (32, 30, 3), PixelOrder::Chw))),
            (&[7, 1, 32, 30], Some((7, (32, 30, 1), PixelOrder::Chw))),
            (&[32, 30, 3], Some((1, (32, 30, 3), PixelOrder::Hwc))),
            (&[7, 32, 30, 2], None),
            (&[7, 784], None),
            (&[7], None),
            (&[7, 9000, 1], None),
        ];
        for (sizes, expected) in rows {
            let layout = header("|u1", sizes).layout();
            let found = layout.as_ref().ok().map(|layout| {
                let ImageShape { height, width, channels } = layout.shape;
                (layout.count, (height, width, channels), layout.order)
            });
            assert_eq!(found, expected, "{sizes:?}: {layout:?}");
        }
        assert!(header("<f4", &[7, 28, 28]).layout().unwrap_err().contains("astype(numpy.uint8)"));
    }

    #[test]
    fn integers_of_every_type() {
        for (descr, bytes, expected) in [
            ("|u1", &[255][..], Some(vec![255])),
            ("|i1", &[255], Some(vec![-1])),
            ("<i2", &[1, 2, 0xff, 0xff], Some(vec![513, -1])),
            (">i2", &[1, 2], Some(vec![258])),
            ("<i8", &[7, 0, 0, 0, 0, 0, 0, 0], Some(vec![7])),
            ("<u8", &[255; 8], None),
            ("<f4", &[0; 4], None),
        ] {
            assert_eq!(integers(descr, bytes), expected, "{descr}");
        }
    }
}
