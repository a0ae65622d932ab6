//! Feature vectors, one an image: a matrix whose rows are read in blocks, from memory or from a mapped file.

use bytemuck::PodCastError;
use dcgan_data::Bytes;
use half::bf16;
use std::ops::Range;
use std::sync::Arc;

/// How feature values are stored; they are computed with as f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// Four bytes a value.
    #[default]
    F32,
    /// Two bytes a value, eight bits of mantissa.
    Bf16,
}

impl Storage {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// `n` feature vectors of `width` values, or a selection among them. Cloning and selecting share the values.
#[derive(Clone, Debug)]
pub struct Features {
    values: Values,
    width: usize,
    /// Rows of the storage.
    stored: usize,
    /// Rows of the storage that this matrix has, in this order; all of them where there is none.
    selection: Option<Arc<[usize]>>,
}

#[derive(Clone, Debug)]
enum Values {
    F32(Arc<Vec<f32>>),
    Bf16(Arc<Vec<bf16>>),
    /// Little-endian values of the given kind within a file.
    File {
        bytes: Bytes,
        range: Range<usize>,
        storage: Storage,
    },
}

/// A matrix of features that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeaturesError {
    /// The values do not fill whole rows.
    #[error("{len} values do not make rows of {width}")]
    Ragged {
        /// Values given.
        len: usize,
        /// Values of a row.
        width: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "feature {column} of row {row} is {value}, expected a finite number: the network or the images it came from are damaged"
    )]
    NotFinite {
        /// Row in this matrix, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// As printed.
        value: String,
    },
}

impl Features {
    /// Rows of `width` values one after the other.
    ///
    /// # Errors
    /// A length that is not a multiple of `width`; a width of 0.
    pub fn from_f32(values: Vec<f32>, width: usize) -> Result<Self, FeaturesError> {
        let stored = rows(values.len(), width)?;
        Ok(Self { values: Values::F32(Arc::new(values)), width, stored, selection: None })
    }

    /// Rows of `width` values one after the other, stored in two bytes each.
    ///
    /// # Errors
    /// A length that is not a multiple of `width`; a width of 0.
    pub fn from_bf16(values: Vec<bf16>, width: usize) -> Result<Self, FeaturesError> {
        let stored = rows(values.len(), width)?;
        Ok(Self { values: Values::Bf16(Arc::new(values)), width, stored, selection: None })
    }

    /// Rows of `width` little-endian values that lie in `range` of a file's bytes.
    ///
    /// # Errors
    /// A range outside the file, or one that does not hold whole rows.
    pub fn from_bytes(
        bytes: Bytes,
        range: Range<usize>,
        storage: Storage,
        width: usize,
    ) -> Result<Self, FeaturesError> {
        let len = bytes.get(range.clone()).map_or(0, <[u8]>::len);
        if len != range.len() || !len.is_multiple_of(storage.bytes()) {
            return Err(FeaturesError::Ragged { len: range.len() / storage.bytes(), width });
        }
        let stored = rows(len / storage.bytes(), width)?;
        Ok(Self { values: Values::File { bytes, range, storage }, width, stored, selection: None })
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.selection.as_ref().map_or(self.stored, |rows| rows.len())
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How the values are stored.
    pub fn storage(&self) -> Storage {
        match &self.values {
            Values::F32(_) => Storage::F32,
            Values::Bf16(_) => Storage::Bf16,
            Values::File { storage, .. } => *storage,
        }
    }

    /// The given rows of this matrix, in the order given; a row may come twice.
    ///
    /// # Panics
    /// Where a row is not below [`Features::len`]: a mistake of the caller.
    pub fn select(&self, rows: &[usize]) -> Self {
        assert!(rows.iter().all(|&row| row < self.len()), "a selected row does not exist");
        let selection = rows.iter().map(|&row| self.stored_row(row)).collect();
        Self { selection: Some(selection), ..self.clone() }
    }

    /// Rows `rows` as f32, row-major: borrowed where they lie so in memory, else copied to `scratch`.
    ///
    /// # Panics
    /// Where `rows` reaches beyond [`Features::len`]: a mistake of the caller.
    pub fn block<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        assert!(rows.end <= self.len(), "the rows asked for do not exist");
        if self.selection.is_none()
            && let Some(values) = self.as_f32()
        {
            return &values[rows.start * self.width..rows.end * self.width];
        }
        scratch.resize(rows.len() * self.width, 0.0);
        for (row, out) in rows.zip(scratch.chunks_exact_mut(self.width)) {
            self.copy_columns(row, 0..self.width, out);
        }
        scratch
    }

    /// One row as f32.
    ///
    /// # Panics
    /// Where the row does not exist or `out` is not [`Features::width`] long: a mistake of the caller.
    pub fn copy_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.len() && out.len() == self.width, "no such row, or no room for it");
        self.copy_columns(row, 0..self.width, out);
    }

    /// Some columns of one row as f32.
    ///
    /// # Panics
    /// Where the row or the columns do not exist or `out` has another length: a mistake of the caller.
    pub fn copy_columns(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let fits = row < self.len() && columns.end <= self.width && columns.len() == out.len();
        assert!(fits, "no such values, or no room for them");
        let start = self.stored_row(row) * self.width;
        self.copy_stored(start + columns.start..start + columns.end, out);
    }

    /// Refuses values that are NaN or infinite.
    ///
    /// # Errors
    /// [`FeaturesError::NotFinite`] with the first one's place.
    pub fn check_finite(&self) -> Result<(), FeaturesError> {
        let mut scratch = Vec::new();
        for row in 0..self.len() {
            let values = self.block(row..row + 1, &mut scratch);
            if let Some(column) = values.iter().position(|value| !value.is_finite()) {
                return Err(FeaturesError::NotFinite { row, column, value: values[column].to_string() });
            }
        }
        Ok(())
    }

    fn stored_row(&self, row: usize) -> usize {
        self.selection.as_ref().map_or(row, |selection| selection[row])
    }

    /// The whole storage, where its bytes are f32 as this machine has them.
    fn as_f32(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(values) => Some(values),
            Values::File { bytes, range, storage: Storage::F32 } if cfg!(target_endian = "little") => {
                bytemuck::try_cast_slice(&bytes[range.clone()]).ok()
            }
            _ => None,
        }
    }

    fn copy_stored(&self, span: Range<usize>, out: &mut [f32]) {
        match &self.values {
            Values::F32(values) => out.copy_from_slice(&values[span]),
            Values::Bf16(values) => widen(&values[span], out),
            Values::File { bytes, range, storage } => {
                let size = storage.bytes();
                let bytes = &bytes[range.start + span.start * size..range.start + span.end * size];
                let cast: Result<&[bf16], PodCastError> = bytemuck::try_cast_slice(bytes);
                match (storage, cast) {
                    (Storage::Bf16, Ok(values)) if cfg!(target_endian = "little") => widen(values, out),
                    (Storage::Bf16, _) => {
                        for (out, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                            *out = bf16::from_le_bytes([b[0], b[1]]).to_f32();
                        }
                    }
                    (Storage::F32, _) => {
                        for (out, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                            *out = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                        }
                    }
                }
            }
        }
    }
}

fn rows(len: usize, width: usize) -> Result<usize, FeaturesError> {
    if width == 0 || !len.is_multiple_of(width) {
        return Err(FeaturesError::Ragged { len, width });
    }
    Ok(len / width)
}

/// bf16 is the upper half of f32: a shift that the compiler vectorises.
fn widen(values: &[bf16], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = f32::from_bits(u32::from(value.to_bits()) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_storage_gives_the_same_rows() {
        let values: Vec<f32> = (0..12).map(|i| i as f32 - 3.5).collect(); // exact in bf16
        let narrow: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
        let bytes = |values: Vec<u8>| {
            // One byte in front: nothing is aligned.
            let bytes = Bytes::from([vec![0], values].concat());
            let range = 1..bytes.len();
            (bytes, range)
        };
        let (file32, range32) = bytes(values.iter().flat_map(|v| v.to_le_bytes()).collect());
        let (file16, range16) = bytes(narrow.iter().flat_map(|v| v.to_le_bytes()).collect());
        let matrices = [
            Features::from_f32(values.clone(), 3).unwrap(),
            Features::from_bf16(narrow, 3).unwrap(),
            Features::from_bytes(file32, range32, Storage::F32, 3).unwrap(),
            Features::from_bytes(file16, range16, Storage::Bf16, 3).unwrap(),
        ];
        for matrix in matrices {
            let mut scratch = Vec::new();
            assert_eq!((matrix.len(), matrix.width()), (4, 3));
            assert_eq!(matrix.block(1..3, &mut scratch), &values[3..9]);
            let chosen = matrix.select(&[3, 0, 3]).select(&[2, 1]);
            assert_eq!(chosen.len(), 2);
            assert_eq!(chosen.block(0..2, &mut scratch), [&values[9..12], &values[0..3]].concat());
            let mut row = [0.0; 3];
            chosen.copy_row(1, &mut row);
            assert_eq!(row, values[0..3]);
        }
    }

    #[test]
    fn matrices_that_cannot_be() {
        assert!(Features::from_f32(vec![0.0; 5], 2).is_err());
        assert!(Features::from_f32(vec![], 0).is_err());
        let bytes = Bytes::from(vec![0; 8]);
        assert!(Features::from_bytes(bytes.clone(), 0..9, Storage::F32, 2).is_err());
        assert!(Features::from_bytes(bytes, 0..6, Storage::F32, 1).is_err());
        let matrix = Features::from_f32(vec![0.0, 1.0, 2.0, f32::NAN], 2).unwrap();
        let found = matrix.select(&[1, 0]).check_finite().unwrap_err();
        assert_eq!(found, FeaturesError::NotFinite { row: 0, column: 1, value: "NaN".into() });
        assert!(matrix.select(&[0, 0]).check_finite().is_ok());
    }
}
