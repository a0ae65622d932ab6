//! Output files: what a path may be, and atomic writing, so that after a crash a file is complete or absent.

mod destination;

use crate::digest::Digest;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

pub use destination::{Destination, STDOUT, check_new_folder, check_output};

/// Attempts to create a temporary file whose name is taken.
const ATTEMPTS: usize = 8;
/// Longest name, in bytes, that still fits into a file name with the prefix of a temporary file.
const MAX_NAME: usize = 230;

/// A hidden name in the same folder. With equal `tag` it is fixed, so the next attempt replaces the file of a killed
/// process.
fn temporary(path: &Path, tag: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut hidden = OsString::from(format!(".tmp-{tag}"));
    if name.len() <= MAX_NAME {
        hidden.push(name);
    } else {
        hidden.push(Digest::default().field(name.as_encoded_bytes()).hex());
    }
    path.with_file_name(hidden)
}

fn refused(kind: ErrorKind, problem: &str) -> io::Error {
    io::Error::new(kind, problem.to_owned())
}

/// The folder that contains `path`.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file at `path`, in place of a file of that name. A link of that name is removed, never followed: in a folder
/// that others can write to, somebody may have put it there.
fn create_new(path: &Path) -> io::Result<File> {
    for _ in 0..ATTEMPTS {
        match File::create_new(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => return result,
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let name = path.display();
                return Err(io::Error::new(error.kind(), format!("{name} cannot be replaced: {error}")));
            }
            _ => {}
        }
    }
    Err(refused(ErrorKind::AlreadyExists, &format!("{} is created by another program", path.display())))
}

/// A buffered file writer whose file appears under its final name only when it is complete.
///
/// Bytes go to a temporary file in the same folder. [`AtomicFile::commit`] syncs it to disk, renames it and syncs the
/// folder, so the final name never refers to a partial file, even after a power failure. Dropping it without a commit
/// removes the temporary file and keeps an existing file of the final name.
///
/// Only regular files are replaced, see [`Destination`]: a link stays and its target is replaced; devices, pipes and
/// standard output receive the bytes as they are written.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    /// The final and the temporary path; `None` where the bytes are written through.
    replaces: Option<(PathBuf, PathBuf)>,
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Starts writing a file that will appear at `path`.
    ///
    /// # Errors
    /// Those of [`Destination::of`]; the temporary file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::begin(path, "")
    }

    /// Like [`AtomicFile::create`], but two processes that write the same path at the same time do not collide: the
    /// name of the temporary file contains the process id. A killed process leaves its temporary file behind.
    ///
    /// # Errors
    /// Those of [`AtomicFile::create`].
    pub fn create_per_process(path: &Path) -> io::Result<Self> {
        Self::begin(path, &format!("{}-", std::process::id()))
    }

    fn begin(path: &Path, tag: &str) -> io::Result<Self> {
        let (replaces, file) = match Destination::of(path)? {
            Destination::Stdout => (None, stdout_file()?),
            // Bytes are appended: a descriptor may be an open file with content.
            Destination::Stream(stream) => (None, OpenOptions::new().append(true).open(stream)?),
            Destination::File(target) => {
                let temporary = temporary(&target, tag);
                let file = create_new(&temporary)?;
                (Some((target, temporary)), file)
            }
        };
        let file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { path: path.to_owned(), replaces, file })
    }

    /// The path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the file and renames it to its final path. An existing file's permissions are kept.
    ///
    /// # Errors
    /// Writing, syncing or renaming failed, or another process replaced the temporary file; it is removed.
    pub fn commit(mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let Some((target, temporary)) = &self.replaces else {
            return file.into_inner().map_err(io::IntoInnerError::into_error)?.flush();
        };
        let commit = || {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            if let Ok(metadata) = fs::metadata(target) {
                file.set_permissions(metadata.permissions())?;
            }
            file.sync_all()?;
            if !is_name_of(temporary, &file)? {
                let problem = format!("{} was replaced by another process", temporary.display());
                return Err(refused(ErrorKind::AlreadyExists, &problem));
            }
            fs::rename(temporary, target)?;
            sync_names(parent(target))
        };
        commit().inspect_err(|_| drop(fs::remove_file(temporary)))
    }
}

/// Whether `path` is a name of the open `file`.
#[cfg(unix)]
fn is_name_of(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (named, open) = (fs::symlink_metadata(path)?, file.metadata()?);
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}

#[cfg(not(unix))]
fn is_name_of(_: &Path, _: &File) -> io::Result<bool> {
    Ok(true)
}

/// Standard output as a file.
fn stdout_file() -> io::Result<File> {
    #[cfg(unix)]
    return Ok(std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?.into());
    #[cfg(windows)]
    return Ok(std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned()?.into());
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
        let Some(file) = self.file.take() else { return };
        drop(file.into_parts()); // without writing the rest of the buffer
        if let Some((_, temporary)) = &self.replaces {
            // A drop has no way to report a failure.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Free bytes of the file system of `folder`, where the system reports them.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let status = rustix::fs::statvfs(folder).ok()?;
    Some(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Free bytes of the file system of `folder`, where the system reports them.
#[cfg(not(unix))]
pub fn free_bytes(_folder: &Path) -> Option<u64> {
    None
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
    let temporary = temporary(link, "");
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

#[cfg(all(test, unix))]
mod tests;
