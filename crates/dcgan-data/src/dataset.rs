//! The dataset: images of one shape by index, with optional labels.

mod unreadable;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::background::Background;
use crate::block::Block;
use crate::error::DataError;
use crate::open;
use crate::options::{OpenOptions, SkippedImage, UnreadableImages};
use crate::pixel_cache::PixelCache;
use crate::readers::digits;
use crate::remote::local_path;
use crate::report::ScanReport;
use crate::shape::ImageShape;
use crate::source::{ImageInfo, Scan, Source};
use crate::split::Split;
use crate::transform::Transform;
use dcgan_base::digest::Digest;

/// Gets the number of decoded images and of all images, from any thread; returns false to cancel.
pub type DecodeProgress<'a> = &'a (dyn Fn(usize, usize) -> bool + Sync);

/// The highest label plus one, or the number of names if it is higher.
pub(crate) fn class_count(labels: Option<&[u32]>, names: Option<&[String]>) -> Option<usize> {
    let highest = labels?.iter().max().map_or(0, |&label| label as usize + 1);
    Some(highest.max(names.map_or(0, <[String]>::len)))
}

/// Images of one shape with optional labels. It can be shared between threads.
#[derive(Debug)]
pub struct Dataset {
    source: Source,
    transform: Transform,
    /// The valid records of the source, if some are skipped.
    selection: Option<Vec<usize>>,
    labels: Option<Vec<u32>>,
    class_names: Option<Vec<String>>,
    report: ScanReport,
    fingerprint: String,
    cache_key: String,
    /// Transformed images by record, if all of them fit into the memory limit.
    memory: Option<Vec<OnceLock<Box<[u8]>>>>,
    /// Transformed images on disk otherwise, if there is a folder for them.
    disk: Option<PixelCache>,
    /// Images skipped when the dataset was opened.
    skipped: Vec<SkippedImage>,
    /// Images left out later.
    excluded: Vec<SkippedImage>,
    /// With excluded images: the index of each image of the opening, none if it is excluded.
    order: Option<Vec<Option<u32>>>,
    /// The blocks in which images are read, by number at the opening; none if each image is read by itself.
    blocks: Vec<Block>,
    /// Whether an image with transparent pixels was composited on the background.
    is_composited: AtomicBool,
}

/// Images looked at for transparent pixels when a dataset is opened.
const ALPHA_PROBES: usize = 16;

impl Dataset {
    /// Opens the folder, zip, file or cache at `path`, or the copy of a URL ([`local_path`]). The format is detected
    /// from its content.
    ///
    /// Images of folders and zips are sorted by path. With [`UnreadableImages::Skip`] every image is decoded here.
    ///
    /// # Errors
    ///
    /// Invalid options; a path that cannot be read, has an unsupported format, contains no images, or is damaged.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        Self::open_with_progress(path, options, &|_, _| true)
    }

    /// Like [`Dataset::open`]; `progress` is called while every image is decoded.
    ///
    /// # Errors
    ///
    /// Those of [`Dataset::open`]; [`DataError::Cancelled`].
    pub fn open_with_progress(
        path: &Path,
        options: &OpenOptions,
        progress: DecodeProgress<'_>,
    ) -> Result<Self, DataError> {
        options.check()?;
        let path = local_path(path, &|| false)?;
        Self::from_scan(open::scan(&path, options)?, options, progress)
    }

    /// Like [`Dataset::open`], but a dataset without images of `options.split` of its own, of which [`Dataset::open`]
    /// reads all images, is an error.
    ///
    /// # Errors
    ///
    /// Those of [`Dataset::open`]; [`DataError::NoOwnSplit`].
    pub fn open_split(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let (data, split) = (Self::open(path, options)?, options.split);
        if split != Split::Train {
            let train = Self::open(path, &OpenOptions { split: Split::Train, ..options.clone() });
            if train.is_ok_and(|train| train.fingerprint() == data.fingerprint()) {
                return Err(DataError::NoOwnSplit { path: path.to_owned(), split });
            }
        }
        Ok(data)
    }

    /// Opens the 10,000 MNIST digits compiled into this crate (see `datasets/digits`), resized to `shape`.
    ///
    /// # Errors
    ///
    /// An invalid shape.
    pub fn embedded_digits(shape: ImageShape) -> Result<Self, DataError> {
        let options = OpenOptions::new(shape);
        options.check()?;
        Self::from_scan(digits::scan()?, &options, &|_, _| true)
    }

    fn from_scan(scan: Scan, options: &OpenOptions, progress: DecodeProgress<'_>) -> Result<Self, DataError> {
        let Scan {
            source,
            labels,
            class_names,
            mut invalid,
            mut report,
            identity,
            fingerprint,
            modified,
            ..
        } = scan;
        // Images of a cache (it has a fingerprint) are already cropped.
        let crop = if fingerprint.is_some() { None } else { options.crop };
        let transform = Transform { shape: options.shape, crop, background: options.background };
        let records = source.len();
        let is_transformed = source.stored_shape().is_some_and(|stored| transform.is_identity(stored));
        let fits =
            (records as u64).saturating_mul(options.shape.bytes() as u64) <= options.memory_limit_bytes;
        let memory = (!is_transformed && fits).then(|| (0..records).map(|_| OnceLock::new()).collect());
        let mut dataset = Self {
            source,
            transform,
            selection: None,
            labels,
            class_names,
            report,
            fingerprint: String::new(),
            cache_key: String::new(),
            memory,
            disk: None,
            skipped: Vec::new(),
            excluded: Vec::new(),
            order: None,
            blocks: Vec::new(),
            is_composited: AtomicBool::new(false),
        };
        if options.unreadable_images == UnreadableImages::Skip {
            match &options.skipped_before {
                Some(before) => {
                    let found: HashSet<usize> = invalid.iter().map(|(record, _)| *record).collect();
                    let is_other =
                        |image: &&SkippedImage| image.record < records && !found.contains(&image.record);
                    let others = before.iter().filter(is_other);
                    invalid.extend(others.map(|image| (image.record, image.problem.clone())));
                }
                None if dataset.is_encoded() => {
                    let all: Vec<usize> = (0..records).collect();
                    invalid.extend(dataset.undecodable(&all, progress)?);
                }
                None => {}
            }
        }
        dataset.skipped =
            invalid.iter().map(|(record, problem)| dataset.skipped_image(*record, problem.clone())).collect();
        if let Some(limit) = options.max_skipped.filter(|limit| invalid.len() as u64 > *limit) {
            return Err(dataset.unreadable_error(&dataset.skipped, Some(limit)));
        }
        report = dataset.report;
        for (record, reason) in &invalid {
            report.skip(reason.clone(), dataset.source.name(*record));
        }
        let excluded = excluded(&dataset.source, &options.excluded_names, &mut report)?;
        let mut selection = None;
        if !invalid.is_empty() || !excluded.is_empty() {
            let mut keep = vec![true; records];
            invalid.iter().for_each(|(record, _)| keep[*record] = false);
            excluded.iter().for_each(|record| keep[*record] = false);
            dataset.labels = dataset.labels.map(|labels| {
                labels.into_iter().zip(&keep).filter_map(|(label, keep)| keep.then_some(label)).collect()
            });
            selection = Some((0..records).filter(|record| keep[*record]).collect::<Vec<_>>());
        }
        report.images = selection.as_ref().map_or(records, Vec::len);
        if report.images == 0 {
            return Err(DataError::NoImages { path: report.path.clone(), scanned: report.scanned() });
        }
        if u32::try_from(report.images).is_err() {
            return Err(DataError::InvalidOption(format!(
                "the dataset has {} images, expected at most {}",
                report.images,
                u32::MAX
            )));
        }
        let conversion = Conversion::of(&dataset.source, options);
        // Images are kept by record, whatever is skipped or left out.
        let of_all = fingerprint_of(&identity, options, conversion, &[], &[]);
        let fingerprint = match fingerprint {
            Some(packed) if excluded.is_empty() => packed,
            Some(packed) => fingerprint_of(&packed, options, conversion, &[], &excluded),
            None => fingerprint_of(&identity, options, conversion, &invalid, &excluded),
        };
        let mut blocks = dataset.source.blocks();
        if let Some(selection) = &selection {
            for block in &mut blocks {
                block.first = selection.partition_point(|record| *record < block.first);
            }
        }
        // A cache has the fingerprint of its original, but other stored images.
        let stored = format!("{:?} {:?}", report.format, dataset.source.stored_shape());
        let cache_key = Digest::default().field(&fingerprint).field(&modified).field(stored).hex();
        let mut dataset = Self { selection, report, fingerprint, cache_key, blocks, ..dataset };
        if !is_transformed && !fits {
            let key = Digest::default().field(of_all).field(modified).hex();
            dataset.open_disk_cache(options.cache_folder.as_deref(), &key);
        }
        Ok(dataset.with_alpha_note())
    }

    /// Opens the file of decoded images in `folder`. `key` changes when an image or the transform does.
    fn open_disk_cache(&mut self, folder: Option<&Path>, key: &str) {
        let Some(folder) = folder else { return };
        let bytes = self.shape().bytes();
        match PixelCache::open(folder, key, self.source.len(), bytes) {
            Ok(cache) => {
                let (path, all) = (cache.path().display(), (self.source.len() * bytes) as f64 / 1e9);
                let filled = match cache.filled() {
                    0 => String::new(),
                    filled => format!(", {filled} are there"),
                };
                let note = format!("decoded images are kept in {path} ({all:.1} GB{filled})");
                self.report.notes.push(note);
                self.disk = Some(cache);
            }
            Err(error) => {
                self.report.notes.push(format!("decoded images are not kept on disk: {error}"));
            }
        }
    }

    /// Adds a note to the report if one of a few images spread over the dataset has transparent pixels.
    fn with_alpha_note(mut self) -> Self {
        if self.shape().channels != 4 {
            let probes = self.len().min(ALPHA_PROBES);
            let records = (0..probes).filter_map(|probe| self.record(probe * self.len() / probes).ok());
            for record in self.source.may_have_alpha(records) {
                if !self.is_composited() && !self.is_decoded(record) {
                    // A damaged image is reported when it is read.
                    let _ = self.transformed(record).map(|pixels| self.cache(record, pixels));
                }
            }
            if self.is_composited() {
                self.report.notes.push(self.composited_note());
            }
        }
        self
    }

    /// What [`Dataset::is_composited`] means, for users.
    pub fn composited_note(&self) -> String {
        format!("transparent pixels are composited on {} (--background)", self.transform.background)
    }

    /// Whether an image with transparent pixels was composited on [`OpenOptions::background`] so far.
    pub fn is_composited(&self) -> bool {
        self.is_composited.load(Ordering::Relaxed)
    }

    /// Number of images; at least 1.
    pub fn len(&self) -> usize {
        self.report.images
    }

    /// Always false: opening a path without images is an error.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.transform.shape
    }

    /// Class labels `(n,)`, if the dataset is labeled.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// Class names by label, if they are known.
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// The number of classes, if the dataset is labeled: the highest label plus one, or the number of class names if it
    /// is higher.
    pub fn classes(&self) -> Option<usize> {
        class_count(self.labels(), self.class_names())
    }

    /// The scan report.
    pub fn report(&self) -> &ScanReport {
        &self.report
    }

    /// SHA-256 in hexadecimal that identifies the data and its transform.
    ///
    /// It covers the file contents of CIFAR, idx and SVHN; sorted names and sizes of folders; sorted names, sizes and
    /// CRC-32 of zips; the content of `dataset.json`; the shape, the crop and the skipped records; a background other
    /// than black; whether color is converted to grey. It does not cover the path of the dataset. A cache has the
    /// fingerprint of the dataset it was packed from.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// SHA-256 in hexadecimal for caches of what is computed from the images.
    ///
    /// It covers the fingerprint, and what the fingerprint leaves out: the time of the last change of each file, and
    /// whether images are stored as they were or in a cache. Copies of a dataset have different keys.
    pub fn cache_key(&self) -> &str {
        &self.cache_key
    }

    /// Reads image `index` into `into` as u8 `(h, w, c)`.
    ///
    /// # Errors
    ///
    /// An index out of range, a wrong buffer length, or an image that cannot be read or decoded.
    pub fn read(&self, index: usize, into: &mut [u8]) -> Result<(), DataError> {
        let expected = self.shape().bytes();
        if into.len() != expected {
            return Err(DataError::BufferSize { expected, found: into.len() });
        }
        let record = self.record(index)?;
        if let Some(pixels) = self.cached(record) {
            into.copy_from_slice(pixels);
        } else if let Source::Raw(raw) = &self.source
            && self.transform.is_identity(raw.shape)
        {
            raw.copy(record, into)?;
        } else if !self.disk.as_ref().is_some_and(|disk| disk.read(record, into)) {
            let pixels = self.transformed(record)?;
            into.copy_from_slice(&pixels);
            self.cache(record, pixels);
        }
        Ok(())
    }

    /// Image `index` as it is stored, neither resized nor cropped: u8 `(h, w, 3)`, height and width. Grey is repeated,
    /// alpha is dropped.
    ///
    /// # Errors
    ///
    /// An index out of range, or an image that cannot be read or decoded.
    pub fn read_stored(&self, index: usize) -> Result<(Vec<u8>, usize, usize), DataError> {
        let image = self.source.image(self.record(index)?)?.into_rgb8();
        let (width, height) = image.dimensions();
        Ok((image.into_raw(), height as usize, width as usize))
    }

    /// Name and size of image `index` on disk. Only the header is decoded.
    ///
    /// # Errors
    ///
    /// An index out of range, or an image that cannot be read.
    pub fn info(&self, index: usize) -> Result<ImageInfo, DataError> {
        self.source.info(self.record(index)?)
    }

    /// Name of image `index`, the same as in [`Dataset::info`], without reading the image.
    ///
    /// # Errors
    ///
    /// An index out of range.
    pub fn name(&self, index: usize) -> Result<String, DataError> {
        Ok(self.source.name(self.record(index)?))
    }

    pub(crate) fn transform(&self) -> &Transform {
        &self.transform
    }

    /// The blocks in which images are read, by number at the opening; none if each image is read by itself.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The files that contain the images.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.source.files()
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The record of the source of image `index`.
    pub(crate) fn record(&self, index: usize) -> Result<usize, DataError> {
        let out_of_range = DataError::IndexOutOfRange { index, len: self.len() };
        match &self.selection {
            Some(selection) => selection.get(index).copied().ok_or(out_of_range),
            None if index < self.len() => Ok(index),
            None => Err(out_of_range),
        }
    }

    fn transformed(&self, record: usize) -> Result<Vec<u8>, DataError> {
        let image = self.transform.apply(self.source.image(record)?);
        if image.is_composited {
            self.is_composited.store(true, Ordering::Relaxed);
        }
        Ok(image.pixels)
    }

    fn cached(&self, record: usize) -> Option<&[u8]> {
        self.memory.as_ref()?.get(record)?.get().map(AsRef::as_ref)
    }

    /// Whether an image need not be decoded again.
    fn is_decoded(&self, record: usize) -> bool {
        self.cached(record).is_some() || self.disk.as_ref().is_some_and(|disk| disk.contains(record))
    }

    fn cache(&self, record: usize, pixels: Vec<u8>) {
        if let Some(disk) = &self.disk {
            disk.write(record, &pixels);
        }
        if let Some(slot) = self.memory.as_ref().and_then(|memory| memory.get(record)) {
            // If another thread set it first, its bytes are the same.
            let _ = slot.set(pixels.into_boxed_slice());
        }
    }
}

/// The records of `source` with these names, in ascending order.
fn excluded(source: &Source, names: &[String], report: &mut ScanReport) -> Result<Vec<usize>, DataError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names: HashSet<&str> = names.iter().map(String::as_str).collect();
    let found: Vec<usize> =
        (0..source.len()).filter(|record| names.contains(source.name(*record).as_str())).collect();
    if found.is_empty() {
        let problem =
            format!("has none of the {} images to leave out: is the list of another dataset?", names.len());
        return Err(DataError::invalid_file(&report.path, problem));
    }
    report.notes.push(format!("{} images are left out (--exclude)", found.len()));
    if found.len() < names.len() {
        report.notes.push(format!("{} images to leave out are not there", names.len() - found.len()));
    }
    Ok(found)
}

/// Conversions of colors that the fingerprint covers. Earlier versions had neither, so that their fingerprints stay.
#[derive(Clone, Copy, Debug, Default)]
struct Conversion {
    /// Color is converted to grey by Rec. 601 (earlier versions: Rec. 709).
    to_grey: bool,
    /// The background of images with alpha, if it is not black.
    background: Option<Background>,
}

impl Conversion {
    fn of(source: &Source, options: &OpenOptions) -> Self {
        let channels = options.shape.channels;
        let can_have_alpha = source.stored_shape().is_none_or(|stored| stored.channels == 4);
        let has_background = channels != 4 && can_have_alpha && options.background != Background::BLACK;
        Self {
            to_grey: channels == 1 && source.has_color(),
            background: has_background.then_some(options.background),
        }
    }
}

fn fingerprint_of(
    identity: &str,
    options: &OpenOptions,
    conversion: Conversion,
    invalid: &[(usize, String)],
    excluded: &[usize],
) -> String {
    let ImageShape { height, width, channels } = options.shape;
    let mut digest = Digest::default();
    digest.field("dcgan-data 1").field(identity);
    for size in [height, width, channels, options.crop.unwrap_or(0)] {
        digest.number(size as u64);
    }
    for (record, _) in invalid {
        digest.number(*record as u64);
    }
    if !excluded.is_empty() {
        digest.field("excluded");
        excluded.iter().for_each(|record| {
            digest.number(*record as u64);
        });
    }
    if conversion.to_grey {
        digest.field("grey by Rec. 601");
    }
    if let Some(background) = conversion.background {
        digest.field("background").field(background.to_string());
    }
    digest.hex()
}
