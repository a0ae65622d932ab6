//! `dcgan-train sample`: an image grid, or single images by the million.

use crate::cli::SampleArgs;
use dcgan_base::digest::Digest;
use dcgan_cli::{
    Logging, Outcome, OutputFile, Progress, Results, UsageError, cancel_on_signals, check_outputs,
    set_threads,
};
use dcgan_data::image_file::{EXTENSIONS, ImageFileFormat};
use dcgan_data::image_grid::{self, GAP, ImageGrid, Layout, MAX_IMAGES};
use dcgan_data::{ImageShape, ImageWriter, ImageWriterError};
use dcgan_model::{Classes, Generator, Model, ModelConfig, weights::Weights};
use dcgan_train::inputs::open_device;
use rayon::prelude::*;
use serde_json::json;
use std::collections::HashSet;
use std::path::Path;

/// Maximum number of images of `--each`: their names have eight digits.
const MAX_EACH: usize = 100_000_000;
/// Largest `--scale`.
const MAX_SCALE: usize = 64;
/// Largest `--gap`.
const MAX_GAP: usize = 1024;
/// Maximum size of an image grid, in bytes.
const MAX_GRID_BYTES: usize = 1 << 30;
/// The images to draw.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    n: usize,
    classes: Classes,
    layout: Layout,
    /// Whether each row of the layout has one class.
    class_rows: bool,
}

/// Images that are drawn before they are written; a multiple of the batches of a forward pass.
const CHUNK: usize = 256;
/// Maximum size of a chunk of more than one batch, in bytes.
const MAX_CHUNK_BYTES: usize = 64 << 20;

pub(crate) fn run(args: &SampleArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Vec::new();
    let most = if args.each.is_some() { MAX_EACH } else { MAX_IMAGES };
    for (option, n) in [("--n", Some(args.n)), ("--per-class", args.per_class)] {
        if let Some(n) = n.filter(|n| !(1..=most).contains(n)) {
            let hint = if n > most && args.each.is_none() { "; --each writes more" } else { "" };
            faults.push(format!("{option} is {n}, expected 1 to {most}{hint}"));
        }
    }
    if !(1..=MAX_SCALE).contains(&args.scale) {
        faults.push(format!("--scale is {}, expected 1 to {MAX_SCALE}", args.scale));
    }
    if args.gap.is_some_and(|gap| gap > MAX_GAP) {
        faults.push(format!("--gap is {}, expected 0 to {MAX_GAP}", args.gap.unwrap_or(0)));
    }
    if let Some(out) = &args.out {
        let output = OutputFile { option: "--out", path: out, extensions: &EXTENSIONS };
        // A folder may get more files; a file is not replaced.
        let files = [("--model", Some(&args.model)), ("--config", args.config.as_ref())];
        let files = files.into_iter().filter_map(|(option, path)| Some((option, path?.as_path())));
        let inputs: Vec<_> = files.filter(|(_, path)| path.is_file()).collect();
        faults.extend(check_outputs(&inputs, &[output]));
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    let results = Results::new(logging, args.json, &[args.out.as_deref()])?;
    set_threads(args.threads)?;
    let device = open_device(args.device).map_err(UsageError::because)?;
    let networks =
        dcgan_model::networks(args.preset.as_deref(), args.config.as_deref()).map_err(UsageError::because)?;
    let opened = dcgan_model::open(&args.model, networks.as_ref()).map_err(UsageError::because)?;
    opened.notes.iter().for_each(|note| tracing::info!("{note}"));
    let model = opened.files.model;
    let Some(weights) = opened.files.generator else {
        return Err(UsageError::one(format!("{} has no generator", args.model.display())).into());
    };
    let drawn = drawn(args, model.config()).map_err(|faults| UsageError { faults })?;
    let shape: ImageShape = model.config().image_shape().into();
    let origin = origin(args, &model, &weights);
    match &args.each {
        Some(each) => {
            ImageWriter::check(each, &origin).map_err(|error| UsageError::one(format!("--each {error}")))?
        }
        None => check_grid_size(args, drawn.layout, shape)?,
    }
    let mut generator = Generator::new(&model, &weights, &device)?;
    if generator.ensure_statistics()? {
        tracing::info!("the weights have no batch norm statistics: recalibrated from 4,096 z");
    }
    let written = match (&args.each, &args.out) {
        (Some(each), _) => {
            let progress = Progress::new(logging, drawn.n as u64, "images");
            write_each(args, each, &drawn, (&mut generator, shape, &origin), &progress)?
        }
        (None, Some(out)) => {
            let images = generator.draw_range(args.seed, 0..drawn.n, drawn.classes)?;
            grid(args, &drawn, &images, shape)?.save(out)?;
            drawn.n
        }
        (None, None) => 0, // the command line requires one of them
    };
    let Some(path) = args.each.as_ref().or(args.out.as_ref()) else { return Ok(Outcome::Done) };
    if written < drawn.n {
        let hint = if path.is_dir() { "; the same command continues" } else { ", nothing was written" };
        tracing::warn!("interrupted after {written} of {} images{hint}", drawn.n);
        return Ok(Outcome::Interrupted);
    }
    results.text(&format!("{written} images in {}", path.display()))?;
    let mut line = json!({
        "images": written,
        "out": path,
        "height": shape.height * args.scale,
        "width": shape.width * args.scale,
        "channels": shape.channels,
        "seed": args.seed,
    });
    if model.config().is_conditional() {
        let config = model.config();
        line["classes"] = config.classes.into();
        line["class_names"] = (0..config.classes).map(|class| config.class_name(class)).collect();
        if args.each.is_some() {
            line["folders"] = folder_names(config).into();
        } else {
            // In the order of the cells of the grid.
            let labels: Vec<u32> = (0..drawn.n).map(|i| drawn.classes.of(i, config.classes)).collect();
            line["labels"] = json!(drawn.in_grid_order(&labels));
        }
    }
    results.json(&line)?;
    Ok(Outcome::Done)
}

impl Drawn {
    /// Cells drawn in order, in the order of the grid.
    fn in_grid_order<T: Clone>(&self, cells: &[T]) -> Vec<T> {
        if self.class_rows { image_grid::by_column(cells, self.layout.rows) } else { cells.to_vec() }
    }
}

/// The images that the options ask for, or every fault.
fn drawn(args: &SampleArgs, config: &ModelConfig) -> Result<Drawn, Vec<String>> {
    let mut faults = Vec::new();
    let mut classes = Classes::InTurn;
    if let Some(class) = &args.class {
        match config.class_of(class) {
            Ok(class) => classes = Classes::One(class),
            Err(message) => faults.push(format!("--class: {message}")),
        }
    }
    if args.per_class.is_some() && !config.is_conditional() {
        faults.push("--per-class: the model is not conditional, it has no classes; use --n".to_owned());
    }
    let n = args.per_class.map_or(args.n, |per_class| per_class.saturating_mul(config.classes));
    let most = if args.each.is_some() { MAX_EACH } else { MAX_IMAGES };
    if n > most {
        let hint = if args.each.is_none() { "; --each writes more" } else { "" };
        faults.push(format!("--per-class asks for {n} images, expected at most {most}{hint}"));
    }
    let class_rows = args.per_class.is_some();
    let layout = match args.per_class {
        Some(columns) => Layout { rows: config.classes, columns },
        None => Layout::square(n.min(MAX_IMAGES)),
    };
    if faults.is_empty() { Ok(Drawn { n, classes, layout, class_rows }) } else { Err(faults) }
}

/// All that the images depend on: the images of an interrupted folder are continued only with the same.
fn origin(args: &SampleArgs, model: &Model, weights: &Weights) -> String {
    let mut digest = Digest::default();
    digest.field(json!(model.config()).to_string());
    for (name, tensor) in weights {
        digest.field(name).field(format!("{:?}", tensor.shape));
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        digest.field(bytes);
    }
    let mut origin = json!({ "model_sha256": digest.hex(), "seed": args.seed, "scale": args.scale });
    if let Some(class) = &args.class {
        origin["class"] = class.as_str().into();
    }
    origin.to_string()
}

fn check_grid_size(args: &SampleArgs, layout: Layout, shape: ImageShape) -> Result<(), UsageError> {
    let gap = args.gap.unwrap_or(GAP);
    let Layout { rows, columns } = layout;
    let (height, width) = (shape.height * args.scale + gap, shape.width * args.scale + gap);
    let bytes =
        [rows, height, columns, width, shape.channels].iter().fold(1, |a: usize, b| a.saturating_mul(*b));
    if bytes <= MAX_GRID_BYTES {
        return Ok(());
    }
    Err(UsageError::one(format!(
        "a grid of {} images of {height} x {width} pixels takes {} MB, expected at most {}: use a smaller --n or \
         --scale, or write single images with --each",
        layout.cells(),
        bytes >> 20,
        MAX_GRID_BYTES >> 20
    )))
}

/// The images in a grid; one image alone has no frame.
fn grid(args: &SampleArgs, drawn: &Drawn, images: &[u8], shape: ImageShape) -> anyhow::Result<ImageGrid> {
    let images: Vec<ImageGrid> =
        ImageGrid::split_batch(images, shape)?.iter().map(|image| image.enlarged(args.scale)).collect();
    let gap = args.gap.unwrap_or(if images.len() == 1 { 0 } else { GAP });
    Ok(ImageGrid::grid_with_gap(&drawn.in_grid_order(&images), drawn.layout, gap))
}

/// Draws and writes single images in order; returns how many there are, fewer than requested after a signal.
fn write_each(
    args: &SampleArgs,
    each: &Path,
    drawn: &Drawn,
    (generator, shape, origin): (&mut Generator, ImageShape, &str),
    progress: &Progress,
) -> anyhow::Result<usize> {
    let cancel = cancel_on_signals()?;
    let mut writer = ImageWriter::create(each, origin).map_err(as_usage_error)?;
    let config = generator.model().config().clone();
    let names = folder_names(&config);
    let class_of = |i: usize| names.get(drawn.classes.of(i, config.classes) as usize).cloned();
    writer.skip_written(class_of);
    if writer.next() > 0 {
        tracing::info!("{}: continues after {} images", each.display(), writer.next());
    }
    let batches = MAX_CHUNK_BYTES / (shape.bytes() * 64).max(1);
    let chunk = (64 * batches).clamp(64, CHUNK);
    progress.set(writer.next() as u64);
    while writer.next() < drawn.n {
        if cancel.is_set() {
            return Ok(writer.next());
        }
        let first = writer.next();
        let images = generator.draw_range(args.seed, first..drawn.n.min(first + chunk), drawn.classes)?;
        let encoded = ImageGrid::split_batch(&images, shape)?
            .par_iter()
            .map(|image| {
                let image = image.enlarged(args.scale);
                ImageFileFormat::Png.encode(image.pixels(), image.shape())
            })
            .collect::<Result<Vec<_>, _>>()?;
        for png in encoded {
            writer.write(class_of(writer.next()).as_deref(), &png)?;
        }
        progress.set(writer.next() as u64);
    }
    let written = writer.next();
    writer.finish()?;
    Ok(written)
}

/// The folder of each class: its name, or its number where the name is none for a folder. If two are equal, also in
/// another case, all are numbers.
fn folder_names(config: &ModelConfig) -> Vec<String> {
    let folder_name = |class: usize| {
        let name = config.class_name(class);
        let is_plain = |c: char| c.is_alphanumeric() || " ._-".contains(c);
        let is_folder = name.len() <= 100 && name.chars().all(is_plain) && !name.starts_with(['.', ' ']);
        if is_folder && !name.is_empty() { name } else { class.to_string() }
    };
    let names: Vec<String> = (0..config.classes).map(folder_name).collect();
    let different: HashSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
    if different.len() == names.len() {
        names
    } else {
        (0..names.len()).map(|class| class.to_string()).collect()
    }
}

fn as_usage_error(error: ImageWriterError) -> anyhow::Error {
    match error {
        ImageWriterError::OtherImages { .. } => UsageError::because(error).into(),
        ImageWriterError::Io { .. } => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcgan_model::Preset;

    #[test]
    fn classes_have_different_folders() {
        for (names, expected) in [
            (&["cat", "dog"][..], ["cat", "dog"]),
            (&["cat", "a/b"], ["cat", "1"]),
            (&["1", "a/b"], ["0", "1"]),
            (&["cat", "Cat"], ["0", "1"]),
            (&["", ".."], ["0", "1"]),
            (&[], ["0", "1"]),
        ] {
            let mut config = Preset::named("mnist-cond").unwrap().model;
            (config.classes, config.class_names) = (2, names.iter().map(|&name| name.to_owned()).collect());
            assert_eq!(folder_names(&config), expected, "{names:?}");
        }
    }
}
