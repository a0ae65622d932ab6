//! A large file that is written in order, and resumed after an interruption.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dcgan_base::files::sync_names;

/// Bytes between two syncs: what a power failure costs at most.
const SYNC_BYTES: u64 = 256 << 20;

/// Bytes at the start of a partial file in place of the first bytes of the head: a mark, and how many bytes are synced.
const MARK_BYTES: usize = 16;
const MARK: [u8; 8] = *b"partial\0";

/// A file that appears at its path when it is complete. Until then it is beside it, with the ending `.partial`, locked
/// by the process that writes it.
#[derive(Debug)]
pub(crate) struct PartialFile {
    path: PathBuf,
    target: PathBuf,
    file: File,
    head: Vec<u8>,
    /// Length so far.
    length: u64,
    /// How much of it is not synced yet.
    unsynced: u64,
}

impl PartialFile {
    /// Starts the file that will be at `target`, or resumes one that starts with the same `head` of 16 bytes or more.
    /// `None` if another process writes it, or if there is no such file yet and none can be locked.
    ///
    /// # Errors
    ///
    /// The file cannot be created, read or written.
    pub(crate) fn open(target: &Path, head: &[u8]) -> io::Result<Option<Self>> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let path = target.with_file_name(name);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut found = vec![0; head.len()];
        let is_same = file.read_exact(&mut found).is_ok()
            && found.starts_with(&MARK)
            && found.get(MARK_BYTES..) == head.get(MARK_BYTES..);
        let synced = found.get(8..MARK_BYTES).and_then(|bytes| bytes.first_chunk()).copied();
        let synced = synced.map(u64::from_le_bytes).filter(|_| is_same).unwrap_or(0);
        let length = file.metadata()?.len();
        let target = target.to_owned();
        let mut partial = Self { path, target, file, head: head.to_vec(), length: 0, unsynced: 0 };
        if is_same && synced >= head.len() as u64 && length >= synced {
            // What follows may be incomplete.
            partial.file.set_len(synced)?;
            partial.length = synced;
        } else {
            partial.file.set_len(0)?;
            partial.file.rewind()?;
            partial.file.write_all(&partial.mark(0))?;
            partial.file.write_all(head.get(MARK_BYTES..).unwrap_or_default())?;
            (partial.length, partial.unsynced) = (head.len() as u64, head.len() as u64);
        }
        partial.file.seek(SeekFrom::End(0))?;
        Ok(Some(partial))
    }

    /// Bytes so far, with the head.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Appends `bytes`. An interruption costs whole calls.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.file.rewind()?;
            self.file.write_all(&self.mark(self.length))?;
            self.file.seek(SeekFrom::End(0))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Appends the end, completes the file and renames it to its target.
    pub(crate) fn commit(mut self, end: &[u8]) -> io::Result<()> {
        self.file.write_all(end)?;
        self.file.sync_data()?;
        self.file.rewind()?;
        self.file.write_all(self.head.get(..MARK_BYTES).unwrap_or(&self.head))?;
        if let Ok(metadata) = std::fs::metadata(&self.target) {
            self.file.set_permissions(metadata.permissions())?;
        }
        self.file.sync_all()?;
        std::fs::rename(&self.path, &self.target)?;
        self.unsynced = 0; // nothing to remove
        sync_names(self.target.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")))
    }

    fn mark(&self, synced: u64) -> [u8; MARK_BYTES] {
        let mut mark = [0; MARK_BYTES];
        mark[..8].copy_from_slice(&MARK);
        mark[8..].copy_from_slice(&synced.to_le_bytes());
        mark
    }
}

impl Drop for PartialFile {
    /// Removes a file from which nothing could be resumed.
    fn drop(&mut self) {
        if self.unsynced == self.length {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_on_where_it_was_synced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.cache");
        let head: Vec<u8> = (0..40).collect();
        let mut file = PartialFile::open(&target, &head).unwrap().unwrap();
        assert_eq!(file.len(), 40);
        assert!(PartialFile::open(&target, &head).unwrap().is_none(), "it is locked");
        file.append(&[7; 5]).unwrap();
        file.unsynced = SYNC_BYTES; // the next call syncs
        file.append(&[8; 5]).unwrap();
        file.append(&[9; 5]).unwrap();
        drop(file);
        let mut file = PartialFile::open(&target, &head).unwrap().unwrap();
        assert_eq!((file.len(), target.exists()), (50, false));
        file.append(&[1]).unwrap();
        file.commit(&[1]).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), [&head[..], &[7; 5], &[8; 5], &[1; 2]].concat());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        // Nothing is left of a file of which nothing is synced.
        PartialFile::open(&target, &head).unwrap().unwrap().append(&[7; 5]).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        // Another head starts anew.
        let mut file = PartialFile::open(&target, &head).unwrap().unwrap();
        file.unsynced = SYNC_BYTES;
        file.append(&[0; 3]).unwrap();
        drop(file);
        let other: Vec<u8> = (1..41).collect();
        assert_eq!(PartialFile::open(&target, &other).unwrap().unwrap().len(), 40);
    }
}
