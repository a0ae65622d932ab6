//! Files that are whole or absent, whatever happens to the process or the machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A name in the same folder that readers of the folder ignore.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".tmp-{name}"))
}

/// Writes `bytes` to a temporary file beside `path`, flushes it to the disk, and renames it; the name is flushed too.
///
/// # Errors
/// The operating system's; nothing is left behind.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_names(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Flushes every file of `folder`, then the folder itself.
///
/// # Errors
/// The operating system's.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_names(folder)
}

/// Flushes the names in `folder`, so that a rename outlives a power cut.
///
/// # Errors
/// The operating system's.
pub fn sync_names(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Makes `link` a symbolic link to `target`, replacing one that is there in one step.
///
/// # Errors
/// The operating system's.
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
