//! The source of a dataset's images, raw or encoded, and the result of a reader.

use std::path::{Path, PathBuf};

use image::DynamicImage;

use crate::dataset::ImageInfo;
use crate::decode;
use crate::error::DataError;
use crate::files::{Files, Store};
use crate::frames::{Frames, record_name};
use crate::options::ImageShape;
use crate::report::ScanReport;

/// Raw or encoded images.
#[derive(Debug)]
pub(crate) enum Source {
    Frames(Frames),
    Files(Files),
}

impl Source {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Frames(frames) => frames.len(),
            Self::Files(files) => files.len(),
        }
    }

    /// The common shape of raw images; encoded images have individual shapes.
    pub(crate) fn stored_shape(&self) -> Option<ImageShape> {
        match self {
            Self::Frames(frames) => Some(frames.shape),
            Self::Files(_) => None,
        }
    }

    /// The files that contain the images.
    pub(crate) fn files(&self) -> Vec<&Path> {
        match self {
            Self::Frames(frames) => frames.chunks.iter().map(|chunk| chunk.path.as_path()).collect(),
            Self::Files(files) => match &files.store {
                Store::Folder(paths) => paths.iter().map(PathBuf::as_path).collect(),
                Store::Zip { .. } => vec![&files.root],
            },
        }
    }

    /// The name of a record for reports. An index out of range gives a placeholder.
    pub(crate) fn name(&self, record: usize) -> String {
        match self {
            Self::Frames(frames) => frames
                .locate(record)
                .map_or_else(|| record.to_string(), |(chunk, number)| record_name(&chunk.path, number)),
            Self::Files(files) => files.name(record).to_owned(),
        }
    }

    pub(crate) fn image(&self, record: usize) -> Result<DynamicImage, DataError> {
        match self {
            Self::Frames(frames) => frames.image(record),
            Self::Files(files) => decode::decode(&files.encoded(record)?)
                .map_err(|problem| files.invalid_record(record, problem)),
        }
    }

    pub(crate) fn info(&self, record: usize) -> Result<ImageInfo, DataError> {
        match self {
            Self::Frames(frames) => {
                let missing = DataError::IndexOutOfRange { index: record, len: frames.len() };
                frames.locate(record).ok_or(missing)?;
                let ImageShape { height, width, channels } = frames.shape;
                Ok(ImageInfo { name: self.name(record), height, width, channels })
            }
            Self::Files(files) => {
                let (height, width, channels) = decode::dimensions(&files.encoded(record)?)
                    .map_err(|problem| files.invalid_record(record, problem))?;
                let side = |side: u32| usize::try_from(side).unwrap_or(usize::MAX);
                Ok(ImageInfo {
                    name: self.name(record),
                    height: side(height),
                    width: side(width),
                    channels: usize::from(channels),
                })
            }
        }
    }
}

/// The result of a reader: a dataset before transform and selection.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) source: Source,
    /// One per record of the source, including invalid records.
    pub(crate) labels: Option<Vec<u32>>,
    pub(crate) class_names: Option<Vec<String>>,
    /// Invalid records in ascending order, with the problem.
    pub(crate) invalid: Vec<(usize, String)>,
    pub(crate) report: ScanReport,
    /// SHA-256 that identifies the data: over contents for raw formats, over names and sizes for encoded images.
    pub(crate) identity: String,
    /// Overrides the computed fingerprint: a cache has the fingerprint of the dataset it was packed from.
    pub(crate) fingerprint: Option<String>,
}
