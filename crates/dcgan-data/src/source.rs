//! Where images come from, behind one face.

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

    /// The shape of raw images; encoded ones each have their own.
    pub(crate) fn stored_shape(&self) -> Option<ImageShape> {
        match self {
            Self::Frames(frames) => Some(frames.shape),
            Self::Files(_) => None,
        }
    }

    /// The files that the images come from; none for what is compiled in.
    pub(crate) fn files(&self) -> Vec<&Path> {
        match self {
            Self::Frames(frames) => frames.chunks.iter().map(|chunk| chunk.path.as_path()).collect(),
            Self::Files(files) => match &files.store {
                Store::Folder(paths) => paths.iter().map(PathBuf::as_path).collect(),
                Store::Zip { .. } => vec![&files.root],
            },
        }
    }

    /// A name for reports; never fails.
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
            Self::Files(files) => {
                decode::decode(&files.encoded(record)?).map_err(|problem| files.bad_record(record, problem))
            }
        }
    }

    pub(crate) fn info(&self, record: usize) -> Result<ImageInfo, DataError> {
        match self {
            Self::Frames(frames) => {
                let missing = DataError::NoSuchImage { index: record, len: frames.len() };
                frames.locate(record).ok_or(missing)?;
                let ImageShape { height, width, channels } = frames.shape;
                Ok(ImageInfo { name: self.name(record), height, width, channels })
            }
            Self::Files(files) => {
                let (height, width, channels) = decode::dimensions(&files.encoded(record)?)
                    .map_err(|problem| files.bad_record(record, problem))?;
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

/// What a reader makes of a path.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) source: Source,
    /// One for each record of the source, the bad ones included.
    pub(crate) labels: Option<Vec<u32>>,
    pub(crate) class_names: Option<Vec<String>>,
    /// Records that the reader found to be bad, in ascending order, with the reason.
    pub(crate) bad: Vec<(usize, String)>,
    pub(crate) report: ScanReport,
    /// SHA-256 over what identifies the data: contents for raw formats, names and sizes for images.
    pub(crate) identity: String,
    /// A fingerprint that overrides the computed one: caches carry that of the data they were made from.
    pub(crate) fingerprint: Option<String>,
}
