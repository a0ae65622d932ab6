//! `dcgan-data inspect`: describes the dataset at a path.

use std::time::Instant;

use anyhow::bail;
use dcgan_cli::{Logging, Outcome, OutputFile, Progress, Results, UsageError, check_outputs};
use dcgan_data::image_file::EXTENSIONS;
use dcgan_data::image_grid::{ImageGrid, Layout};
use dcgan_data::{Dataset, ImageInfo, ImageShape, ScanReport, SkippedImage};
use serde::Serialize;

use crate::args::Inspect;

/// Maximum number of unreadable images in the text output; JSON lists all.
const UNREADABLE_SHOWN: usize = 20;

/// Number of images whose size on disk is printed.
const EXAMPLES: usize = 3;

/// Maximum number of classes in the text output; JSON lists all.
const CLASSES_SHOWN: usize = 20;

/// Rows and columns of the montage.
const MONTAGE_SIDE: usize = 10;

/// The output of the command.
#[derive(Serialize)]
struct Inspection<'a> {
    #[serde(flatten)]
    report: &'a ScanReport,
    /// Old name of `images`, for scripts.
    pictures: usize, // old name of `images`
    shape: ImageShape,
    classes: Vec<Class>,
    examples: Vec<ImageInfo>,
    fingerprint: &'a str,
    checked: Checked,
    /// Time to decode all images once with all cores: measured if `checked` says that all were decoded, otherwise
    /// estimated from a few. An epoch takes it where decoded images are not kept.
    decode_seconds: f64,
    /// Images that cannot be read or decoded, if `checked` says that all were decoded; otherwise those whose header
    /// cannot be read.
    unreadable: &'a [SkippedImage],
}

/// How much of the images was read.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Checked {
    /// All pixels of every image.
    Pixels,
    /// The header of every image.
    Headers,
}

#[derive(Serialize)]
struct Class {
    label: u32,
    name: Option<String>,
    images: usize,
    /// Old name of `images`, for scripts.
    pictures: usize, // old name of `images`
}

pub(crate) fn inspect(args: &Inspect, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[args.montage.as_deref()])?;
    if let Some(path) = &args.montage {
        let output = OutputFile { option: "--montage", path, extensions: &EXTENSIONS };
        let faults = check_outputs(&[("the dataset", &args.data.path)], &[output]);
        if !faults.is_empty() {
            return Err(UsageError { faults }.into());
        }
    }
    let dataset = args.data.open()?;
    let checked = if args.headers { Checked::Headers } else { Checked::Pixels };
    let (started, estimate) = (Instant::now(), dataset.decode_time());
    let unreadable = match checked {
        Checked::Pixels => {
            let progress = Progress::new(logging, dataset.len() as u64, "images");
            dataset.unreadable(&|done, _| {
                progress.set(done as u64 + 1);
                true
            })?
        }
        Checked::Headers => dataset.unreadable_headers(),
    };
    let decode_time = if checked == Checked::Pixels { started.elapsed() } else { estimate };
    if let Some(path) = &args.montage {
        montage(&dataset)?.save(path)?;
    }
    let examples = spread(dataset.len(), EXAMPLES).filter_map(|index| dataset.info(index).ok()).collect();
    let mut report = dataset.report().clone();
    let note = dataset.composited_note();
    // The dataset looks at a few images only when it is opened.
    if dataset.is_composited() && !report.notes.contains(&note) {
        report.notes.push(note);
    }
    let inspection = Inspection {
        report: &report,
        pictures: dataset.len(), // old name
        shape: dataset.shape(),
        classes: classes(&dataset),
        examples,
        fingerprint: dataset.fingerprint(),
        checked,
        decode_seconds: decode_time.as_secs_f64(),
        unreadable: &unreadable,
    };
    if args.json {
        results.json(&serde_json::to_string(&inspection)?)?;
    } else {
        results.text(&describe(&inspection))?;
    }
    if !unreadable.is_empty() {
        bail!(
            "{} of {} images cannot be read: repair or remove them, or skip them with --skip-bad",
            unreadable.len(),
            dataset.len()
        );
    }
    Ok(Outcome::Done)
}

fn describe(inspection: &Inspection<'_>) -> String {
    let report = inspection.report;
    let mut lines = vec![
        format!("path         {}", report.path.display()),
        format!("format       {}", report.format),
        format!("images       {}", report.images),
        format!("output shape {}", inspection.shape),
        format!("files        {}, {:.1} MB", report.scanned_files, report.bytes as f64 / 1e6),
    ];
    lines.extend(inspection.examples.iter().map(|image| {
        format!("on disk      {}x{}x{}  {}", image.height, image.width, image.channels, image.name)
    }));
    lines.extend(report.notes.iter().map(|note| format!("note         {note}")));
    if report.skipped.is_empty() {
        lines.push("skipped      nothing".to_owned());
    }
    lines.extend(report.skipped.iter().map(|skipped| format!("skipped      {skipped}")));
    let images =
        if report.images == 1 { "1 image".to_owned() } else { format!("all {} images", report.images) };
    lines.push(match inspection.checked {
        Checked::Pixels => {
            format!("checked      the pixels of {images}: {} unreadable", inspection.unreadable.len())
        }
        Checked::Headers => format!(
            "checked      the headers of {images}, not their pixels: {} unreadable",
            inspection.unreadable.len()
        ),
    });
    lines.push(format!(
        "an epoch     {:.1} s to decode it with {} threads{}",
        inspection.decode_seconds,
        std::thread::available_parallelism().map_or(1, usize::from),
        if inspection.checked == Checked::Pixels { "" } else { ", estimated" },
    ));
    let shown = inspection.unreadable.iter().take(UNREADABLE_SHOWN);
    lines.extend(shown.map(|image| format!("unreadable   {}: {}", image.name, image.problem)));
    if inspection.unreadable.len() > UNREADABLE_SHOWN {
        let more = inspection.unreadable.len() - UNREADABLE_SHOWN;
        lines.push(format!("             and {more} more (--json lists all)"));
    }
    if inspection.classes.is_empty() {
        lines.push("labels       none".to_owned());
    } else {
        lines.push(format!("labels       {} classes", inspection.classes.len()));
        for class in inspection.classes.iter().take(CLASSES_SHOWN) {
            lines.push(format!(
                "  {:>8}  {} {}",
                class.images,
                class.label,
                class.name.as_deref().unwrap_or("")
            ));
        }
        if inspection.classes.len() > CLASSES_SHOWN {
            lines.push(format!(
                "            and {} more (--json lists all)",
                inspection.classes.len() - CLASSES_SHOWN
            ));
        }
    }
    lines.push(format!("fingerprint  {}", inspection.fingerprint));
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// The classes that occur in the dataset with their counts, sorted by label.
fn classes(dataset: &Dataset) -> Vec<Class> {
    let mut counts = std::collections::BTreeMap::new();
    for label in dataset.labels().unwrap_or_default() {
        *counts.entry(*label).or_insert(0) += 1;
    }
    let name = |label: u32| dataset.class_names()?.get(usize::try_from(label).ok()?).cloned();
    counts
        .into_iter()
        .map(|(label, images)| Class { label, name: name(label), images, pictures: images }) // old name
        .collect()
}

/// Up to `count` indices spread evenly over `len` images.
fn spread(len: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(len);
    (0..count).map(move |i| i * len / count)
}

/// Images spread over the dataset, in row-major order without gaps.
fn montage(dataset: &Dataset) -> anyhow::Result<ImageGrid> {
    let mut pixels = Vec::new();
    let mut image = vec![0; dataset.shape().bytes()];
    for index in spread(dataset.len(), MONTAGE_SIDE * MONTAGE_SIDE) {
        dataset.read(index, &mut image)?;
        pixels.extend_from_slice(&image);
    }
    let images = ImageGrid::split_batch(&pixels, dataset.shape())?;
    let columns = images.len().min(MONTAGE_SIDE);
    let layout = Layout { rows: images.len().div_ceil(MONTAGE_SIDE), columns };
    Ok(ImageGrid::grid_with_gap(&images, layout, 0))
}
