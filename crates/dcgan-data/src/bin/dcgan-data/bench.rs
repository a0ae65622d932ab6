//! `dcgan-data bench`: how many images a second the loader gives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dcgan_cli::{Logging, Outcome, Results};
use dcgan_data::{BatchPart, Loader, LoaderConfig, LoaderPosition};
use serde::Serialize;

use crate::args::Bench;

/// Bytes of batches that are prefetched.
const PREFETCH_BYTES: u64 = 64 << 20;

/// The JSON output.
#[derive(Serialize)]
struct Line {
    format: String,
    images: usize,
    shape: String,
    threads: usize,
    batch_size: usize,
    /// Time to open the dataset.
    open_seconds: f64,
    /// Time until the first batch.
    first_batch_seconds: f64,
    /// Images a second, without the first batch.
    images_per_second: f64,
    /// Images read.
    read: usize,
    /// Share of the time that the reader waited; with --rate, of a reader at that rate.
    wait_share: f64,
    /// Worker threads at the end.
    active_threads: usize,
    peak_memory_bytes: Option<u64>,
}

pub(crate) fn bench_command(args: &Bench, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[])?;
    let started = Instant::now();
    let dataset = Arc::new(args.data.open_for_training(args.loader_memory << 20, args.decoded_images)?);
    let open_seconds = started.elapsed().as_secs_f64();
    tracing::info!("{}", dataset.report());
    let config = LoaderConfig {
        batch_size: args.batch_size.min(dataset.len()),
        seed: args.seed,
        mirror: false,
        threads: args.threads,
        prefetch_bytes: PREFETCH_BYTES,
        part: BatchPart::WHOLE,
    };
    let mut loader = Loader::new(Arc::clone(&dataset), config, LoaderPosition::default())?;
    let started = Instant::now();
    let first = loader.next_batch()?;
    let first_batch_seconds = started.elapsed().as_secs_f64();
    let (started, waited) = (Instant::now(), loader.wait_time());
    let limit = Duration::from_secs_f64(args.seconds);
    let (mut read, mut number) = (0, 0_u32);
    while started.elapsed() < limit && args.images.is_none_or(|images| read < images) {
        read += loader.next_batch()?.count;
        number += 1;
        if let Some(rate) = args.rate {
            // The step that takes this batch.
            let until = Duration::from_secs_f64(f64::from(number) * config.batch_size as f64 / rate);
            std::thread::sleep(until.saturating_sub(started.elapsed()));
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    let line = Line {
        format: dataset.report().format.to_string(),
        images: dataset.len(),
        shape: dataset.shape().to_string(),
        threads: args.threads,
        batch_size: first.count,
        open_seconds,
        first_batch_seconds,
        images_per_second: read as f64 / elapsed,
        read,
        wait_share: (loader.wait_time() - waited).as_secs_f64() / elapsed,
        active_threads: loader.active_threads(),
        peak_memory_bytes: dcgan_base::memory::peak_memory_bytes(),
    };
    if args.json {
        results.json(&serde_json::to_string(&line)?)?;
    } else {
        let memory = line
            .peak_memory_bytes
            .map_or_else(String::new, |bytes| format!(", {:.0} MB of memory at most", bytes as f64 / 1e6));
        results.text(&format!(
            "{:.0} images/s of {} in {elapsed:.1} s with {} of {} threads, {:.1} % waiting; opened in {open_seconds:.2} s{memory}",
            line.images_per_second,
            line.shape,
            line.active_threads,
            line.threads,
            100.0 * line.wait_share,
        ))?;
    }
    Ok(Outcome::Done)
}
