//! Decoded images on disk: a file with a slot for each image of a dataset, filled while training reads it for the first
//! time, and used by all later runs on the same images.
//!
//! The file is a header of 4,096 bytes, a checksum (u32, little-endian) for each image, and the pixels. A checksum of
//! zero is an image that is not there yet. Pixels are written before their checksum, and each read compares it: what a
//! power failure or a full disk left behind is decoded again. Several processes may fill the file, with the same bytes.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::error::DataError;
use dcgan_base::files::free_bytes;

/// Name of the environment variable that names the cache folder.
pub const CACHE_VARIABLE: &str = "DCGAN_CACHE";

const MAGIC: &str = "dcgan-pixels-1";

/// Bytes of the header. Pixels start at a multiple of it.
const HEADER_BYTES: u64 = 4096;

/// Free disk space that is left when a file is created.
const RESERVE_BYTES: u64 = 1 << 30;

/// The cache folder: `DCGAN_CACHE`, otherwise `dcgan` in `XDG_CACHE_HOME` or in `~/.cache`. `None` if the variable is
/// empty, or if there is no home.
pub fn default_cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    match folder(CACHE_VARIABLE) {
        Some(path) => Some(path).filter(|path| !path.as_os_str().is_empty()),
        None => {
            let absolute = |path: &PathBuf| path.is_absolute();
            let caches = folder("XDG_CACHE_HOME").filter(absolute);
            let caches = caches.or_else(|| Some(folder("HOME").filter(absolute)?.join(".cache")));
            Some(caches?.join("dcgan"))
        }
    }
}

/// A file of decoded images.
#[derive(Debug)]
pub(crate) struct PixelCache {
    path: PathBuf,
    file: File,
    /// Checksums in the file as far as this process knows them.
    sums: Vec<AtomicU32>,
    image_bytes: usize,
    /// Set when an image could not be written.
    is_full: AtomicBool,
}

impl PixelCache {
    /// Opens the file for `count` images of `image_bytes` in `folder`, or creates it. `key` identifies the images.
    ///
    /// # Errors
    ///
    /// A folder or file that cannot be written, or too little space on the disk.
    pub(crate) fn open(
        folder: &Path,
        key: &str,
        count: usize,
        image_bytes: usize,
    ) -> Result<Self, DataError> {
        let path = folder.join(format!("{}.pixels", key.get(..32).unwrap_or(key)));
        let header = format!("{MAGIC}\n{key}\n{count}\n{image_bytes}\n");
        let length = pixels_start(count) + (count as u64) * (image_bytes as u64);
        std::fs::create_dir_all(folder).map_err(DataError::write(folder))?;
        let open = || OpenOptions::new().read(true).write(true).open(&path);
        let is_whole = |file: &File| {
            let mut found = vec![0; header.len()];
            file.metadata().is_ok_and(|metadata| metadata.len() == length)
                && read_at(file, &mut found, 0).is_ok()
                && found == header.as_bytes()
        };
        let file = match open().ok().filter(is_whole) {
            Some(file) => file,
            None => {
                create(&path, &header, length)?;
                open().map_err(DataError::io(&path))?
            }
        };
        let mut table = vec![0; count * 4];
        read_at(&file, &mut table, HEADER_BYTES).map_err(DataError::io(&path))?;
        let sums = table.as_chunks::<4>().0.iter().map(|sum| AtomicU32::new(u32::from_le_bytes(*sum)));
        Ok(Self { sums: sums.collect(), path, file, image_bytes, is_full: AtomicBool::new(false) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Images in the file.
    pub(crate) fn filled(&self) -> usize {
        self.sums.iter().filter(|sum| sum.load(Ordering::Relaxed) != 0).count()
    }

    /// Whether the file has the image, by its checksum alone.
    pub(crate) fn contains(&self, record: usize) -> bool {
        self.sum(record).is_some()
    }

    /// Copies an image; false if it is not there, or damaged.
    pub(crate) fn read(&self, record: usize, into: &mut [u8]) -> bool {
        let Some(sum) = self.sum(record) else { return false };
        read_at(&self.file, into, self.start(record)).is_ok() && checksum(into) == sum
    }

    /// Writes an image. What cannot be written, for example on a full disk, is left out from then on.
    pub(crate) fn write(&self, record: usize, pixels: &[u8]) {
        let Some(slot) = self.sums.get(record).filter(|_| pixels.len() == self.image_bytes) else { return };
        if self.is_full.load(Ordering::Relaxed) {
            return;
        }
        let sum = checksum(pixels);
        let at = HEADER_BYTES + 4 * (record as u64);
        let written = write_at(&self.file, pixels, self.start(record))
            .and_then(|()| write_at(&self.file, &sum.to_le_bytes(), at));
        match written {
            Ok(()) => slot.store(sum, Ordering::Relaxed),
            Err(_) => self.is_full.store(true, Ordering::Relaxed),
        }
    }

    /// Whether images are written no more.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// The checksum of an image; another process may have written it.
    fn sum(&self, record: usize) -> Option<u32> {
        let slot = self.sums.get(record)?;
        let known = slot.load(Ordering::Relaxed);
        if known != 0 {
            return Some(known);
        }
        let mut bytes = [0; 4];
        read_at(&self.file, &mut bytes, HEADER_BYTES + 4 * (record as u64)).ok()?;
        let sum = u32::from_le_bytes(bytes);
        slot.store(sum, Ordering::Relaxed);
        (sum != 0).then_some(sum)
    }

    fn start(&self, record: usize) -> u64 {
        pixels_start(self.sums.len()) + (record as u64) * (self.image_bytes as u64)
    }
}

/// Offset of the pixels.
fn pixels_start(count: usize) -> u64 {
    (HEADER_BYTES + 4 * (count as u64)).next_multiple_of(HEADER_BYTES)
}

/// Creates an empty file. If another process does it at the same time, one of both files is kept.
fn create(path: &Path, header: &str, length: u64) -> Result<(), DataError> {
    if let Some(free) = path.parent().and_then(free_bytes)
        && free < length.saturating_add(RESERVE_BYTES)
    {
        let full = io::Error::other(format!("it takes {length} bytes, {free} are free on the disk"));
        return Err(DataError::write(path)(full));
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let made = || -> io::Result<()> {
        let file = File::create(&temporary)?;
        write_at(&file, header.as_bytes(), 0)?;
        file.set_len(length)?;
        // A file that is there has another length or header: it is damaged.
        std::fs::rename(&temporary, path)
    };
    made().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        DataError::write(path)(error)
    })
}

/// CRC-32 of an image, never zero.
fn checksum(pixels: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(pixels);
    crc.sum().max(1)
}

#[cfg(unix)]
fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, offset)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    static POSITION: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = POSITION.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(into)
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    static POSITION: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = POSITION.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_kept_checked_and_shared() {
        let folder = tempfile::tempdir().unwrap();
        let key = "0123456789abcdef0123456789abcdef0123";
        let open = || PixelCache::open(folder.path(), key, 2000, 12).unwrap();
        let (cache, other) = (open(), open());
        let pixels: Vec<u8> = (0..12).collect();
        let mut found = vec![0; 12];
        assert!(!cache.read(1999, &mut found) && !cache.contains(1999));
        cache.write(1999, &pixels);
        cache.write(2000, &pixels); // no such image
        for cache in [&cache, &other, &open()] {
            assert!(cache.read(1999, &mut found) && found == pixels && cache.filled() <= 1);
            assert!(!cache.read(0, &mut found) && !cache.read(2000, &mut found));
        }
        // Damage is found, and repaired by the next write.
        write_at(&cache.file, &[99], cache.start(1999) + 5).unwrap();
        assert!(!open().read(1999, &mut found));
        cache.write(1999, &pixels);
        assert!(open().read(1999, &mut found));
        // A truncated file is started anew.
        File::options().write(true).open(cache.path()).unwrap().set_len(5000).unwrap();
        assert!(!open().contains(1999));
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [format!("{}.pixels", &key[..32]).as_str()]);
    }

    #[test]
    fn a_full_disk_is_an_error_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let error = PixelCache::open(folder.path(), "key", 1 << 20, 1 << 30).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("are free on the disk"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
