//! Reader for LMDB databases whose values are image files: LSUN's (Yu et al., 2015), and others.
//!
//! Keys and the places of values are read, values are not, except a few: a database of three million images opens in
//! seconds. Several databases in a folder are classes.

use std::path::{Path, PathBuf};

use crate::bytes::Bytes;
use crate::encoded::{ByteRange, EncodedImages, Shard, Storage};
use crate::error::DataError;
use crate::kind::image_format;
use crate::names::Names;
use crate::options::OpenOptions;
use crate::readers::lmdb_pages::{Database, Value};
use crate::readers::shards;
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// Shorter values are no images, but numbers and texts beside them, such as the count under `length`.
const MIN_IMAGE_BYTES: usize = 16;

/// Values of which the first bytes are looked at. If all of them are images, the others are taken for images as well.
const LOOKED_AT: usize = 64;

const NOT_AN_IMAGE: &str = "a value that is not an image";

/// Scans the databases `files` below `root`, or the single file `root`.
pub(crate) fn scan(root: &Path, files: Vec<PathBuf>, options: &OpenOptions) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(root, Format::Lmdb);
    let files = shards::of_split(root, files, options.split, &mut report)?;
    report.scanned_files = files.len();
    let is_one = files.len() == 1;
    let mut images = Images::default();
    let (mut labels, mut class_names) = (Vec::new(), Vec::new());
    for file in files {
        let before = images.ranges.len();
        let name = shards::below(root, &file);
        let name = name.trim_end_matches(shards::LMDB_FILE);
        let class = shards::class_name(name);
        images.add(file, if is_one { "" } else { name }, &mut report)?;
        let number = class_names.iter().position(|name| *name == class).unwrap_or(class_names.len());
        if number == class_names.len() {
            class_names.push(class);
        }
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        labels.extend(std::iter::repeat_n(number, images.ranges.len() - before));
    }
    let has_classes = class_names.len() > 1;
    if has_classes {
        report.notes.push(format!("labels from {} databases", class_names.len()));
    }
    let Images { names, shards, ranges, digest } = images;
    Ok(Scan {
        labels: has_classes.then_some(labels),
        class_names: has_classes.then_some(class_names),
        ..Scan::new(
            Source::Encoded(EncodedImages {
                root: root.to_owned(),
                names,
                storage: Storage::Ranges { shards, ranges },
            }),
            report,
            digest.hex(),
        )
    })
}

#[derive(Default)]
struct Images {
    names: Names,
    shards: Vec<Shard>,
    ranges: Vec<ByteRange>,
    digest: Digest,
}

impl Images {
    /// Adds the values of the database `file`; names are keys after `prefix`.
    fn add(&mut self, file: PathBuf, prefix: &str, report: &mut ScanReport) -> Result<(), DataError> {
        let bytes = Bytes::map(&file)?;
        let invalid = |problem: String| DataError::invalid_file(&file, problem);
        let shard = u32::try_from(self.shards.len()).map_err(|error| invalid(error.to_string()))?;
        let database = Database::open(&bytes).map_err(invalid)?;
        let is_image = |range: &std::ops::Range<usize>| {
            range.len() >= MIN_IMAGE_BYTES
                && bytes.get(range.clone()).is_some_and(|value| image_format(value).is_some())
        };
        let all_are_images = database.are_all(LOOKED_AT, &is_image).map_err(invalid)?;
        database
            .for_each(&mut |key, value| {
                let name = format!("{prefix}{}", text(key));
                let range = match value {
                    Value::Bytes(range) if range.len() < MIN_IMAGE_BYTES => {
                        report.skip(NOT_AN_IMAGE, name);
                        return Ok(());
                    }
                    Value::Bytes(range) => range,
                    Value::Database => {
                        report.skip("a named database", name);
                        return Ok(());
                    }
                    Value::Several => {
                        report.skip("a key with several values", name);
                        return Ok(());
                    }
                };
                if !all_are_images && !is_image(&range) {
                    report.skip(NOT_AN_IMAGE, name);
                    return Ok(());
                }
                let length = u32::try_from(range.len()).map_err(|error| error.to_string())?;
                self.digest.field(&name).number(u64::from(length));
                self.names.push(&name);
                self.ranges.push(ByteRange { offset: range.start as u64, length, shard });
                Ok(())
            })
            .map_err(invalid)?;
        self.shards.push(Shard { path: file, bytes });
        Ok(())
    }
}

impl Database<'_> {
    /// Whether `is_image` holds for about `count` values of a byte or more, spread over the database.
    fn are_all(
        &self,
        count: usize,
        is_image: &dyn Fn(&std::ops::Range<usize>) -> bool,
    ) -> Result<bool, String> {
        let step = usize::try_from(self.entries).unwrap_or(usize::MAX).div_ceil(count).max(1);
        let (mut number, mut all) = (0_usize, true);
        self.for_each(&mut |_, value| {
            if let Value::Bytes(range) = value
                && range.len() >= MIN_IMAGE_BYTES
            {
                all &= !number.is_multiple_of(step) || is_image(&range);
                number += 1;
            }
            Ok(())
        })?;
        Ok(all)
    }
}

/// A key as text: as it is if it is printable UTF-8, otherwise in hexadecimal.
fn text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
