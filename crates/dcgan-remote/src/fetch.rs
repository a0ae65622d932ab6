//! Copying a dataset: list, compare, copy, and what to do without a connection.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dcgan_base::files::{free_bytes, write_atomic};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::address::{folder_name, without_secrets};
use crate::copy::Copies;
use crate::error::RemoteError;
use crate::options::{FetchOptions, Progress};
use crate::store::{REQUESTS, RemoteFile, Store};

/// How long a listing holds: the openings of one command ask the server once, and processes that start together see
/// the same files.
const FRESH: Duration = Duration::from_secs(60);

/// Between two calls of the progress.
const TICK: Duration = Duration::from_millis(200);

/// Free disk space that is left.
const RESERVE_BYTES: u64 = 256 << 20;

/// What is known of the files at a URL.
#[derive(Debug, Serialize, Deserialize)]
struct Listing {
    address: String,
    files: Vec<RemoteFile>,
}

/// Copies the files at `address` that are not in the cache folder yet, and returns the path of the copy: a file for the
/// URL of one file, otherwise a folder. `progress` is called five times a second; it returns false to cancel.
///
/// Processes that fetch the same URL wait for each other.
///
/// # Errors
///
/// An invalid URL; a server that cannot be reached or refuses, unless all files are here; too little space;
/// [`RemoteError::Cancelled`].
pub fn fetch(
    address: &str,
    options: &FetchOptions,
    progress: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<PathBuf, RemoteError> {
    let store = Store::open(address, &options.variables, options.retry_seconds)?;
    let folder = folder(address, options);
    fs::create_dir_all(&folder).map_err(RemoteError::io(&folder))?;
    let _lock = lock(&folder, address, progress)?;
    let copies = Copies::new(&folder);
    let known = read_listing(&folder);
    let is_fresh = known.is_some() && age(&listing_path(&folder)).is_some_and(|age| age < FRESH);
    if let Some(known) = known.as_ref().filter(|_| is_fresh)
        && copies.missing(&known.files).is_empty()
    {
        return Ok(path_of(&copies, &known.files));
    }
    // On a thread of its own: the caller may be a task of a runtime, in which no other can be started.
    let files = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(RemoteError::io(&folder))?;
            runtime.block_on(update(address, &store, &copies, &folder, known, progress))
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(path_of(&copies, &files))
}

/// The path of the copy of `address`, if it is complete. No server is asked.
pub fn fetched(address: &str, options: &FetchOptions) -> Option<PathBuf> {
    let folder = folder(address, options);
    let copies = Copies::new(&folder);
    let files = read_listing(&folder)?.files;
    copies.missing(&files).is_empty().then(|| path_of(&copies, &files))
}

/// Lists the files and copies those that are missing.
async fn update(
    address: &str,
    store: &Store,
    copies: &Copies,
    folder: &Path,
    known: Option<Listing>,
    progress: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<Vec<RemoteFile>, RemoteError> {
    let files = match run_until(store.list(), || progress(Progress { done: 0, bytes: 0, files: 0 })).await {
        Ok(files) => files,
        Err(RemoteError::Cancelled) => return Err(RemoteError::Cancelled),
        Err(error) => match known {
            Some(known) if copies.missing(&known.files).is_empty() => {
                tracing::warn!("{error}; the copy in {} is used", folder.display());
                return Ok(known.files);
            }
            _ => return Err(error),
        },
    };
    copies.remove_others(&files)?;
    let listing = Listing { address: without_secrets(address), files };
    let path = listing_path(folder);
    let json = serde_json::to_vec(&listing).map_err(std::io::Error::from).map_err(RemoteError::io(&path))?;
    write_atomic(&path, &json).map_err(RemoteError::io(&path))?;
    copy_missing(store, copies, &listing, folder, progress).await?;
    Ok(listing.files)
}

async fn copy_missing(
    store: &Store,
    copies: &Copies,
    listing: &Listing,
    folder: &Path,
    progress: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<(), RemoteError> {
    let missing = copies.missing(&listing.files);
    let sum = |files: &[&RemoteFile]| files.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
    let bytes = sum(&listing.files.iter().collect::<Vec<_>>());
    let partial = missing.iter().map(|file| copies.partial_bytes(file)).fold(0, u64::saturating_add);
    let needed = sum(&missing).saturating_sub(partial);
    if let Some(free) =
        free_bytes(folder).filter(|free| needed.saturating_add(RESERVE_BYTES) > *free && needed > 0)
    {
        let (address, folder) = (listing.address.clone(), folder.to_owned());
        return Err(RemoteError::Space { address, folder, needed, free });
    }
    let done = AtomicU64::new(bytes - sum(&missing));
    let requests = (REQUESTS / missing.len().max(1)).max(1);
    let done = &done;
    let work = stream::iter(missing)
        .map(|file| copies.copy(store, file, requests, done))
        .buffer_unordered(REQUESTS)
        .try_collect::<Vec<()>>();
    let report =
        || progress(Progress { done: done.load(Ordering::Relaxed), bytes, files: listing.files.len() });
    run_until(work, report).await.map(drop)
}

/// Runs `work`, and calls `progress` meanwhile.
async fn run_until<T>(
    work: impl Future<Output = Result<T, RemoteError>>,
    progress: impl Fn() -> bool,
) -> Result<T, RemoteError> {
    if !progress() {
        return Err(RemoteError::Cancelled);
    }
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            result = &mut work => return result,
            _ = ticks.tick() => {
                if !progress() {
                    return Err(RemoteError::Cancelled);
                }
            }
        }
    }
}

fn folder(address: &str, options: &FetchOptions) -> PathBuf {
    let value = |name: &str| {
        options.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    };
    let is_s3 = address.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("s3"));
    let endpoint = value("AWS_ENDPOINT_URL_S3").or_else(|| value("AWS_ENDPOINT_URL"));
    let endpoint = endpoint.or_else(|| value("AWS_ENDPOINT")).filter(|_| is_s3);
    options.folder.join("remote").join(folder_name(address, endpoint))
}

fn listing_path(folder: &Path) -> PathBuf {
    folder.join("listing.json")
}

fn read_listing(folder: &Path) -> Option<Listing> {
    serde_json::from_slice(&fs::read(listing_path(folder)).ok()?).ok()
}

fn age(path: &Path) -> Option<Duration> {
    SystemTime::now().duration_since(fs::metadata(path).ok()?.modified().ok()?).ok()
}

fn path_of(copies: &Copies, files: &[RemoteFile]) -> PathBuf {
    match files {
        [file] if !file.name.contains('/') => copies.files().join(&file.name),
        _ => copies.files(),
    }
}

/// Waits for other processes that copy the same URL.
fn lock(
    folder: &Path,
    address: &str,
    progress: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<File, RemoteError> {
    let path = folder.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(RemoteError::io(&path))?;
    let mut is_told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::Error(error)) => return Err(RemoteError::io(&path)(error)),
            Err(fs::TryLockError::WouldBlock) => {
                if !is_told {
                    tracing::info!("waiting for another process that copies {}", without_secrets(address));
                    is_told = true;
                }
                if !progress(Progress { done: 0, bytes: 0, files: 0 }) {
                    return Err(RemoteError::Cancelled);
                }
                std::thread::sleep(TICK);
            }
        }
    }
}
