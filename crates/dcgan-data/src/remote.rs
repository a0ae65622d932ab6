//! Datasets at URLs: their copies on the local disk.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::DataError;
use crate::pixel_cache::default_cache_folder;
use dcgan_remote::{FetchOptions, Progress, fetch, fetched, is_address};

/// Between two lines of the log.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The path of a dataset on the local disk: `path` itself, or, for a URL (`https://`, `s3://`, see [`dcgan_remote`]),
/// that of its copy in the cache folder ([`crate::default_cache_folder`]), where what is missing is copied now.
/// `is_cancelled` is called while it is copied.
///
/// # Errors
///
/// [`DataError::Remote`]: no cache folder, or what [`dcgan_remote::fetch`] says.
pub fn local_path<'a>(
    path: &'a Path,
    is_cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Cow<'a, Path>, DataError> {
    let Some(address) = address(path) else { return Ok(Cow::Borrowed(path)) };
    let folder = default_cache_folder().ok_or(DataError::NoCacheFolder)?;
    let log = Log::new(address);
    let report = |progress: Progress| {
        log.report(progress);
        !is_cancelled()
    };
    Ok(Cow::Owned(fetch(address, &FetchOptions::new(&folder), &report)?))
}

/// Like [`local_path`], but only what is complete: no server is asked.
///
/// # Errors
///
/// [`DataError::NotCopied`].
pub(crate) fn copied_path(path: &Path) -> Result<Cow<'_, Path>, DataError> {
    let Some(address) = address(path) else { return Ok(Cow::Borrowed(path)) };
    let folder = default_cache_folder().ok_or(DataError::NoCacheFolder)?;
    let found = fetched(address, &FetchOptions::new(&folder));
    found.map(Cow::Owned).ok_or_else(|| DataError::NotCopied { address: plain(address).to_owned() })
}

/// Whether `path` is a URL.
pub fn is_remote(path: &Path) -> bool {
    address(path).is_some()
}

fn address(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| is_address(text))
}

/// Without the query, which may be a signature.
fn plain(address: &str) -> &str {
    address.split('?').next().unwrap_or_default()
}

/// What the log says while a dataset is copied.
struct Log<'a> {
    address: &'a str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When and at how many bytes copying began.
    start: Option<(Instant, u64)>,
    last: Option<Instant>,
}

impl<'a> Log<'a> {
    fn new(address: &'a str) -> Self {
        Self { address: plain(address), state: Mutex::default() }
    }

    fn report(&self, Progress { done, bytes, files }: Progress) {
        // Before the files are listed there is nothing to say, nor if all are here.
        if bytes == done {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let Some((start, first)) = state.start else {
            state.start = Some((now, done));
            state.last = Some(now);
            let done = if done > 0 {
                format!(", {:.2} GB of them are here", gigabytes(done))
            } else {
                String::new()
            };
            let files = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
            tracing::info!("copying {}: {files}, {:.2} GB{done}", self.address, gigabytes(bytes));
            return;
        };
        if state.last.is_some_and(|last| now - last < LOG_EVERY) {
            return;
        }
        state.last = Some(now);
        let rate = (done - first) as f64 / (now - start).as_secs_f64();
        let left = if rate > 0.0 { (bytes - done) as f64 / rate / 60.0 } else { f64::INFINITY };
        tracing::info!(
            "copying {}: {:.2} of {:.2} GB, {:.0} MB/s, {left:.0} minutes left",
            self.address,
            gigabytes(done),
            gigabytes(bytes),
            rate / 1e6
        );
    }
}
