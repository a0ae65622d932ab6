//! Feature vectors, one per sample: a matrix whose rows are read in blocks, from memory or from a mapped file.

use bytemuck::PodCastError;
pub use dcgan_base::Precision;
use half::bf16;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A matrix of `n` feature vectors of `width` values, or a selection of its rows. Clones and selections share the
/// values.
#[derive(Clone, Debug)]
pub struct Features {
    values: Values,
    width: usize,
    /// Rows in storage.
    stored: usize,
    /// The rows of the storage that belong to this matrix, in order; `None` for all.
    selection: Option<Arc<[usize]>>,
}

/// Bytes of a file, in memory or mapped.
#[derive(Clone)]
struct SharedBytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.get().len())
    }
}

impl SharedBytes {
    fn get(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

#[derive(Clone, Debug)]
enum Values {
    F32(Arc<Vec<f32>>),
    Bf16(Arc<Vec<bf16>>),
    /// Little-endian values within the bytes of a file.
    File {
        bytes: SharedBytes,
        range: Range<usize>,
        storage: Precision,
    },
}

/// Invalid features.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeaturesError {
    /// The number of values is not a multiple of the width.
    #[error("{len} values, expected a multiple of the row width {width}")]
    Ragged {
        /// Values given.
        len: usize,
        /// Values of a row.
        width: usize,
    },
    /// A value is NaN or infinite.
    #[error("feature {column} of row {row} is {value}, expected a finite number")]
    NotFinite {
        /// Row in this matrix, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value as text.
        value: String,
    },
}

impl Features {
    /// Row-major values, `(n, width)`.
    ///
    /// # Errors
    /// A length that is not a multiple of `width`; a width of 0.
    pub fn from_f32(values: Vec<f32>, width: usize) -> Result<Self, FeaturesError> {
        let stored = rows(values.len(), width)?;
        Ok(Self { values: Values::F32(Arc::new(values)), width, stored, selection: None })
    }

    /// Row-major values in bf16, `(n, width)`.
    ///
    /// # Errors
    /// A length that is not a multiple of `width`; a width of 0.
    pub fn from_bf16(values: Vec<bf16>, width: usize) -> Result<Self, FeaturesError> {
        let stored = rows(values.len(), width)?;
        Ok(Self { values: Values::Bf16(Arc::new(values)), width, stored, selection: None })
    }

    /// Row-major little-endian values, `(n, width)`, in the byte range `range` of a file that is in memory or mapped.
    ///
    /// # Errors
    /// A range outside the file, or a length that is not a multiple of a row's.
    pub fn from_bytes(
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        range: Range<usize>,
        storage: Precision,
        width: usize,
    ) -> Result<Self, FeaturesError> {
        let bytes = SharedBytes(Arc::new(bytes));
        let len = bytes.get().get(range.clone()).map_or(0, <[u8]>::len);
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

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How the values are stored.
    pub fn storage(&self) -> Precision {
        match &self.values {
            Values::F32(_) => Precision::F32,
            Values::Bf16(_) => Precision::Bf16,
            Values::File { storage, .. } => *storage,
        }
    }

    /// The given rows, in the given order; rows may repeat.
    ///
    /// # Panics
    /// If a row is not below [`Features::len`].
    pub fn select(&self, rows: &[usize]) -> Self {
        assert!(rows.iter().all(|&row| row < self.len()), "selected rows must be below the number of rows");
        let selection = rows.iter().map(|&row| self.stored_row(row)).collect();
        Self { selection: Some(selection), ..self.clone() }
    }

    /// The rows `rows` as f32, row-major: borrowed if the storage is f32 in memory, otherwise copied to `scratch`.
    ///
    /// # Panics
    /// If `rows` ends beyond [`Features::len`].
    pub fn block<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        assert!(rows.end <= self.len(), "rows must be below the number of rows");
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
    /// If the row does not exist or `out` does not have [`Features::width`] values.
    pub fn copy_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.len() && out.len() == self.width, "copy_row: row or length out of range");
        self.copy_columns(row, 0..self.width, out);
    }

    /// Some columns of one row as f32.
    ///
    /// # Panics
    /// If the row or the columns do not exist or `out` has another length.
    pub fn copy_columns(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let fits = row < self.len() && columns.end <= self.width && columns.len() == out.len();
        assert!(fits, "copy_columns: row, columns or length out of range");
        let start = self.stored_row(row) * self.width;
        self.copy_stored(start + columns.start..start + columns.end, out);
    }

    /// Rejects NaN and infinite values.
    ///
    /// # Errors
    /// [`FeaturesError::NotFinite`] with the position of the first one.
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

    /// The whole storage, if it is aligned f32 in native byte order.
    fn as_f32(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(values) => Some(values),
            Values::File { bytes, range, storage: Precision::F32 } if cfg!(target_endian = "little") => {
                bytemuck::try_cast_slice(&bytes.get()[range.clone()]).ok()
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
                let bytes = &bytes.get()[range.start + span.start * size..range.start + span.end * size];
                let cast: Result<&[bf16], PodCastError> = bytemuck::try_cast_slice(bytes);
                match (storage, cast) {
                    (Precision::Bf16, Ok(values)) if cfg!(target_endian = "little") => widen(values, out),
                    (Precision::Bf16, _) => {
                        for (out, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                            *out = bf16::from_le_bytes([b[0], b[1]]).to_f32();
                        }
                    }
                    (Precision::F32, _) => {
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

/// bf16 is the upper half of f32: a shift that the compiler vectorizes.
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
            // One byte in front, so that nothing is aligned.
            let bytes = [vec![0], values].concat();
            let range = 1..bytes.len();
            (bytes, range)
        };
        let (file32, range32) = bytes(values.iter().flat_map(|v| v.to_le_bytes()).collect());
        let (file16, range16) = bytes(narrow.iter().flat_map(|v| v.to_le_bytes()).collect());
        let matrices = [
            Features::from_f32(values.clone(), 3).unwrap(),
            Features::from_bf16(narrow, 3).unwrap(),
            Features::from_bytes(file32, range32, Precision::F32, 3).unwrap(),
            Features::from_bytes(file16, range16, Precision::Bf16, 3).unwrap(),
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
    fn invalid_matrices_are_rejected() {
        assert!(Features::from_f32(vec![0.0; 5], 2).is_err());
        assert!(Features::from_f32(vec![], 0).is_err());
        let bytes = vec![0; 8];
        assert!(Features::from_bytes(bytes.clone(), 0..9, Precision::F32, 2).is_err());
        assert!(Features::from_bytes(bytes, 0..6, Precision::F32, 1).is_err());
        let matrix = Features::from_f32(vec![0.0, 1.0, 2.0, f32::NAN], 2).unwrap();
        let found = matrix.select(&[1, 0]).check_finite().unwrap_err();
        assert_eq!(found, FeaturesError::NotFinite { row: 0, column: 1, value: "NaN".into() });
        assert!(matrix.select(&[0, 0]).check_finite().is_ok());
    }
}
