//! Opens a dataset and prints its shape, its classes and the labels of the first batch.
//!
//! `cargo run -p dcgan-data --example first_batch -- PATH`; without PATH it opens the embedded digits.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use dcgan_data::{BatchPart, Dataset, ImageShape, Loader, LoaderConfig, LoaderPosition, OpenOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let shape = ImageShape { height: 64, width: 64, channels: 3 };
    let dataset = Arc::new(match std::env::args_os().nth(1) {
        Some(path) => Dataset::open(Path::new(&path), &OpenOptions::new(shape))?,
        None => Dataset::embedded_digits(shape)?,
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", dataset.report())?;
    writeln!(out, "shape: {} images of {}", dataset.len(), dataset.shape())?;
    match dataset.class_names() {
        Some(names) => writeln!(out, "classes: {}", names.join(", "))?,
        None => writeln!(out, "classes: unknown")?,
    }
    let config = LoaderConfig {
        batch_size: dataset.len().min(16),
        seed: 0,
        mirror: false,
        threads: 2,
        prefetch_bytes: 1 << 24,
        part: BatchPart::WHOLE,
    };
    let mut loader = Loader::new(Arc::clone(&dataset), config, LoaderPosition::default())?;
    let batch = loader.next_batch()?;
    writeln!(out, "labels of the first batch: {:?}", batch.labels.unwrap_or_default())?;
    Ok(())
}
