//! Opens the images of a run: which are left out, and whether all of them are decoded before the first step.

use super::{InputsError, Opening, Processes};
use crate::config::{DecodedImages, Plan};
use crate::event::duration;
use dcgan_data::{DataError, Dataset, OpenOptions, UnreadableImages, listed_names};
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Images are always decoded before the first step if that takes no longer than this,
const SHORT: Duration = Duration::from_secs(5);
/// or than this if the run reads all of them.
const LONG: Duration = Duration::from_secs(60);
/// Time between two lines of the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Opens the dataset at `path`.
///
/// A run with a record leaves out the images of the record. Otherwise the plan decides: with `skip_bad` every image is
/// decoded and unreadable ones are skipped; without, all images are decoded where that takes little time, and an
/// unreadable one is an error.
pub(super) fn open(path: &Path, plan: &Plan, opening: &Opening<'_>) -> Result<Dataset, InputsError> {
    let path = &dcgan_data::local_path(path, opening.cancelled)?;
    let skip_bad = plan.run.skip_bad;
    let mut options = OpenOptions::new(plan.image_shape());
    options.crop = plan.run.crop;
    options.background =
        plan.run.background.parse().map_err(|message| DataError::InvalidOption(format!("--{message}")))?;
    options.max_skipped = skip_bad.limit();
    if let Some(list) = &plan.run.exclude {
        options.excluded_names = names(list)?;
    }
    options.index_folder = dcgan_data::default_cache_folder();
    options.memory_limit_bytes = plan.run.loader_memory_bytes() / opening.processes.on_host.max(1) as u64;
    if plan.run.decoded_images == DecodedImages::Keep {
        options.cache_folder = dcgan_data::default_cache_folder();
    }
    let report = Report::new();
    let progress = |done: usize, total: usize| {
        report.show(done, total);
        !(opening.cancelled)()
    };
    if let Some(record) = opening.record {
        let skips = skip_bad.is_on() || !record.skipped.is_empty();
        let mut options = OpenOptions { skipped_before: Some(record.skipped.clone()), ..options.clone() };
        options.unreadable_images = if skips { UnreadableImages::Skip } else { UnreadableImages::Fail };
        let mut data = Dataset::open(path, &options)?;
        if data.fingerprint() == record.fingerprint {
            if !record.excluded.is_empty() {
                data.exclude(record.excluded_images())?;
            }
            // Also where the option is new, or another number.
            if skip_bad.is_on() && (opening.skip_again || skip_bad != record.skip_bad) {
                skip_again(&mut data, skip_bad.limit(), &progress)?;
            }
            return Ok(data);
        }
        if !opening.accept_data_change {
            return Ok(data); // the trainer refuses it and says what differs
        }
    }
    if skip_bad.is_on() {
        options.unreadable_images = UnreadableImages::Skip;
        return Ok(Dataset::open_with_progress(path, &options, &progress)?);
    }
    let data = Dataset::open(path, &options)?;
    if opening.is_new {
        verify(&data, plan, opening.processes, &progress)?;
    }
    Ok(data)
}

/// The names in the first column of a list.
fn names(list: &Path) -> Result<Vec<String>, DataError> {
    let text =
        std::fs::read_to_string(list).map_err(|source| DataError::Io { path: list.to_owned(), source })?;
    Ok(listed_names(&text))
}

/// Looks for unreadable images in the middle of a run and leaves them out.
fn skip_again(
    data: &mut Dataset,
    limit: Option<u64>,
    progress: &(dyn Fn(usize, usize) -> bool + Sync),
) -> Result<(), DataError> {
    let found = data.unreadable(progress)?;
    let all = [data.skipped(), data.excluded(), &found].concat();
    if let Some(limit) = limit.filter(|limit| all.len() as u64 > *limit) {
        return Err(data.unreadable_error(&all, Some(limit)));
    }
    if found.is_empty() {
        tracing::info!("all {} images are readable", data.len());
        return Ok(());
    }
    tracing::warn!("{} more unreadable images are skipped from here on", found.len());
    data.exclude(found)
}

/// Decodes all images of a new run where that is cheap; several processes share the work. Pixels stay in memory, so no
/// time is lost.
fn verify(
    data: &Dataset,
    plan: &Plan,
    processes: Processes,
    progress: &(dyn Fn(usize, usize) -> bool + Sync),
) -> Result<(), DataError> {
    if !data.is_encoded() {
        return Ok(());
    }
    let time = data.decode_time() / u32::try_from(processes.count).unwrap_or(u32::MAX);
    let images = (plan.training.batch_size as u64).saturating_mul(plan.total_steps(data.len()));
    let reads_all = images >= data.len() as u64;
    if !data.is_cached() || time > if reads_all { LONG } else { SHORT } {
        tracing::info!(
            "not all images are decoded before the first step (it would take about {}); an unreadable one stops the \
             run with a checkpoint. --skip-bad decodes all of them first and skips unreadable ones",
            duration(time.as_secs_f64())
        );
        return Ok(());
    }
    if time > REPORT_INTERVAL {
        tracing::info!("decoding all {} images, about {}", data.len(), duration(time.as_secs_f64()));
    }
    let first = |rank: usize| data.len() * rank / processes.count;
    let unreadable = data.unreadable_among(first(processes.rank)..first(processes.rank + 1), progress)?;
    if !unreadable.is_empty() {
        return Err(data.unreadable_error(&unreadable, None));
    }
    tracing::info!("decoded all {} images: all are readable", data.len());
    Ok(())
}

/// Lines of the log about a long decoding.
struct Report(Mutex<Instant>);

impl Report {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn show(&self, done: usize, total: usize) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= REPORT_INTERVAL {
            *last = Instant::now();
            tracing::info!("decoded {done} of {total} images");
        }
    }
}
