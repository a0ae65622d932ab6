//! A look at a few images, before their shape is chosen.

use std::path::Path;

use image::DynamicImage;
use rayon::prelude::*;

use crate::dataset::{Dataset, class_count};
use crate::error::DataError;
use crate::open;
use crate::options::{OpenOptions, UnreadableImages};
use crate::pixel_cache::default_cache_folder;
use crate::readers::cache;
use crate::remote::copied_path;
use crate::shape::ImageShape;
use crate::source::Source;

/// Images whose headers are read.
const HEADERS: usize = 64;
/// Images that are decoded, to find grey images that are stored in color.
const DECODED: usize = 8;
/// Largest difference of two channels of a grey pixel: JPEG rounds.
const GREY_TOLERANCE: u8 = 4;

/// Sizes and color of some images of a dataset, evenly spaced, and its classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Height and width on disk of each image that was looked at, in pixels, sorted by the shorter side.
    pub sizes: Vec<(usize, usize)>,
    /// Whether any of them has colors. Grey images that are stored in color have none.
    pub is_color: bool,
    /// The only shape that can be read, for a cache.
    pub stored_shape: Option<ImageShape>,
    /// The number of classes, if there are labels.
    pub classes: Option<usize>,
}

impl Probe {
    /// The image whose shorter side is the median, as height and width.
    pub fn median_size(&self) -> Option<(usize, usize)> {
        self.sizes.get(self.sizes.len() / 2).copied()
    }

    fn of(source: &Source, records: &[usize]) -> Self {
        let headers = spread(records, HEADERS);
        let infos: Vec<_> = headers.par_iter().filter_map(|&record| source.info(record).ok()).collect();
        let mut sizes: Vec<_> = infos.iter().map(|info| (info.height, info.width)).collect();
        sizes.sort_unstable_by_key(|&(height, width)| (height.min(width), height.max(width)));
        let may_have_colors = infos.iter().any(|info| info.channels >= 3);
        let has_colors = |&record: &usize| source.image(record).is_ok_and(|image| is_color(&image));
        let is_color = may_have_colors && spread(records, DECODED).par_iter().any(has_colors);
        Self { sizes, is_color, stored_shape: None, classes: None }
    }
}

/// Looks at some of the images at `path`, which may be everything that [`Dataset::open`] reads; of a URL the copy.
/// Unreadable images are ignored.
///
/// # Errors
///
/// A path that cannot be read or has an unsupported format; a URL that is not copied yet.
pub fn probe(path: &Path) -> Result<Probe, DataError> {
    // In a pool of its own: a program looks at the images before it knows how many threads to use, and the size of the
    // global pool is fixed by its first use.
    match rayon::ThreadPoolBuilder::new().build() {
        Ok(pool) => pool.install(|| probe_images(path)),
        Err(_) => probe_images(path),
    }
}

fn probe_images(path: &Path) -> Result<Probe, DataError> {
    let path = &copied_path(path)?;
    let stored_shape = cache::cache_shape(path)?;
    // Only a cache depends on the shape.
    let shape = stored_shape.unwrap_or(ImageShape { height: 64, width: 64, channels: 3 });
    let options = OpenOptions {
        unreadable_images: UnreadableImages::Skip,
        index_folder: default_cache_folder(),
        ..OpenOptions::new(shape)
    };
    let scan = open::scan(path, &options)?;
    let classes = class_count(scan.labels.as_deref(), scan.class_names.as_deref());
    let records: Vec<usize> = (0..scan.source.len()).collect();
    Ok(Probe { stored_shape, classes, ..Probe::of(&scan.source, &records) })
}

impl Dataset {
    /// Looks at some of the images on disk, before crop and resize.
    pub fn probe(&self) -> Probe {
        let records: Vec<usize> = (0..self.len()).filter_map(|index| self.record(index).ok()).collect();
        Probe { classes: self.classes(), ..Probe::of(self.source(), &records) }
    }
}

/// At most `count` of `records`, evenly spaced: files are often sorted by class.
fn spread(records: &[usize], count: usize) -> Vec<usize> {
    let count = count.min(records.len());
    (0..count).filter_map(|i| records.get(i * records.len() / count).copied()).collect()
}

/// Whether the channels of some pixel differ. Transparent pixels have no color.
fn is_color(image: &DynamicImage) -> bool {
    image.color().has_color()
        && image.to_rgba8().pixels().any(|pixel| {
            let [red, green, blue, alpha] = pixel.0;
            let (low, high) = (red.min(green).min(blue), red.max(green).max(blue));
            alpha > 0 && high - low > GREY_TOLERANCE
        })
}
