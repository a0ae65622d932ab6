//! The subset of MATLAB v5 files that SVHN needs: numeric arrays by name, optionally zlib-compressed, little-endian.
//! Format: MathWorks, "MAT-File Format", chapter 1 (level 5).

use std::io::Read;

use flate2::read::ZlibDecoder;

use crate::bytes::read_inflated;

const HEADER_BYTES: usize = 128;
/// Element types (table 1-1).
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// Limit for the flags, sizes and name of an array, which are short.
const MAX_SMALL_BYTES: u32 = 256;

/// A numeric array: sizes with the fastest axis first (column-major), and raw little-endian values.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) name: String,
    pub(crate) sizes: Vec<usize>,
    value_type: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Array {
    /// The values of a u8 array.
    pub(crate) fn into_bytes(self) -> Result<Vec<u8>, String> {
        if self.value_type == UINT8 {
            Ok(self.bytes)
        } else {
            Err(format!(
                "array {} contains values of type {}, expected bytes ({UINT8})",
                self.name, self.value_type
            ))
        }
    }

    /// The values as f64.
    pub(crate) fn numbers(&self) -> Result<Vec<f64>, String> {
        fn values<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            let (whole, _) = bytes.as_chunks::<N>();
            whole.iter().map(|bytes| value(*bytes)).collect()
        }
        Ok(match self.value_type {
            INT8 => values(&self.bytes, |b| i8::from_le_bytes(b).into()),
            UINT8 => values(&self.bytes, |[b]| b.into()),
            INT16 => values(&self.bytes, |b| i16::from_le_bytes(b).into()),
            UINT16 => values(&self.bytes, |b| u16::from_le_bytes(b).into()),
            INT32 => values(&self.bytes, |b| i32::from_le_bytes(b).into()),
            UINT32 => values(&self.bytes, |b| u32::from_le_bytes(b).into()),
            SINGLE => values(&self.bytes, |b| f32::from_le_bytes(b).into()),
            DOUBLE => values(&self.bytes, f64::from_le_bytes),
            value_type => {
                return Err(format!("array {} contains values of unknown type {value_type}", self.name));
            }
        })
    }
}

/// The arrays with the given `names`, in the order of the file. Other arrays are skipped.
///
/// # Errors
///
/// A message without the file's name, which the caller adds.
pub(crate) fn arrays(file: &[u8], names: &[&str]) -> Result<Vec<Array>, String> {
    let Some((header, mut rest)) = file.split_at_checked(HEADER_BYTES) else {
        return Err(format!(
            "is truncated: expected a MATLAB header of {HEADER_BYTES} bytes, found {}",
            file.len()
        ));
    };
    match &header[126..] {
        b"IM" => {}
        b"MI" => {
            return Err(
                "is big-endian, expected little-endian: save it again on a little-endian machine".to_owned()
            );
        }
        _ => return Err("has no MATLAB byte-order mark".to_owned()),
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        let tag = Tag::read(&mut rest)?;
        let length = usize::try_from(tag.length).map_err(|error| error.to_string())?;
        let Some((element, after)) = rest.split_at_checked(length) else {
            return Err(format!("is truncated: expected an element of {length} bytes, found {}", rest.len()));
        };
        let array = match tag.kind {
            COMPRESSED => {
                let mut inflated = ZlibDecoder::new(element);
                let array = match Tag::read(&mut inflated)?.kind {
                    MATRIX => read_array(&mut inflated, length, names)?,
                    _ => None,
                };
                if let Some(array) = &array {
                    check_end(inflated).map_err(|problem| format!("array {}: {problem}", array.name))?;
                }
                array
            }
            MATRIX => read_array(&mut &*element, length, names)?,
            _ => None,
        };
        found.extend(array);
        rest = after;
        if tag.kind != COMPRESSED {
            // Uncompressed elements are padded to eight bytes; the padding of the last one can be missing.
            rest = &rest[padding(tag.length).min(rest.len())..];
        }
    }
    Ok(found)
}

/// The tag of an element.
#[derive(Clone, Copy, Debug)]
struct Tag {
    kind: u32,
    length: u32,
    /// Data of up to four bytes stored in the tag (small data element).
    inline: Option<[u8; 4]>,
}

impl Tag {
    fn read(from: &mut impl Read) -> Result<Self, String> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)
            .map_err(|error| format!("is truncated or damaged in an element's tag: {error}"))?;
        let [a, b, c, d, inline @ ..] = bytes;
        let first = u32::from_le_bytes([a, b, c, d]);
        if first >> 16 == 0 {
            return Ok(Self { kind: first, length: u32::from_le_bytes(inline), inline: None });
        }
        let (kind, length) = (first & 0xffff, first >> 16);
        if length > 4 {
            return Err(format!("has a small element of {length} bytes, expected at most 4"));
        }
        Ok(Self { kind, length, inline: Some(inline) })
    }

    /// The data of the element. `compressed` is the length of its compressed bytes, which limits its length.
    fn data(self, from: &mut impl Read, compressed: usize) -> Result<Vec<u8>, String> {
        let length = usize::try_from(self.length).map_err(|error| error.to_string())?;
        if let Some(inline) = self.inline {
            return Ok(inline[..length].to_vec());
        }
        let bytes = read_inflated(from, self.length.into(), compressed)?;
        let mut pad = [0; 8];
        // The padding of the last element can be missing. Elsewhere, missing padding makes the next tag invalid.
        let _ = from.read_exact(&mut pad[..padding(self.length)]);
        Ok(bytes)
    }

    fn small(self, what: &str) -> Result<Self, String> {
        if self.length > MAX_SMALL_BYTES {
            return Err(format!(
                "has an array {what} of {} bytes, the limit is {MAX_SMALL_BYTES}",
                self.length
            ));
        }
        Ok(self)
    }
}

/// Reads to the end of a compressed element, which verifies its checksum.
fn check_end(inflated: impl Read) -> Result<(), String> {
    let mut rest = Vec::new();
    inflated
        .take(MAX_SMALL_BYTES.into())
        .read_to_end(&mut rest)
        .map_err(|error| format!("is damaged: {error}"))?;
    if rest.is_empty() { Ok(()) } else { Err("is followed by more data than declared".to_owned()) }
}

/// Reads the four subelements of a real numeric array: flags, sizes, name, values.
fn read_array(from: &mut impl Read, compressed: usize, names: &[&str]) -> Result<Option<Array>, String> {
    Tag::read(from)?.small("flags field")?.data(from, compressed)?;
    let sizes = Tag::read(from)?.small("list of sizes")?.data(from, compressed)?;
    let name = Tag::read(from)?.small("name")?.data(from, compressed)?;
    let name = String::from_utf8_lossy(&name).into_owned();
    if !names.contains(&name.as_str()) {
        return Ok(None);
    }
    let (sizes, _) = sizes.as_chunks::<4>();
    let sizes =
        sizes.iter().map(|size| usize::try_from(i32::from_le_bytes(*size))).collect::<Result<Vec<_>, _>>();
    let sizes = sizes.map_err(|_| format!("array {name} has a negative size"))?;
    let tag = Tag::read(from)?;
    let value_bytes = match tag.kind {
        INT8 | UINT8 => 1,
        INT16 | UINT16 => 2,
        INT32 | UINT32 | SINGLE => 4,
        DOUBLE => 8,
        value_type => {
            return Err(format!("array {name} contains values of type {value_type}, expected numbers"));
        }
    };
    let expected = sizes.iter().try_fold(value_bytes, |product: usize, size| product.checked_mul(*size));
    if expected != usize::try_from(tag.length).ok() {
        return Err(format!(
            "array {name} of sizes {sizes:?} does not match its {} bytes of data",
            tag.length
        ));
    }
    let bytes = tag.data(from, compressed).map_err(|problem| format!("array {name}: {problem}"))?;
    Ok(Some(Array { name, sizes, value_type: tag.kind, bytes }))
}

/// Padding of `length` to a multiple of eight.
fn padding(length: u32) -> usize {
    usize::try_from(length.wrapping_neg() % 8).unwrap_or(0)
}
