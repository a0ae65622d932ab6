//! The dataset of a run, `data.json` and `images.json.gz` in its folder: the fingerprint, the images that are left out,
//! and the changes of the dataset that were accepted.
//!
//! A resumed run leaves out the images of the record and decides nothing anew, so that its minibatches depend on the
//! dataset and the record only.

use crate::checkpoint::State;
use crate::config::Plan;
use crate::error::TrainError;
use crate::recorder::path_of;
use crate::run_folder::{RunFolder, RunFolderError, io_error};
use crate::skip_bad::SkipBad;
use dcgan_base::files::{self, AtomicFile};
use dcgan_data::{Dataset, SkippedImage};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::PathBuf;

/// Largest dataset whose images are listed. The list serves error messages only.
const MAX_LISTED: usize = 200_000;
/// Names of images in a message.
const EXAMPLES: usize = 3;

/// Names of images with a number that changes with their content.
type Listing = BTreeMap<String, u64>;

/// `data.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Fingerprint of the dataset, without the images excluded later.
    pub fingerprint: String,
    /// Images of an epoch; unknown for runs of earlier versions.
    pub images: Option<usize>,
    /// The option `skip_bad` when images were last decoded to find unreadable ones.
    #[serde(default)]
    pub skip_bad: SkipBad,
    /// Images skipped when the run started, or when a change was accepted.
    #[serde(default)]
    pub skipped: Vec<SkippedImage>,
    /// Images left out later, which are still in the fingerprint.
    #[serde(default)]
    pub excluded: Vec<ExcludedImage>,
    /// Accepted changes of the dataset.
    #[serde(default)]
    pub changes: Vec<DataChange>,
}

/// An image that was left out in the middle of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExcludedImage {
    /// Steps taken by then.
    pub step: u64,
    /// The image.
    #[serde(flatten)]
    pub image: SkippedImage,
}

/// An accepted change of the dataset. From its step on, the run is not the one on unchanged data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataChange {
    /// Steps taken by then.
    pub step: u64,
    /// Fingerprint before.
    pub before: String,
    /// Images of an epoch before.
    pub images_before: Option<usize>,
    /// What changed.
    pub description: String,
}

impl DataRecord {
    /// A record of what is known of a run of an earlier version that skipped no image.
    pub(crate) fn of_earlier_version(fingerprint: &str) -> Self {
        Self {
            fingerprint: fingerprint.to_owned(),
            images: None,
            skip_bad: SkipBad::default(),
            skipped: Vec::new(),
            excluded: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// The record of a run that has taken `step` steps and continues with `data` by `plan`. `before` is its record so
    /// far.
    pub(crate) fn next(
        before: Option<&Self>,
        plan: &Plan,
        (step, data, description): (u64, &Dataset, &str),
    ) -> Self {
        let is_same = before.is_some_and(|before| before.fingerprint == data.fingerprint());
        let step_of = |image: &SkippedImage| {
            let known = before.filter(|_| is_same)?.excluded.iter().find(|known| known.image == *image)?;
            Some(known.step)
        };
        let exclude = |image: &SkippedImage| ExcludedImage {
            step: step_of(image).unwrap_or(step),
            image: image.clone(),
        };
        let mut changes = before.map(|before| before.changes.clone()).unwrap_or_default();
        if let Some(before) = before.filter(|_| !is_same) {
            changes.push(DataChange {
                step,
                before: before.fingerprint.clone(),
                images_before: before.images,
                description: description.to_owned(),
            });
        }
        Self {
            fingerprint: data.fingerprint().to_owned(),
            images: Some(data.len()),
            skip_bad: plan.run.skip_bad,
            skipped: data.skipped().to_vec(),
            excluded: data.excluded().iter().map(exclude).collect(),
            changes,
        }
    }

    /// The images excluded later.
    pub(crate) fn excluded_images(&self) -> Vec<SkippedImage> {
        self.excluded.iter().map(|excluded| excluded.image.clone()).collect()
    }
}

impl RunFolder {
    /// `data.json`
    pub fn data_record_path(&self) -> PathBuf {
        self.path().join("data.json")
    }

    /// `images.json.gz`
    pub(crate) fn listing_path(&self) -> PathBuf {
        self.path().join("images.json.gz")
    }

    /// Reads `data.json`, if there is one.
    ///
    /// # Errors
    /// Those of the file system; a damaged file.
    pub fn data_record(&self) -> Result<Option<DataRecord>, RunFolderError> {
        let path = self.data_record_path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path)(error)),
        };
        let record = serde_json::from_str(&text).map_err(|error| RunFolderError::Plan {
            path: path.clone(),
            problem: format!("{error}; remove the file to decide anew which images are skipped"),
        })?;
        Ok(Some(record))
    }

    /// The record of a run whose newest checkpoint is that of `step`. None for a run without a checkpoint, and for one
    /// of an earlier version that skipped images by `plan`.
    ///
    /// # Errors
    /// Those of [`RunFolder::data_record`].
    pub fn data_record_before(&self, step: u64, plan: &Plan) -> Result<Option<DataRecord>, RunFolderError> {
        if step == 0 {
            return Ok(None);
        }
        let earlier = || {
            let state = State::read(&path_of(self, step)).ok().filter(|_| !plan.run.skip_bad.is_on());
            state.map(|state| DataRecord::of_earlier_version(&state.data))
        };
        Ok(self.data_record()?.or_else(earlier))
    }

    /// What distinguishes `data` from the images that the run has trained on up to `state`, if it is another dataset
    /// that was not accepted before.
    pub(crate) fn data_change(
        &self,
        state: &State,
        record: Option<&DataRecord>,
        data: &Dataset,
    ) -> Option<String> {
        let known = [Some(&state.data), record.map(|record| &record.fingerprint)];
        let is_known = known.into_iter().flatten().any(|known| known == data.fingerprint());
        (!is_known).then(|| self.data_difference(record, data))
    }

    /// Checks that a run whose newest checkpoint is that of `step` can continue with `data`; nothing is written.
    ///
    /// # Errors
    /// [`TrainError::OtherData`].
    pub fn check_data(
        &self,
        step: u64,
        record: Option<&DataRecord>,
        data: &Dataset,
    ) -> Result<(), TrainError> {
        // Damaged checkpoints are handled by the training loop.
        let Ok(state) = State::read(&path_of(self, step)) else { return Ok(()) };
        match self.data_change(&state, record, data) {
            Some(difference) => Err(TrainError::OtherData { difference }),
            None => Ok(()),
        }
    }

    /// Writes `data.json`, and the list of the images of `data`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write_data_record(
        &self,
        record: &DataRecord,
        data: &Dataset,
    ) -> Result<(), RunFolderError> {
        let path = self.listing_path();
        if let Some(listing) = listing(data) {
            let write = || {
                let mut file = GzEncoder::new(AtomicFile::create(&path)?, Compression::default());
                serde_json::to_writer(&mut file, &listing)?;
                file.finish()?.commit()
            };
            write().map_err(io_error(&path))?;
        }
        let path = self.data_record_path();
        let text = serde_json::to_string_pretty(record).map_err(io::Error::from).map_err(io_error(&path))?;
        files::write_atomic(&path, (text + "\n").as_bytes()).map_err(io_error(&path))
    }

    /// What distinguishes `data` from the dataset of the record, in words.
    fn data_difference(&self, before: Option<&DataRecord>, data: &Dataset) -> String {
        if let (Some(before), Some(now)) = (self.read_listing(), listing(data)) {
            return difference(&before, &now);
        }
        match before.and_then(|before| before.images) {
            Some(images) if images == data.len() => {
                format!("it has {images} images as before, with different content")
            }
            Some(images) => format!("it had {images} images, now it has {}", data.len()),
            None => "images were added, removed or changed".to_owned(),
        }
    }

    fn read_listing(&self) -> Option<Listing> {
        let file = BufReader::new(File::open(self.listing_path()).ok()?);
        serde_json::from_reader(BufReader::new(GzDecoder::new(file))).ok()
    }
}

/// The images of `data`, except of raw formats and of large datasets.
fn listing(data: &Dataset) -> Option<Listing> {
    data.listing(MAX_LISTED).map(|images| images.into_iter().collect())
}

fn difference(before: &Listing, now: &Listing) -> String {
    let missing = |from: &Listing, other: &Listing| -> Vec<String> {
        from.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
    };
    let is_changed = |(name, content): &(&String, &u64)| now.get(*name).is_some_and(|now| now != *content);
    let changed: Vec<String> = before.iter().filter(is_changed).map(|(name, _)| name.clone()).collect();
    let mut text = String::new();
    let parts = [("changed", changed), ("removed", missing(before, now)), ("added", missing(now, before))];
    for (what, names) in parts {
        if names.is_empty() {
            continue;
        }
        let separator = if text.is_empty() { "" } else { ", " };
        let more = if names.len() > EXAMPLES { ", ..." } else { "" };
        let examples: Vec<&str> = names.iter().take(EXAMPLES).map(String::as_str).collect();
        let _ = write!(text, "{separator}{} {what} ({}{more})", names.len(), examples.join(", "));
    }
    if text.is_empty() {
        "the same files, read with a different size or crop, or with different skipped images".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_images() {
        let listing = |images: &[(&str, u64)]| -> Listing {
            images.iter().map(|(name, content)| ((*name).to_owned(), *content)).collect()
        };
        let before = listing(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)]);
        for (now, expected) in [
            (&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 6)][..], "1 changed (e)"),
            (
                &[("a", 2), ("c", 3), ("d", 4), ("e", 5), ("x", 1)],
                "1 changed (a), 1 removed (b), 1 added (x)",
            ),
            (&[("a", 1)], "4 removed (b, c, d, ...)"),
        ] {
            assert_eq!(difference(&before, &listing(now)), expected);
        }
        assert!(difference(&before, &before).contains("the same files"));
    }
}
