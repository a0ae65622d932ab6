//! Format detection: chooses the reader for a path by its content.

use std::path::{Path, PathBuf};

use crate::bytes::{file_time, gunzip_head, head};
use crate::error::DataError;
use crate::index::Index;
use crate::journal::Journal;
use crate::kind::{HEAD_BYTES, describe, image_format, is_gzip, is_hdf5, is_pickle, is_tar, is_zip};
use crate::options::OpenOptions;
#[cfg(feature = "hdf5")]
use crate::readers::hdf5;
#[cfg(feature = "parquet")]
use crate::readers::parquet;
use crate::readers::shards::{self, Found, ShardFormat};
use crate::readers::{
    archive, array, cache, celeba, cifar, cifar_python, folder, idx, imagenet_batches, lmdb, npy, stl10,
    svhn, tar,
};
use crate::source::Scan;
use crate::split::Split;
use dcgan_base::digest::Digest;

/// Folders in which publishers and torchvision put the files of a dataset, below the folder that users name.
const LAYOUTS: &[&str] = &[
    "raw",
    "MNIST/raw",
    "FashionMNIST/raw",
    "KMNIST/raw",
    "QMNIST/raw",
    "EMNIST/raw",
    "cifar-10-batches-bin",
    "cifar-10-batches-py",
    "cifar-100-binary",
    "cifar-100-python",
    "stl10_binary",
];

/// Scans `path` with the reader for its format: file list, labels and report. Encoded images are not decoded here.
pub(crate) fn scan(path: &Path, options: &OpenOptions) -> Result<Scan, DataError> {
    let index = Index::of(path, options);
    if let Some(scan) = index.as_ref().and_then(Index::load) {
        return Ok(scan);
    }
    let mut journal = index.as_ref().map(Index::journal);
    let mut scan = scan_path(path, options, journal.as_mut())?;
    if scan.modified.is_empty() {
        let mut digest = Digest::default();
        for file in scan.source.files() {
            let metadata = std::fs::metadata(&file).ok();
            digest.number(metadata.as_ref().map_or(0, file_time));
            scan.report.bytes += metadata.map_or(0, |metadata| metadata.len());
        }
        scan.modified = digest.hex();
    }
    if let Some(index) = index {
        index.save(&scan);
    }
    Ok(scan)
}

fn scan_path(path: &Path, options: &OpenOptions, journal: Option<&mut Journal>) -> Result<Scan, DataError> {
    let metadata = std::fs::metadata(path).map_err(DataError::io(path))?;
    let mut scan = if metadata.is_dir() {
        return scan_folder(path, options, journal);
    } else {
        let head = head(path, HEAD_BYTES)?;
        if imagenet_batches::is_batch(path) && (is_zip(&head) || is_pickle(&head)) {
            imagenet_batches::scan_files(path, &[path.to_owned()])
        } else if is_zip(&head) {
            return archive::scan(path, options);
        } else if let Some(format) = ShardFormat::of(&head) {
            let scan = scan_shards(path, format, vec![path.to_owned()], options);
            if format == ShardFormat::Tar {
                return scan; // it may have folders of splits
            }
            scan
        } else if head.starts_with(cache::MAGIC) {
            cache::scan(path, options)
        } else if head.starts_with(b"MATLAB 5.0") {
            svhn::scan(path)
        } else if idx::is_idx(&head) {
            idx::scan_file(path)
        } else if head.starts_with(array::MAGIC) {
            npy::scan_file(path)
        } else if is_hdf5(&head) {
            scan_hdf5(path)
        } else if is_gzip(&head) {
            scan_gzip(path, &head, metadata.len())
        } else if image_format(&head).is_some() {
            folder::scan_single(path, metadata.len())
        } else if is_pickle(&head) {
            cifar_python::scan_files(path, &[path.to_owned()], options.unreadable_images)
        } else if stl10::is_file(path, metadata.len()) {
            stl10::scan(path)
        } else if let Some(variant) = cifar::variant_of_file(path, metadata.len()) {
            cifar::scan_files(path, variant, &[path.to_owned()], options.unreadable_images)
        } else {
            let found = describe(&head).unwrap_or("of unknown format");
            Err(DataError::UnknownFormat { path: path.to_owned(), found: found.to_owned() })
        }?
    };
    if options.split != Split::Train {
        let note = format!("a single file: all its images are read, not only those of {}", options.split);
        scan.report.notes.push(note);
    }
    Ok(scan)
}

fn scan_folder(path: &Path, options: &OpenOptions, journal: Option<&mut Journal>) -> Result<Scan, DataError> {
    if let Some(scan) = scan_published(path, options)? {
        return Ok(scan);
    }
    let inner: Vec<PathBuf> =
        LAYOUTS.iter().map(|layout| path.join(layout)).filter(|inner| has_published(inner)).collect();
    match &inner[..] {
        [] => match shards::find(path, has_images)? {
            Some(Found { format, files, folders }) => {
                let mut scan = scan_shards(path, format, files, options)?;
                scan.listing.watched.extend(folders);
                Ok(scan)
            }
            None => folder::scan(path, options, journal),
        },
        [inner] => {
            let mut scan = scan_published(inner, options)?
                .ok_or_else(|| DataError::invalid_file(inner, "changed while it was read".to_owned()))?;
            scan.report.notes.push(format!("found in {}", inner.display()));
            Ok(scan)
        }
        several => {
            let names: Vec<String> = several.iter().map(|inner| inner.display().to_string()).collect();
            let problem = format!("contains several datasets: open one of {}", names.join(", "));
            Err(DataError::invalid_file(path, problem))
        }
    }
}

fn scan_hdf5(path: &Path) -> Result<Scan, DataError> {
    #[cfg(feature = "hdf5")]
    return hdf5::scan(path);
    #[cfg(not(feature = "hdf5"))]
    Err(DataError::UnknownFormat {
        path: path.to_owned(),
        found: "an HDF5 file, which a build with the feature hdf5 reads".to_owned(),
    })
}

fn scan_shards(
    path: &Path,
    format: ShardFormat,
    files: Vec<PathBuf>,
    options: &OpenOptions,
) -> Result<Scan, DataError> {
    match format {
        ShardFormat::Lmdb => lmdb::scan(path, files, options),
        #[cfg(feature = "parquet")]
        ShardFormat::Parquet => parquet::scan(path, files, options),
        #[cfg(not(feature = "parquet"))]
        ShardFormat::Parquet => Err(DataError::UnknownFormat {
            path: path.to_owned(),
            found: format!("{} Parquet files, which a build with the feature parquet reads", files.len()),
        }),
        ShardFormat::Tar => tar::scan(path, files, options),
    }
}

/// Whether a Parquet file has a column of images.
fn has_images(path: &Path) -> bool {
    #[cfg(feature = "parquet")]
    return parquet::has_images(path);
    #[cfg(not(feature = "parquet"))]
    return path.exists();
}

/// Scans a folder with the published files of a dataset; `None` for other folders.
fn scan_published(path: &Path, options: &OpenOptions) -> Result<Option<Scan>, DataError> {
    let unreadable_images = options.unreadable_images;
    if let Some((variant, files)) = cifar::files_in(path, options.split)? {
        return cifar::scan_files(path, variant, &files, unreadable_images).map(Some);
    }
    if let Some(files) = cifar_python::files_in(path, options.split)? {
        return cifar_python::scan_files(path, &files, unreadable_images).map(Some);
    }
    if let Some(images) = idx::images_in(path, options.split)? {
        return idx::scan_file(&images).map(Some);
    }
    if let Some(file) = svhn::file_in(path, options.split)? {
        return svhn::scan(&file).map(Some);
    }
    if let Some(file) = stl10::file_in(path, options.split)? {
        return stl10::scan(&file).map(Some);
    }
    if let Some(files) = imagenet_batches::files_in(path, options.split)? {
        return imagenet_batches::scan_files(path, &files).map(Some);
    }
    if celeba::files_in(path).is_some() {
        return celeba::scan(path, options).map(Some);
    }
    Ok(None)
}

/// Whether a folder has published files of any split.
fn has_published(path: &Path) -> bool {
    // Only a missing split is an error here: the files of other splits are there.
    path.is_dir()
        && (idx::has_images(path)
            || !matches!(cifar::files_in(path, Split::Train), Ok(None))
            || !matches!(cifar_python::files_in(path, Split::Train), Ok(None))
            || !matches!(stl10::file_in(path, Split::Train), Ok(None)))
}

fn scan_gzip(path: &Path, head: &[u8], length: u64) -> Result<Scan, DataError> {
    let inner = gunzip_head(head, HEAD_BYTES);
    if idx::is_idx(&inner) {
        return idx::scan_file(path);
    }
    if image_format(&inner).is_some() {
        return folder::scan_single(path, length);
    }
    let found = if is_tar(&inner) || is_named_tar(path) {
        "a compressed tar archive (unpack it first, with tar xf FILE, and open the folder)".to_owned()
    } else {
        let content = describe(&inner).filter(|_| !inner.is_empty()).unwrap_or("unknown content");
        format!("gzip data that contains no images but {content}")
    };
    Err(DataError::UnknownFormat { path: path.to_owned(), found })
}

/// Whether the name is that of a compressed tar archive: a first block can be too long for the detection.
fn is_named_tar(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    name.ends_with(".tgz") || name.ends_with(".tar.gz")
}
