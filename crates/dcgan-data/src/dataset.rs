//! A dataset: images of one shape by index, with labels where there are any.

use std::path::Path;
use std::sync::OnceLock;

use rayon::prelude::*;
use serde::Serialize;

use crate::error::DataError;
use crate::open;
use crate::options::{ImageShape, OnBad, OpenOptions};
use crate::readers::digits;
use crate::report::ScanReport;
use crate::source::{Scan, Source};
use crate::transform::Transform;
use dcgan_base::digest::Digest;

/// An image as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// The path below the root, or the file and the record's number in it.
    pub name: String,
    /// Rows, before any transform.
    pub height: usize,
    /// Columns, before any transform.
    pub width: usize,
    /// Channels, before any transform.
    pub channels: usize,
}

/// Images of one shape; shared between threads.
#[derive(Debug)]
pub struct Dataset {
    source: Source,
    transform: Transform,
    /// Records of the source in use, where bad ones were left out.
    selection: Option<Vec<usize>>,
    labels: Option<Vec<u32>>,
    class_names: Option<Vec<String>>,
    report: ScanReport,
    fingerprint: String,
    /// Transformed images by record, where all of them fit.
    memory: Option<Vec<OnceLock<Box<[u8]>>>>,
}

impl Dataset {
    /// Opens the folder, zip, file or cache at `path`, recognized by its content.
    ///
    /// Images of folders and zips are sorted by their path. Under [`OnBad::Skip`] all of them are decoded here.
    ///
    /// # Errors
    ///
    /// Options out of range, a path that cannot be read, is in no known format, holds no images, or is damaged.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        options.check()?;
        Self::from_scan(open::scan(path, options)?, options)
    }

    /// The digits compiled into the program (see `datasets/digits`), brought to `shape`.
    ///
    /// # Errors
    ///
    /// A shape out of range.
    pub fn embedded_digits(shape: ImageShape) -> Result<Self, DataError> {
        let options = OpenOptions::new(shape);
        options.check()?;
        Self::from_scan(digits::scan()?, &options)
    }

    fn from_scan(scan: Scan, options: &OpenOptions) -> Result<Self, DataError> {
        let Scan { source, labels, class_names, mut bad, mut report, identity, fingerprint } = scan;
        // A packed fingerprint means packed images: they were cropped before.
        let crop = if fingerprint.is_some() { None } else { options.crop };
        let transform = Transform { shape: options.shape, crop };
        let records = source.len();
        let stored_ready = source.stored_shape().is_some_and(|stored| transform.keeps(stored));
        let fits =
            (records as u64).saturating_mul(options.shape.bytes() as u64) <= options.memory_limit_bytes;
        let memory = (!stored_ready && fits).then(|| (0..records).map(|_| OnceLock::new()).collect());
        let mut dataset = Self {
            source,
            transform,
            selection: None,
            labels,
            class_names,
            report,
            fingerprint: String::new(),
            memory,
        };
        if options.on_bad == OnBad::Skip && matches!(dataset.source, Source::Files(_)) {
            bad.extend(dataset.undecodable());
        }
        report = dataset.report;
        for (record, reason) in &bad {
            report.skip(reason.clone(), dataset.source.name(*record));
        }
        let mut selection = None;
        if !bad.is_empty() {
            let mut keep = vec![true; records];
            bad.iter().for_each(|(record, _)| keep[*record] = false);
            dataset.labels = dataset.labels.map(|labels| {
                labels.into_iter().zip(&keep).filter_map(|(label, keep)| keep.then_some(label)).collect()
            });
            selection = Some((0..records).filter(|record| keep[*record]).collect::<Vec<_>>());
        }
        report.images = selection.as_ref().map_or(records, Vec::len);
        if report.images == 0 {
            return Err(DataError::NothingFound { path: report.path.clone(), scanned: report.scanned() });
        }
        if u32::try_from(report.images).is_err() {
            return Err(DataError::Option(format!(
                "{} images are more than this program counts",
                report.images
            )));
        }
        let fingerprint = fingerprint.unwrap_or_else(|| fingerprint_of(&identity, options, &bad));
        Ok(Self { selection, report, fingerprint, ..dataset })
    }

    /// Decodes everything and returns the records that fail, with the reason.
    fn undecodable(&self) -> Vec<(usize, String)> {
        let attempt = |record: usize| match self.render(record) {
            Ok(pixels) => {
                self.remember(record, pixels);
                None
            }
            Err(DataError::BadRecord { problem, .. }) => Some((record, problem)),
            Err(other) => Some((record, other.to_string())),
        };
        (0..self.source.len()).into_par_iter().filter_map(attempt).collect()
    }

    /// Number of images; at least 1.
    pub fn len(&self) -> usize {
        self.report.images
    }

    /// Whether there are no images: never, since opening such data is an error.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.transform.shape
    }

    /// One class number an image, where the data has labels.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// Names of the classes by number, where the data has them.
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// What was scanned and skipped.
    pub fn report(&self) -> &ScanReport {
        &self.report
    }

    /// SHA-256 in hexadecimal over what the data is and how it is transformed.
    ///
    /// For CIFAR, idx and SVHN over the contents of the files; for folders over sorted names and sizes; for zips over
    /// sorted names, sizes and CRC-32; with `dataset.json`, over that too; the shape, the crop and the images left out
    /// are part of it, the place on disk is not. A cache has the fingerprint of the data it was packed from.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Writes image `index` into `into`: rows from the top, columns from the left, channels interleaved, u8.
    ///
    /// # Errors
    ///
    /// An index or buffer length out of range, an image that cannot be read or decoded.
    pub fn read(&self, index: usize, into: &mut [u8]) -> Result<(), DataError> {
        let expected = self.shape().bytes();
        if into.len() != expected {
            return Err(DataError::BufferSize { expected, found: into.len() });
        }
        let record = self.record(index)?;
        if let Some(pixels) = self.remembered(record) {
            into.copy_from_slice(pixels);
        } else if let Source::Frames(frames) = &self.source
            && self.transform.keeps(frames.shape)
        {
            frames.copy(record, into)?;
        } else {
            let pixels = self.render(record)?;
            into.copy_from_slice(&pixels);
            self.remember(record, pixels);
        }
        Ok(())
    }

    /// Name and size of image `index` as it is on disk; only its header is decoded.
    ///
    /// # Errors
    ///
    /// An index out of range, an image that cannot be read.
    pub fn info(&self, index: usize) -> Result<ImageInfo, DataError> {
        self.source.info(self.record(index)?)
    }

    /// Name of image `index`, that of [`Dataset::info`]; nothing is read for it.
    ///
    /// # Errors
    ///
    /// An index out of range.
    pub fn name(&self, index: usize) -> Result<String, DataError> {
        Ok(self.source.name(self.record(index)?))
    }

    pub(crate) fn crop(&self) -> Option<usize> {
        self.transform.crop
    }

    /// The files that the images come from.
    pub(crate) fn files(&self) -> Vec<&Path> {
        self.source.files()
    }

    fn record(&self, index: usize) -> Result<usize, DataError> {
        let missing = DataError::NoSuchImage { index, len: self.len() };
        match &self.selection {
            Some(selection) => selection.get(index).copied().ok_or(missing),
            None if index < self.len() => Ok(index),
            None => Err(missing),
        }
    }

    fn render(&self, record: usize) -> Result<Vec<u8>, DataError> {
        Ok(self.transform.apply(self.source.image(record)?))
    }

    fn remembered(&self, record: usize) -> Option<&[u8]> {
        self.memory.as_ref()?.get(record)?.get().map(AsRef::as_ref)
    }

    fn remember(&self, record: usize, pixels: Vec<u8>) {
        if let Some(slot) = self.memory.as_ref().and_then(|memory| memory.get(record)) {
            // Another thread may have been faster; its bytes are the same.
            let _ = slot.set(pixels.into_boxed_slice());
        }
    }
}

fn fingerprint_of(identity: &str, options: &OpenOptions, bad: &[(usize, String)]) -> String {
    let ImageShape { height, width, channels } = options.shape;
    let mut digest = Digest::default();
    digest.field("dcgan-data 1").field(identity);
    for size in [height, width, channels, options.crop.unwrap_or(0)] {
        digest.number(size as u64);
    }
    for (record, _) in bad {
        digest.number(*record as u64);
    }
    digest.hex()
}
