//! The source of a dataset's images, raw or encoded, and the result of a reader.

use std::path::PathBuf;

use image::DynamicImage;
use serde::Serialize;

use crate::block::Block;
use crate::decode;
use crate::encoded::EncodedImages;
use crate::error::DataError;
use crate::raw::RawImages;
use crate::report::ScanReport;
use crate::shape::ImageShape;

/// Name and size of an image on disk, before the transform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// The path below the root, or the file and the record's index in it.
    pub name: String,
    /// Rows, in pixels.
    pub height: usize,
    /// Columns, in pixels.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

/// Raw or encoded images.
#[derive(Debug)]
pub(crate) enum Source {
    Raw(RawImages),
    Encoded(EncodedImages),
}

impl Source {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Raw(raw) => raw.len(),
            Self::Encoded(encoded) => encoded.len(),
        }
    }

    /// The blocks in which images are read, none if each image is read by itself.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        match self {
            Self::Raw(raw) => raw.blocks(),
            Self::Encoded(encoded) => encoded.blocks(),
        }
    }

    /// The common shape of raw images; encoded images have individual shapes.
    pub(crate) fn stored_shape(&self) -> Option<ImageShape> {
        match self {
            Self::Raw(raw) => Some(raw.shape),
            Self::Encoded(_) => None,
        }
    }

    /// Those of `records` that can have transparent pixels, by their headers.
    pub(crate) fn may_have_alpha(&self, records: impl Iterator<Item = usize>) -> Vec<usize> {
        match self {
            Self::Raw(raw) => records.filter(|_| raw.shape.channels == 4).collect(),
            Self::Encoded(encoded) => {
                let has_alpha = |record: &usize| {
                    encoded.read(*record).is_ok_and(|encoded| decode::can_have_alpha(&encoded))
                };
                records.filter(has_alpha).collect()
            }
        }
    }

    /// Whether any image has color, as far as versions before Rec. 601 grey could read it.
    pub(crate) fn has_color(&self) -> bool {
        match self {
            Self::Raw(raw) => raw.shape.channels > 1,
            Self::Encoded(encoded) => encoded.has_color(),
        }
    }

    /// The files that contain the images.
    pub(crate) fn files(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        match self {
            Self::Raw(raw) => Box::new(raw.files().into_iter()),
            Self::Encoded(encoded) => encoded.files(),
        }
    }

    /// The name of a record for reports. An index out of range gives a placeholder.
    pub(crate) fn name(&self, record: usize) -> String {
        match self {
            Self::Raw(raw) => raw.name(record).unwrap_or_else(|| record.to_string()),
            Self::Encoded(encoded) => encoded.name(record).into_owned(),
        }
    }

    pub(crate) fn image(&self, record: usize) -> Result<DynamicImage, DataError> {
        match self {
            Self::Raw(raw) => raw.image(record),
            Self::Encoded(encoded) => decode::decode(&encoded.read(record)?)
                .map_err(|problem| encoded.invalid_record(record, problem)),
        }
    }

    pub(crate) fn info(&self, record: usize) -> Result<ImageInfo, DataError> {
        match self {
            Self::Raw(raw) => {
                let missing = DataError::IndexOutOfRange { index: record, len: raw.len() };
                let name = raw.name(record).ok_or(missing)?;
                let ImageShape { height, width, channels } = raw.shape;
                Ok(ImageInfo { name, height, width, channels })
            }
            Self::Encoded(encoded) => {
                let (height, width, channels) = decode::dimensions(&encoded.read(record)?)
                    .map_err(|problem| encoded.invalid_record(record, problem))?;
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
    /// Changes when a file does: a digest of the times of their last changes.
    pub(crate) modified: String,
    /// What was read, for an index.
    pub(crate) listing: Listing,
}

impl Scan {
    /// Images without labels, all valid; [`crate::open`] sets `modified`.
    pub(crate) fn new(source: Source, report: ScanReport, identity: String) -> Self {
        Self {
            source,
            labels: None,
            class_names: None,
            invalid: Vec::new(),
            report,
            identity,
            fingerprint: None,
            modified: String::new(),
            listing: Listing::default(),
        }
    }
}

/// What a scan read, for an index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    /// The folders that were listed, and files beside the images that were read.
    pub(crate) watched: Vec<PathBuf>,
    /// Size and time of each image file of a folder.
    pub(crate) stats: Vec<(u64, u64)>,
}
