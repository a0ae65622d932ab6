//! Unreadable images: how they are found.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::{Dataset, DecodeProgress};
use crate::error::DataError;
use crate::options::SkippedImage;
use crate::source::Source;

impl Dataset {
    /// Decodes every image, in parallel, and returns the unreadable ones. Pixels are cached where memory allows.
    /// Raw formats have none.
    ///
    /// # Errors
    ///
    /// [`DataError::Cancelled`] when `progress` returns false.
    pub fn unreadable(&self, progress: DecodeProgress<'_>) -> Result<Vec<SkippedImage>, DataError> {
        if !self.is_encoded() {
            return Ok(Vec::new());
        }
        let records: Vec<usize> = match &self.selection {
            Some(selection) => selection.clone(),
            None => (0..self.source.len()).collect(),
        };
        let found = self.undecodable(&records, progress)?;
        Ok(found.into_iter().map(|(record, problem)| self.skipped_image(record, problem)).collect())
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
            if self.cached(record).is_some() {
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
