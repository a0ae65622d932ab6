//! Reader for a zip of images.

use std::path::Path;

use crate::encoded::{Archive, EncodedImages, Storage, ZipEntry, open_zip, read_entry, read_entry_head};
use crate::error::DataError;
use crate::kind::HEAD_BYTES;
use crate::names::Names;
use crate::options::OpenOptions;
use crate::readers::folder::{has_image_extension, not_an_image};
use crate::readers::labels::{LABEL_FILE, MAX_LABEL_FILE_BYTES, labels_of};
use crate::readers::{npy, shards, splits};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// Scans the zip at `path`. Images are sorted by name.
pub(crate) fn scan(path: &Path, options: &OpenOptions) -> Result<Scan, DataError> {
    let archive = open_zip(path)?;
    if let Some(scan) = npy::scan_zip(path, &archive, options)? {
        return Ok(scan);
    }
    scan_images(path, archive, options)
}

fn scan_images(path: &Path, mut archive: Archive, options: &OpenOptions) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(path, Format::ImageZip);
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
        if !shards::is_inside(&name) {
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
            match read_entry_head(&archive, index, HEAD_BYTES).map(|head| not_an_image(&head)) {
                Some(None) => found.push((name, index, entry.size(), entry.crc32())),
                Some(Some(what)) => report.skip(what, name),
                None => report.skip("an entry that cannot be read", name),
            }
        }
    }
    found.sort();
    let all_names: Names = found.iter().map(|(name, ..)| name).collect();
    let chosen = splits::choose(path, &all_names, options.split, &mut report)?;
    if let Some(chosen) = &chosen {
        let mut keep = chosen.keep.iter();
        found.retain(|_| keep.next() == Some(&true));
    }
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
    let names: Names = found.iter().map(|(name, ..)| name).collect();
    let entry = |index: usize| {
        let damaged = |problem| DataError::invalid_file(path, format!("entry {index} is damaged: {problem}"));
        ZipEntry::of(&mut archive, index).map_err(damaged)
    };
    let entries = found.iter().map(|(_, index, ..)| *index).map(entry).collect::<Result<_, _>>()?;
    let (labels, class_names) = labels_of(path, &names, label_file.as_deref(), chosen.as_ref(), &mut report)?;
    Ok(Scan {
        labels,
        class_names,
        ..Scan::new(
            Source::Encoded(EncodedImages {
                root: path.to_owned(),
                names,
                storage: Storage::Zip { bytes: archive.into_inner().into_inner(), entries },
            }),
            report,
            digest.hex(),
        )
    })
}
