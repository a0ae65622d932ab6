//! Features on disk, so that a long extraction resumes where it was interrupted.
//!
//! A header of 64 bytes names what the features are of. A row is 2048 values, f32 little-endian, and a checksum (u64).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::inception::FEATURES;

const MAGIC: &[u8; 16] = b"dcgan-features-1";
const HEADER_BYTES: usize = 64;
const ROW_BYTES: usize = FEATURES * 4 + 8;

/// Rows between two syncs: what a power failure costs at most.
const SYNC_ROWS: usize = 1024;

/// The features of one dataset or model.
#[derive(Debug)]
pub struct FeatureFile {
    path: PathBuf,
    file: File,
    features: Vec<f32>,
    unsynced: usize,
}

impl FeatureFile {
    /// Opens the file of `key`, 64 hexadecimal digits, in `folder`, with the features that are there, or starts it.
    /// `None` if another process writes it.
    ///
    /// # Errors
    /// The folder or the file cannot be read or written, or the file system has no locks.
    pub fn open(folder: &Path, key: &str) -> io::Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.features", key.get(..32).unwrap_or(key)));
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut header = [0; HEADER_BYTES];
        header[..16].copy_from_slice(MAGIC);
        let key = key.as_bytes();
        header[16..].copy_from_slice(key.get(..48).unwrap_or(&[b'0'; 48]));
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut features = Vec::new();
        let mut length = HEADER_BYTES;
        match bytes.strip_prefix(&header) {
            Some(rows) => {
                for row in rows.chunks_exact(ROW_BYTES) {
                    let (values, sum) = row.split_at(FEATURES * 4);
                    if checksum(values).to_le_bytes() != sum {
                        break;
                    }
                    features.extend(values.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
                    length += ROW_BYTES;
                }
            }
            None => {
                file.rewind()?;
                file.write_all(&header)?;
            }
        }
        // What follows is incomplete.
        file.set_len(length as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Some(Self { path, file, features, unsynced: 0 }))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends features `(n, 2048)`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, features: &[f32]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(features.len() / FEATURES * ROW_BYTES);
        for row in features.chunks_exact(FEATURES) {
            let start = bytes.len();
            bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
            let sum = checksum(&bytes[start..]);
            bytes.extend(sum.to_le_bytes());
        }
        self.file.write_all(&bytes)?;
        self.unsynced += features.len() / FEATURES;
        if self.unsynced >= SYNC_ROWS {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Takes the features `(n, 2048)` that were there when the file was opened.
    pub fn take_features(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.features)
    }
}

/// FNV-1a over words of four bytes, not zero.
fn checksum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<4>().0.iter().map(|word| u64::from(u32::from_le_bytes(*word)));
    words.fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x100_0000_01b3)) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_go_on_behind_the_last_complete_row() {
        let folder = tempfile::tempdir().unwrap();
        let key = "ab".repeat(32);
        let open = || FeatureFile::open(folder.path(), &key).unwrap().unwrap();
        let row = |value: f32| vec![value; FEATURES];
        let mut file = open();
        assert!(FeatureFile::open(folder.path(), &key).unwrap().is_none(), "it is locked");
        file.append(&[row(1.0), row(2.0)].concat()).unwrap();
        let path = file.path().to_owned();
        drop(file);
        assert_eq!(open().take_features(), [row(1.0), row(2.0)].concat());
        // A row that is cut, and one with other bytes.
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(open().take_features(), row(1.0));
        let mut damaged = bytes.clone();
        damaged[HEADER_BYTES + 5] ^= 1;
        fs::write(&path, damaged).unwrap();
        let mut file = open();
        assert_eq!(file.take_features(), [0.0; 0]);
        file.append(&row(3.0)).unwrap();
        drop(file);
        assert_eq!(open().take_features(), row(3.0));
        // Another file of that name is not used.
        fs::write(&path, b"something else").unwrap();
        assert_eq!(open().take_features(), [0.0; 0]);
    }
}
