//! Unreadable images: how they are found, and how a dataset continues without them.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::{Dataset, DecodeProgress};
use crate::error::DataError;
use crate::options::SkippedImage;
use crate::source::Source;

/// Images that are decoded to estimate the time of all.
const SAMPLE: usize = 32;
/// Limit of the time of that sample.
const SAMPLE_TIME: Duration = Duration::from_millis(500);
/// Images that an error message names.
const EXAMPLES: usize = 5;

impl Dataset {
    /// Decodes every image, in parallel, and returns the unreadable ones. Pixels are cached where memory allows.
    /// Raw formats have none.
    ///
    /// # Errors
    ///
    /// [`DataError::Cancelled`] when `progress` returns false.
    pub fn unreadable(&self, progress: DecodeProgress<'_>) -> Result<Vec<SkippedImage>, DataError> {
        self.unreadable_among(0..self.len(), progress)
    }

    /// The same for the images `range`: several processes share the work.
    ///
    /// # Errors
    ///
    /// An index out of range; [`DataError::Cancelled`].
    pub fn unreadable_among(
        &self,
        range: Range<usize>,
        progress: DecodeProgress<'_>,
    ) -> Result<Vec<SkippedImage>, DataError> {
        if !self.is_encoded() {
            return Ok(Vec::new());
        }
        let records: Vec<usize> = range.map(|index| self.record(index)).collect::<Result<_, _>>()?;
        let found = self.undecodable(&records, progress)?;
        Ok(found.into_iter().map(|(record, problem)| self.skipped_image(record, problem)).collect())
    }

    /// The error of a dataset with unreadable images, which names the first of them. `limit` is how many are allowed.
    pub fn unreadable_error(&self, unreadable: &[SkippedImage], limit: Option<u64>) -> DataError {
        let names =
            unreadable.iter().take(EXAMPLES).map(|image| format!("{} ({})", image.name, image.problem));
        let mut examples = names.collect::<Vec<_>>().join(", ");
        if unreadable.len() > EXAMPLES {
            examples.push_str(", ...");
        }
        let (path, count) = (self.report.path.clone(), unreadable.len());
        DataError::Unreadable { path, images: self.source.len(), count, limit, examples }
    }

    /// Leaves out images in the middle of training: the order of the other images stays. See [`Dataset::excluded`].
    ///
    /// # Errors
    ///
    /// No image is left.
    pub fn exclude(&mut self, images: Vec<SkippedImage>) -> Result<(), DataError> {
        let records: HashSet<usize> = images.iter().map(|image| image.record).collect();
        let order_len = self.order_len();
        let kept: Vec<bool> = (0..self.len())
            .map(|index| Ok(!records.contains(&self.record(index)?)))
            .collect::<Result<_, DataError>>()?;
        let count = kept.iter().filter(|kept| **kept).count();
        if count == 0 {
            let path = self.report.path.clone();
            return Err(DataError::NoImages { path, scanned: self.report.scanned() });
        }
        let mut next = 0;
        let mut new_index: Vec<Option<u32>> = Vec::with_capacity(kept.len());
        for kept in &kept {
            new_index.push(kept.then_some(next));
            next += u32::from(*kept);
        }
        let order = match self.order.take() {
            Some(order) => order
                .into_iter()
                .map(|index| index.and_then(|index| new_index.get(usize::try_from(index).ok()?).copied()?))
                .collect(),
            None => new_index,
        };
        debug_assert_eq!(order.len(), order_len, "the order covers all images of the opening");
        let all = self.selection.take().unwrap_or_else(|| (0..self.source.len()).collect());
        let keep = |i: &usize| kept.get(*i).copied().unwrap_or(false);
        self.selection =
            Some(all.into_iter().enumerate().filter(|(i, _)| keep(i)).map(|(_, record)| record).collect());
        self.labels = self.labels.take().map(|labels| {
            labels.into_iter().enumerate().filter(|(i, _)| keep(i)).map(|(_, label)| label).collect()
        });
        self.order = Some(order);
        self.report.images = count;
        for image in &images {
            self.report.skip(image.problem.clone(), image.name.clone());
        }
        self.excluded.extend(images);
        Ok(())
    }

    /// The images that were skipped when the dataset was opened. Shuffles do not contain them.
    pub fn skipped(&self) -> &[SkippedImage] {
        &self.skipped
    }

    /// The images that [`Dataset::exclude`] left out. Shuffles are those of the dataset with these images, without
    /// them: in the middle of an epoch, the images that come next stay the same.
    pub fn excluded(&self) -> &[SkippedImage] {
        &self.excluded
    }

    /// The images whose name and size [`Dataset::info`] cannot return, found in parallel. Pixels are not decoded.
    pub fn unreadable_headers(&self) -> Vec<SkippedImage> {
        let attempt = |index: usize| {
            let record = self.record(index).ok()?;
            let problem = match self.source.info(record).err()? {
                DataError::InvalidRecord { problem, .. } => problem,
                other => other.to_string(),
            };
            Some(self.skipped_image(record, problem))
        };
        (0..self.len()).into_par_iter().filter_map(attempt).collect()
    }

    /// Whether the images are files of an image format, which can be damaged one by one.
    pub fn is_encoded(&self) -> bool {
        matches!(self.source, Source::Encoded(_))
    }

    /// Name of every image file, also of skipped ones, with a number that changes with its content. None for raw
    /// formats and for more than `limit` images.
    pub fn listing(&self, limit: usize) -> Option<Vec<(String, u64)>> {
        let Source::Encoded(encoded) = &self.source else { return None };
        let list =
            || (0..encoded.len()).map(|i| (encoded.name(i).into_owned(), encoded.content(i))).collect();
        (encoded.len() <= limit).then(list)
    }

    /// Whether decoded images are kept, in memory or on disk.
    pub fn is_cached(&self) -> bool {
        self.memory.is_some() || self.disk.as_ref().is_some_and(|disk| !disk.is_full())
    }

    /// The time that decoding every image takes with all threads of the pool, estimated from some of them.
    pub fn decode_time(&self) -> Duration {
        let (started, mut decoded) = (Instant::now(), 0_u32);
        let count = self.len().min(SAMPLE);
        for i in 0..count {
            if let Ok(record) = self.record(i * self.len() / count)
                && !self.is_decoded(record)
                && let Ok(pixels) = self.transformed(record)
            {
                self.cache(record, pixels);
            }
            decoded += 1;
            if started.elapsed() > SAMPLE_TIME {
                break;
            }
        }
        let all = started.elapsed().as_secs_f64() / f64::from(decoded.max(1)) * self.len() as f64;
        Duration::from_secs_f64(all / rayon::current_num_threads() as f64)
    }

    /// The number of images that epochs shuffle, with the excluded ones.
    pub(crate) fn order_len(&self) -> usize {
        self.order.as_ref().map_or(self.len(), Vec::len)
    }

    /// A permutation of `order_len` numbers as indices of images, without the excluded ones.
    pub(crate) fn indices(&self, permutation: Vec<u32>) -> Vec<u32> {
        let Some(order) = &self.order else { return permutation };
        let index = |number: u32| *order.get(usize::try_from(number).ok()?)?;
        permutation.into_iter().filter_map(index).collect()
    }

    pub(super) fn skipped_image(&self, record: usize, problem: String) -> SkippedImage {
        SkippedImage { record, name: self.source.name(record), problem }
    }

    /// Decodes `records` and returns those that fail, with the problem, in their order.
    pub(super) fn undecodable(
        &self,
        records: &[usize],
        progress: DecodeProgress<'_>,
    ) -> Result<Vec<(usize, String)>, DataError> {
        let decoded = AtomicUsize::new(0);
        let attempt = |&record: &usize| {
            if !progress(decoded.fetch_add(1, Ordering::Relaxed), records.len()) {
                return Some(Err(DataError::Cancelled));
            }
            if self.is_decoded(record) {
                return None;
            }
            match self.transformed(record) {
                Ok(pixels) => {
                    self.cache(record, pixels);
                    None
                }
                Err(DataError::InvalidRecord { problem, .. }) => Some(Ok((record, problem))),
                Err(other) => Some(Ok((record, other.to_string()))),
            }
        };
        records.par_iter().filter_map(attempt).collect()
    }
}
