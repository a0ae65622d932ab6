//! What an output path may be.

use super::{AtomicFile, parent, refused};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The path that stands for standard output.
pub const STDOUT: &str = "-";
/// Longest chain of symbolic links, as in Linux.
const MAX_LINKS: usize = 40;

/// Where the bytes of an output go. Only regular files are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output: the path `-`, or `/dev/stdout` and its other names.
    Stdout,
    /// A character device, a named pipe, or an open file of a process (`/dev/fd/3`): written through, never replaced.
    Stream(PathBuf),
    /// A new file, or an existing regular file that is replaced as a whole. Symbolic links are followed: the link
    /// stays, and this is the path of its target.
    File(PathBuf),
}

impl Destination {
    /// The destination of an output at `path`. Nothing is opened or changed.
    ///
    /// # Errors
    /// A folder, a block device, a socket, a link whose target does not exist, a path that names no file, or a missing
    /// parent folder.
    pub fn of(path: &Path) -> io::Result<Self> {
        if [STDOUT, "/dev/stdout", "/dev/fd/1"].iter().any(|name| path == Path::new(name)) {
            return Ok(Self::Stdout);
        }
        let mut current = path.to_owned();
        for _ in 0..MAX_LINKS {
            let metadata = match fs::symlink_metadata(&current) {
                Err(error) if error.kind() == ErrorKind::NotFound && current == path => {
                    check_new_file(path)?;
                    return Ok(Self::File(current));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let target = current.display();
                    return Err(refused(
                        ErrorKind::NotFound,
                        &format!("is a link to {target}, which does not exist"),
                    ));
                }
                metadata => metadata?,
            };
            if !metadata.file_type().is_symlink() {
                return Self::of_existing(current, metadata.file_type());
            }
            if let Some(folder) = fs::canonicalize(parent(&current)).ok().filter(|f| f.starts_with("/proc")) {
                // Such a link stands for an open file of a process; its text need not be a path.
                let own = Path::new("/proc").join(std::process::id().to_string());
                let is_stdout =
                    folder.starts_with(own) && current.file_name().is_some_and(|name| name == "1");
                return Ok(if is_stdout { Self::Stdout } else { Self::Stream(current) });
            }
            current = parent(&current).join(fs::read_link(&current)?);
        }
        Err(refused(ErrorKind::InvalidInput, "leads through too many links"))
    }

    fn of_existing(path: PathBuf, kind: fs::FileType) -> io::Result<Self> {
        if kind.is_file() {
            return Ok(Self::File(path));
        }
        if kind.is_dir() {
            return Err(refused(ErrorKind::IsADirectory, "is a folder, expected a file"));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            if kind.is_char_device() || kind.is_fifo() {
                return Ok(Self::Stream(path));
            }
            if kind.is_block_device() {
                return Err(refused(ErrorKind::InvalidInput, "is a block device, expected a file"));
            }
        }
        Err(refused(ErrorKind::InvalidInput, "is not a regular file, a character device or a pipe"))
    }
}

/// Whether a file can be created at `path`, where nothing exists.
fn check_new_file(path: &Path) -> io::Result<()> {
    if path.file_name().is_none() || path.to_string_lossy().ends_with(std::path::is_separator) {
        return Err(refused(ErrorKind::InvalidInput, "does not name a file"));
    }
    let folder = parent(path);
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(refused(ErrorKind::NotADirectory, &format!("{} is not a folder", folder.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(refused(error.kind(), &format!("the folder {} does not exist", folder.display())))
        }
        Err(error) => Err(error),
    }
}

/// Checks that a file can be written to `path`, for use before long work. A file is created next to it and removed;
/// devices and pipes are not opened.
///
/// # Errors
/// Those of [`Destination::of`]; a folder that is read-only or full; an existing file that is read-only.
pub fn check_output(path: &Path) -> io::Result<Destination> {
    let destination = Destination::of(path)?;
    if let Destination::File(target) = &destination {
        if fs::metadata(target).is_ok_and(|metadata| metadata.permissions().readonly()) {
            return Err(refused(ErrorKind::PermissionDenied, "is a read-only file"));
        }
        drop(AtomicFile::create_per_process(path).map_err(|error| {
            let folder = parent(target).display();
            io::Error::new(error.kind(), format!("no file can be created in the folder {folder}: {error}"))
        })?);
    }
    Ok(destination)
}

/// Checks that `path` can become a new folder: nothing exists there, or an empty folder, or a link to an empty folder.
///
/// # Errors
/// Anything else; a folder that cannot be read.
pub fn check_new_folder(path: &Path) -> io::Result<()> {
    if path == Path::new(STDOUT) {
        return Err(refused(ErrorKind::InvalidInput, "is standard output, expected a folder"));
    }
    match (fs::metadata(path), fs::symlink_metadata(path)) {
        (Ok(metadata), _) if metadata.is_dir() => match fs::read_dir(path)?.next() {
            None => Ok(()),
            Some(_) => Err(refused(ErrorKind::DirectoryNotEmpty, "is not empty; choose another")),
        },
        (Ok(_), _) => Err(refused(ErrorKind::NotADirectory, "is not a folder; choose another")),
        (Err(error), Ok(_)) if error.kind() == ErrorKind::NotFound => {
            Err(refused(error.kind(), "is a link to a folder that does not exist"))
        }
        (Err(error), _) if error.kind() == ErrorKind::NotFound => Ok(()),
        (Err(error), _) => Err(error),
    }
}
