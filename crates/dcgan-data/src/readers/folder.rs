//! A folder of images, scanned recursively in sorted order, or a single image.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::bytes::{head, read_bounded};
use crate::decode::{SIGNATURE_BYTES, image_format};
use crate::error::DataError;
use crate::files::{Files, Store};
use crate::options::OnBad;
use crate::readers::labels::{LABEL_FILE, MAX_LABEL_FILE_BYTES, labels_of};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// Endings by which a file is taken for an image; its format is still told by its content.
const IMAGE_ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "jpe", "webp"];

/// Whether a name ends like an image's.
pub(crate) fn ends_like_image(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| IMAGE_ENDINGS.contains(&ending.as_str()))
}

/// Lists the images below `root`.
pub(crate) fn scan(root: &Path, on_bad: OnBad) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(root, Format::ImageFolder);
    let mut found = walk(root, on_bad, &mut report)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let mut digest = Digest::default();
    for image in &found {
        digest.field(&image.name).number(image.bytes);
    }
    let label_path = root.join(LABEL_FILE);
    let label_file =
        if label_path.is_file() { Some(read_bounded(&label_path, MAX_LABEL_FILE_BYTES)?) } else { None };
    digest.field(label_file.as_deref().unwrap_or_default());
    let (names, paths): (Vec<_>, Vec<_>) = found.into_iter().map(|image| (image.name, image.path)).unzip();
    let (labels, class_names) = labels_of(root, &names, label_file.as_deref(), &mut report)?;
    Ok(Scan {
        source: Source::Files(Files { root: root.to_owned(), names, store: Store::Folder(paths) }),
        labels,
        class_names,
        bad: Vec::new(),
        report,
        identity: digest.hex(),
        fingerprint: None,
    })
}

/// One image as a dataset of one.
pub(crate) fn scan_single(path: &Path, bytes: u64) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(path, Format::Image);
    report.scanned_files = 1;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let identity = Digest::default().field(&name).number(bytes).hex();
    let store = Store::Folder(vec![path.to_owned()]);
    Ok(Scan {
        source: Source::Files(Files { root: path.to_owned(), names: vec![name], store }),
        labels: None,
        class_names: None,
        bad: Vec::new(),
        report,
        identity,
        fingerprint: None,
    })
}

/// An image file.
struct Found {
    /// Path below the root, with `/`.
    name: String,
    path: PathBuf,
    bytes: u64,
}

/// All images below `root`. Folders are entered once, so that loops of symbolic links end.
fn walk(root: &Path, on_bad: OnBad, report: &mut ScanReport) -> Result<Vec<Found>, DataError> {
    let (mut found, mut entered) = (Vec::new(), HashSet::new());
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let real = folder.canonicalize().map_err(DataError::io(&folder))?;
        if !entered.insert(real) {
            report.skip("a folder that was scanned already (symbolic link)", prefix);
            continue;
        }
        let listed = std::fs::read_dir(&folder).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>()
        });
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(error) if on_bad == OnBad::Skip && !prefix.is_empty() => {
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
            // Follows symbolic links; one that leads nowhere is left out.
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => inner.push((path, format!("{name}/"))),
                Ok(metadata) if metadata.is_file() => {
                    report.scanned_files += 1;
                    if name == LABEL_FILE {
                        continue;
                    }
                    if ends_like_image(&name) || looks_like_image(&path) {
                        found.push(Found { name, path, bytes: metadata.len() });
                    } else {
                        report.skip("not a PNG, JPEG or WebP image", name);
                    }
                }
                Ok(_) => report.skip("neither a file nor a folder", name),
                Err(_) => report.skip("a symbolic link that leads nowhere, or no permission", name),
            }
        }
        // Last first, since the stack gives the last pushed folder first.
        folders.extend(inner.into_iter().rev());
    }
    Ok(found)
}

/// Whether a file without an image's ending has an image's content.
fn looks_like_image(path: &Path) -> bool {
    head(path, SIGNATURE_BYTES).is_ok_and(|head| image_format(&head).is_some())
}
