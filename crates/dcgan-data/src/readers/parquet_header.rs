//! The header of a page of a Parquet file (`PageHeader` in parquet.thrift), in Thrift's compact protocol. Only where
//! pages are and how many rows they have is read from it; the library decodes their values.

/// Nested structs and lists that are skipped; statistics have one level.
const MAX_DEPTH: usize = 8;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// Values, with the number of rows: a column that is not repeated has one value a row.
    Data(usize),
    Dictionary,
    Other,
}

/// Kind and size of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) kind: PageKind,
    /// Bytes of the header itself.
    pub(crate) header: usize,
    /// Bytes of the page after the header.
    pub(crate) compressed: usize,
    /// Bytes of the page in memory.
    pub(crate) uncompressed: usize,
}

// Types of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

// Fields of `PageHeader`.
const TYPE: i16 = 1;
const UNCOMPRESSED: i16 = 2;
const COMPRESSED: i16 = 3;
const DATA_PAGE: i16 = 5;
const DICTIONARY_PAGE: i16 = 7;
const DATA_PAGE_V2: i16 = 8;

/// Field `num_values` of the headers of data pages.
const VALUES: i16 = 1;

impl PageHeader {
    /// Reads the header at the start of `bytes`; `None` if it is damaged or truncated.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut input = Input { bytes, at: 0 };
        let (mut kind, mut compressed, mut uncompressed) = (None, None, None);
        let (mut values, mut has_dictionary) = ([None, None], false);
        let mut last = 0;
        while let Some((id, field)) = input.field(&mut last)? {
            match (id, field) {
                (TYPE, I32) => kind = Some(input.integer()?),
                (UNCOMPRESSED, I32) => uncompressed = usize::try_from(input.integer()?).ok(),
                (COMPRESSED, I32) => compressed = usize::try_from(input.integer()?).ok(),
                (DATA_PAGE, STRUCT) => values[0] = input.values()?,
                (DATA_PAGE_V2, STRUCT) => values[1] = input.values()?,
                (DICTIONARY_PAGE, STRUCT) => {
                    has_dictionary = true;
                    input.skip(STRUCT, 0)?;
                }
                (_, field) => input.skip(field, 0)?,
            }
        }
        let kind = match kind? {
            0 => PageKind::Data(values[0]?),
            3 => PageKind::Data(values[1]?),
            2 if has_dictionary => PageKind::Dictionary,
            2 => return None,
            _ => PageKind::Other,
        };
        Some(Self { kind, header: input.at, compressed: compressed?, uncompressed: uncompressed? })
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn advance(&mut self, count: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(count).ok()?)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A signed integer in zigzag order.
    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Number and type of the next field of a struct, none at its end.
    #[allow(clippy::option_option, reason = "damaged, or the end of a struct")]
    fn field(&mut self, last: &mut i16) -> Option<Option<(i16, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *last = match byte >> 4 {
            0 => i16::try_from(self.integer()?).ok()?,
            delta => last.checked_add(i16::from(delta))?,
        };
        Some(Some((*last, byte & 0x0f)))
    }

    /// The number of values in the header of a data page.
    #[allow(clippy::option_option, reason = "damaged, or without the number")]
    fn values(&mut self) -> Option<Option<usize>> {
        let (mut values, mut last) = (None, 0);
        while let Some((id, field)) = self.field(&mut last)? {
            match (id, field) {
                (VALUES, I32) => values = usize::try_from(self.integer()?).ok(),
                (_, field) => self.skip(field, 0)?,
            }
        }
        Some(values)
    }

    fn skip(&mut self, field: u8, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match field {
            TRUE | FALSE => Some(()),
            BYTE => self.advance(1),
            I16 | I32 | I64 => self.varint().map(|_| ()),
            DOUBLE => self.advance(8),
            BINARY => {
                let length = self.varint()?;
                self.advance(length)
            }
            LIST | SET => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                (0..count).try_for_each(|_| self.skip_element(byte & 0x0f, depth + 1))
            }
            MAP => {
                let count = self.varint()?;
                let types = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.skip_element(types >> 4, depth + 1)?;
                    self.skip_element(types & 0x0f, depth + 1)
                })
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, field)) = self.field(&mut last)? {
                    self.skip(field, depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    /// Elements of collections differ from fields in booleans, which have a byte of their own.
    fn skip_element(&mut self, field: u8, depth: usize) -> Option<()> {
        match field {
            TRUE | FALSE => self.advance(1),
            field => self.skip(field, depth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        // Type 0, sizes 300 and 200, a data page of 9 values with encodings and a statistic, an unknown list.
        let data = [
            0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x90, 0x03, 0x2c, 0x15, 0x12, 0x15, 0x00, 0x15, 0x06, 0x15,
            0x06, 0x1c, 0x18, 0x02, b'a', b'b', 0x00, 0x00, 0x49, 0x25, 0x02, 0x04, 0x00,
        ];
        let expected =
            PageHeader { kind: PageKind::Data(9), header: data.len(), compressed: 200, uncompressed: 300 };
        assert_eq!(PageHeader::read(&[&data[..], b"page"].concat()), Some(expected));
        for length in 0..data.len() {
            assert_eq!(PageHeader::read(&data[..length]), None, "{length}");
        }
        // The header of a data page is missing; a list of 2^60 booleans.
        assert_eq!(PageHeader::read(&[0x15, 0x00, 0x15, 0x02, 0x15, 0x02, 0x00]), None);
        let list = [0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert_eq!(PageHeader::read(&list), None);
    }
}
