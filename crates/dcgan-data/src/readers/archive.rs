//! Reader for a zip of images.

use std::path::Path;

use crate::encoded::{EncodedImages, Storage, open_zip, read_entry};
use crate::error::DataError;
use crate::readers::folder::has_image_extension;
use crate::readers::labels::{LABEL_FILE, MAX_LABEL_FILE_BYTES, labels_of};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// Scans the zip at `path`. Images are sorted by name.
pub(crate) fn scan(path: &Path) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(path, Format::ImageZip);
    let archive = open_zip(path)?;
    let (mut found, mut label_entry) = (Vec::new(), None);
    for index in 0..archive.len() {
        let entry = archive
            .by_index_data(index)
            .map_err(|error| DataError::invalid_file(path, format!("entry {index} is damaged: {error}")))?;
        if entry.is_dir() {
            continue;
        }
        report.scanned_files += 1;
        let Ok(name) = entry.name() else {
            report.skip("an unreadable name", String::from_utf8_lossy(entry.name_raw()));
            continue;
        };
        let name = name.replace('\\', "/");
        // Nothing is extracted to these paths, but a zip that contains them is malicious.
        if !is_inside(&name) {
            report.skip("a name that points outside the zip", name);
        } else if name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX") {
            report.skip("a hidden file or folder", name);
        } else if entry.encrypted() {
            report.skip("encrypted", name);
        } else if name == LABEL_FILE {
            label_entry = Some(index);
        } else if has_image_extension(&name) {
            found.push((name, index, entry.size(), entry.crc32()));
        } else {
            report.skip("not a PNG, JPEG or WebP image", name);
        }
    }
    found.sort();
    let mut digest = Digest::default();
    for (name, _, bytes, crc) in &found {
        digest.field(name).number(*bytes).number(u64::from(*crc));
    }
    let label_file = match label_entry {
        Some(entry) => Some(
            read_entry(&archive, entry, MAX_LABEL_FILE_BYTES)
                .map_err(|problem| DataError::invalid_record(path, LABEL_FILE, problem))?,
        ),
        None => None,
    };
    digest.field(label_file.as_deref().unwrap_or_default());
    let (names, entries): (Vec<_>, Vec<_>) = found.into_iter().map(|(name, index, ..)| (name, index)).unzip();
    let (labels, class_names) = labels_of(path, &names, label_file.as_deref(), &mut report)?;
    Ok(Scan {
        source: Source::Encoded(EncodedImages {
            root: path.to_owned(),
            names,
            storage: Storage::Zip { archive, entries },
        }),
        labels,
        class_names,
        invalid: Vec::new(),
        report,
        identity: digest.hex(),
        fingerprint: None,
    })
}

/// Whether `name` is a relative path without `..`.
fn is_inside(name: &str) -> bool {
    !name.starts_with('/')
        && !name.contains('\0')
        && name.get(1..2) != Some(":")
        && name.split('/').all(|part| part != "..")
}
