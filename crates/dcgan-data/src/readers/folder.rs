//! Reader for a folder of images, scanned recursively in sorted order, or a single image.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::bytes::{gunzip_head, head, read_bounded};
use crate::encoded::{EncodedImages, Storage};
use crate::error::DataError;
use crate::kind::{HEAD_BYTES, NOT_AN_IMAGE, describe, image_format, is_gzip};
use crate::options::{OpenOptions, UnreadableImages};
use crate::readers::labels::{LABEL_FILE, MAX_LABEL_FILE_BYTES, labels_of};
use crate::readers::splits;
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// File extensions of images. The format is still detected from the content.
const IMAGE_EXTENSIONS: [&str; 15] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
    "pam",
];

/// Whether a name has the extension of an image.
pub(crate) fn has_image_extension(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.as_str()))
}

/// Why a file that starts with `head` is not read; `None` if it is an image, possibly compressed with gzip.
pub(crate) fn not_an_image(head: &[u8]) -> Option<&'static str> {
    if image_format(head).is_some() {
        return None;
    }
    if is_gzip(head) {
        let inner = gunzip_head(head, HEAD_BYTES);
        return if image_format(&inner).is_some() { None } else { Some(GZIP) };
    }
    Some(describe(head).unwrap_or(NOT_AN_IMAGE))
}

const GZIP: &str = "gzip data that contains no image (unpack it first, with tar xf FILE or gunzip FILE)";

/// Scans the folder `root`. Images are sorted by path.
pub(crate) fn scan(root: &Path, options: &OpenOptions) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(root, Format::ImageFolder);
    let mut found = walk(root, options.unreadable_images, &mut report)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let all_names: Vec<&str> = found.iter().map(|image| image.name.as_str()).collect();
    let chosen = splits::choose(root, &all_names, options.split, &mut report)?;
    if let Some(chosen) = &chosen {
        let mut keep = chosen.keep.iter();
        found.retain(|_| keep.next() == Some(&true));
    }
    let mut digest = Digest::default();
    for image in &found {
        digest.field(&image.name).number(image.bytes);
    }
    let label_path = root.join(LABEL_FILE);
    let label_file =
        if label_path.is_file() { Some(read_bounded(&label_path, MAX_LABEL_FILE_BYTES)?) } else { None };
    digest.field(label_file.as_deref().unwrap_or_default());
    let (names, paths): (Vec<_>, Vec<_>) = found.into_iter().map(|image| (image.name, image.path)).unzip();
    let (labels, class_names) = labels_of(root, &names, label_file.as_deref(), chosen.as_ref(), &mut report)?;
    Ok(Scan {
        source: Source::Encoded(EncodedImages {
            root: root.to_owned(),
            names,
            storage: Storage::Folder(paths),
        }),
        labels,
        class_names,
        invalid: Vec::new(),
        report,
        identity: digest.hex(),
        fingerprint: None,
    })
}

/// A dataset of the single image at `path`.
pub(crate) fn scan_single(path: &Path, bytes: u64) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(path, Format::Image);
    report.scanned_files = 1;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let identity = Digest::default().field(&name).number(bytes).hex();
    let storage = Storage::Folder(vec![path.to_owned()]);
    Ok(Scan {
        source: Source::Encoded(EncodedImages { root: path.to_owned(), names: vec![name], storage }),
        labels: None,
        class_names: None,
        invalid: Vec::new(),
        report,
        identity,
        fingerprint: None,
    })
}

/// An image file.
struct ImageFile {
    /// Path below the root, with `/`.
    name: String,
    path: PathBuf,
    bytes: u64,
}

/// All images below `root`, unsorted. Each folder is scanned once, so cycles of symbolic links end.
fn walk(
    root: &Path,
    unreadable_images: UnreadableImages,
    report: &mut ScanReport,
) -> Result<Vec<ImageFile>, DataError> {
    let (mut found, mut entered) = (Vec::new(), HashSet::new());
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let real = folder.canonicalize().map_err(DataError::io(&folder))?;
        if !entered.insert(real) {
            report.skip("a folder that was already scanned (symbolic link)", prefix);
            continue;
        }
        let listed = std::fs::read_dir(&folder).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>()
        });
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(error) if unreadable_images == UnreadableImages::Skip && !prefix.is_empty() => {
                report.skip(format!("a folder that cannot be read ({error})"), prefix);
                continue;
            }
            Err(error) => return Err(DataError::io(&folder)(error)),
        };
        entries.sort();
        let mut inner = Vec::new();
        for entry in entries {
            let path = folder.join(&entry);
            let name = format!("{prefix}{}", entry.to_string_lossy());
            if entry.to_string_lossy().starts_with('.') {
                report.skip("a hidden file or folder", name);
                continue;
            }
            // Follows symbolic links; broken ones are skipped.
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => inner.push((path, format!("{name}/"))),
                Ok(metadata) if metadata.is_file() => {
                    report.scanned_files += 1;
                    if name == LABEL_FILE {
                        continue;
                    }
                    if has_image_extension(&name) {
                        found.push(ImageFile { name, path, bytes: metadata.len() });
                        continue;
                    }
                    match head(&path, HEAD_BYTES).map(|head| not_an_image(&head)) {
                        Ok(None) => found.push(ImageFile { name, path, bytes: metadata.len() }),
                        Ok(Some(what)) => report.skip(what, name),
                        Err(_) => report.skip("a file that cannot be read", name),
                    }
                }
                Ok(_) => report.skip("neither a file nor a folder", name),
                Err(_) => report.skip("a broken symbolic link, or no permission", name),
            }
        }
        // Reversed, because the stack pops the last folder first.
        folders.extend(inner.into_iter().rev());
    }
    Ok(found)
}
