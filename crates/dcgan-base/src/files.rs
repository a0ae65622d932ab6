//! Atomic file writing: after a crash or power failure a file is complete or absent.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A hidden name in the same folder. It is fixed, so the next attempt replaces the file of a killed process.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".tmp-{name}"))
}

/// The folder that contains `path`.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A buffered file writer whose file appears under its final name only when it is complete.
///
/// Bytes go to a temporary file in the same folder. [`AtomicFile::commit`] syncs it to disk, renames it and syncs the
/// folder, so the final name never refers to a partial file, even after a power failure. Dropping it without a commit
/// removes the temporary file and keeps an existing file of the final name.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Starts writing a file that will appear at `path`.
    ///
    /// # Errors
    /// The temporary file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::begin(path, temporary(path))
    }

    /// Like [`AtomicFile::create`], but two processes that write the same path at the same time do not collide: the
    /// name of the temporary file contains the process id. A killed process leaves its temporary file behind.
    ///
    /// # Errors
    /// The temporary file cannot be created.
    pub fn create_per_process(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::begin(path, path.with_file_name(format!(".tmp-{}-{name}", std::process::id())))
    }

    fn begin(path: &Path, temporary: PathBuf) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        Ok(Self { path: path.to_owned(), temporary, file: Some(file) })
    }

    /// The final path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the file and renames it to its final path.
    ///
    /// # Errors
    /// Writing, syncing or renaming failed; the temporary file is removed.
    pub fn commit(mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let commit = || {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&self.temporary, &self.path)?;
            sync_names(parent(&self.path))
        };
        commit().inspect_err(|_| drop(fs::remove_file(&self.temporary)))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // A drop has no way to report a failure.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `bytes` to `path` through an [`AtomicFile`].
///
/// # Errors
/// The file cannot be written; no temporary file remains.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Syncs every file in `folder`, then the folder itself.
///
/// # Errors
/// A file or the folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_names(folder)
}

/// Syncs the directory entries of `folder`, so that a rename survives a power failure.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_names(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Creates the symbolic link `link` to `target`, atomically replacing an existing link.
///
/// # Errors
/// The link cannot be created or renamed.
pub fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let temporary = temporary(link);
    if let Err(error) = fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(target, &temporary)?;
    #[cfg(windows)]
    std::os::windows::fs::symlink_dir(target, &temporary)?;
    fs::rename(&temporary, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_complete_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        write_atomic(&path, b"first").unwrap();
        let mut dropped = AtomicFile::create(&path).unwrap();
        dropped.write_all(b"half").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        drop(dropped);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file remained");
        let mut second = AtomicFile::create(&path).unwrap();
        second.write_all(b"second").unwrap();
        second.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        // The path is a folder: the rename fails and no temporary file remains.
        let taken = folder.path().join("folder");
        fs::create_dir(&taken).unwrap();
        write_atomic(&taken, b"x").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_temporary_file_of_a_killed_process_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".tmp-f"), b"longer than the new content").unwrap();
        write_atomic(&folder.path().join("f"), b"new").unwrap();
        assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn writers_of_different_processes_do_not_collide() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        // `other` has the name that another process can use at the same time.
        let mut own = AtomicFile::create_per_process(&path).unwrap();
        let mut other = AtomicFile::create(&path).unwrap();
        own.write_all(b"own").unwrap();
        other.write_all(b"other").unwrap();
        assert_eq!((own.path(), other.path()), (&*path, &*path));
        other.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"other");
        own.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"own");
        drop(AtomicFile::create_per_process(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file remained");
    }
}
