//! Reader for CelebA as published (Liu et al., 2015): the aligned images as a zip or a folder, and
//! list_eval_partition.txt (or .csv) with the split of each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::bytes::read_bounded;
use crate::error::DataError;
use crate::options::OpenOptions;
use crate::readers::{archive, folder};
use crate::report::Format;
use crate::source::{Scan, Source};
use crate::split::Split;
use dcgan_base::digest::Digest;

/// Names of the list of splits.
const PARTITIONS: [&str; 2] = ["list_eval_partition.txt", "list_eval_partition.csv"];

/// Names of the images: the last is that of a copy on Kaggle.
const IMAGES: [&str; 3] = ["img_align_celeba.zip", "img_align_celeba", "img_align_celeba_png"];

/// Maximum bytes of the list, of which the published one has 2.8 MB.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// The list of splits and the images in `folder`, if both are there.
pub(crate) fn files_in(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let find = |names: &[&str]| names.iter().map(|name| folder.join(name)).find(|path| path.exists());
    Some((find(&PARTITIONS)?, find(&IMAGES)?))
}

/// Reads the images of a split.
pub(crate) fn scan(path: &Path, options: &OpenOptions) -> Result<Scan, DataError> {
    let (partition, images) = files_in(path)
        .ok_or_else(|| DataError::invalid_file(path, "changed while it was read".to_owned()))?;
    // The folder of the images has no splits of its own.
    let inner = OpenOptions { split: Split::Train, ..options.clone() };
    let mut scan =
        if images.is_dir() { folder::scan(&images, &inner, None)? } else { archive::scan(&images, &inner)? };
    let list = read_bounded(&partition, MAX_LIST_BYTES)?;
    let splits = splits_of(&list).map_err(|problem| DataError::invalid_file(&partition, problem))?;
    let Source::Encoded(encoded) = &mut scan.source else {
        return Err(DataError::invalid_file(&images, "is not an archive of images".to_owned()));
    };
    // The list names .jpg files, also for the images as PNG files.
    let split_of = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name);
        let as_jpeg = || splits.get(&*format!("{}.jpg", name.rsplit_once('.')?.0));
        splits.get(name).or_else(as_jpeg).copied()
    };
    let all = encoded.len();
    let unlisted = encoded.names.iter().filter(|name| split_of(name).is_none()).count();
    let keep: Vec<usize> = (0..all)
        .filter(|i| encoded.names.get(*i).and_then(split_of).is_some_and(|split| split == options.split))
        .collect();
    encoded.select(&keep);
    let stats = &scan.listing.stats;
    scan.listing.stats = keep.iter().filter_map(|i| stats.get(*i).copied()).collect();
    scan.listing.watched.extend([path.to_owned(), partition.clone()]);
    scan.report.path = path.to_owned();
    scan.report.format = Format::CelebA;
    scan.report.scanned_files += 1;
    let open_all = images.file_name().unwrap_or_default().to_string_lossy();
    let (count, split) = (keep.len(), options.split);
    scan.report.notes =
        vec![format!("split {split}: {count} of {all} images (open {open_all} in it to read all)")];
    if unlisted > 0 {
        scan.report.notes.push(format!("{unlisted} images are not in the list of splits and are not read"));
    }
    (scan.labels, scan.class_names) = (None, None);
    scan.identity = Digest::default().field(&scan.identity).field(&list).field(split.to_string()).hex();
    Ok(scan)
}

/// The split of each image in lines `000001.jpg 0` or `000001.jpg,0`.
fn splits_of(list: &[u8]) -> Result<HashMap<&str, Split>, String> {
    let text = std::str::from_utf8(list).map_err(|_| "is not text".to_owned())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let mut splits = HashMap::new();
    for (number, line) in lines {
        let mut words = line.split([' ', ',', '\t']).map(str::trim).filter(|word| !word.is_empty());
        let (name, split) = (words.next(), words.next());
        let split = match split {
            Some("0") => Split::Train,
            Some("1") => Split::Val,
            Some("2") => Split::Test,
            _ if number == 0 => continue, // the names of the columns
            _ => return Err(format!("line {}: expected the name of an image and 0, 1 or 2", number + 1)),
        };
        splits.insert(name.unwrap_or_default(), split);
    }
    Ok(splits)
}
