//! The cache of long experiments: feature files and results in a folder, under names that are hashes of all that they
//! depend on. An interrupted experiment finds there what it had computed.
//!
//! Features of many images are written in parts, which are joined when all are there. Every file
//! has a checksum; damaged files are computed again.

use crate::experiment::{ExperimentError, hex, write_file};
use crate::extract::{BATCH, Extractor};
use crate::features::{Features, Precision};
use crate::file::{self, FileError, FileSpec, Writer};
use crate::origin::{self, hashed_form};
use crate::subset::Subset;
use dcgan_base::Cancel;
use dcgan_base::files::write_atomic;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Images of a part: whole minibatches, so that parts have the features of the whole.
const PART: usize = 64 * BATCH;

/// Raised when the same network would give other features.
pub(crate) const FORMAT: u32 = 1;
/// Time between two looks at a lock that another process holds.
const WAIT: Duration = Duration::from_millis(200);
/// Rows copied at a time when parts are joined.
const COPY_ROWS: usize = 1024;

/// Path of the file of `origin`: a hash of it.
fn path_of(folder: &Path, origin: &Value, extension: &str) -> PathBuf {
    folder.join(format!("{}.{extension}", hex(hashed_form(origin.clone()).to_string().as_bytes())))
}

/// A folder of cached features and results.
#[derive(Clone, Debug)]
pub(crate) struct Cache<'a> {
    pub(crate) folder: &'a Path,
}

impl Cache<'_> {
    /// Features of `origin`, of `shape` (images, width), if a file has them; damage is logged.
    pub(crate) fn features(&self, origin: &Value, shape: (usize, usize)) -> Option<Features> {
        let path = path_of(self.folder, origin, "safetensors");
        if !path.exists() {
            return None;
        }
        match read(&path, origin, shape) {
            Ok(features) => {
                tracing::info!("features from {}", path.display());
                Some(features)
            }
            Err(problem) => {
                tracing::warn!("{}: {problem}: extracted again", path.display());
                None
            }
        }
    }

    /// Extracts the features of `subset` into the cache, continuing after the parts that are there.
    pub(crate) fn extract(
        &self,
        extractor: &mut Extractor,
        subset: &Subset,
        storage: Precision,
        origin: &Value,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Features, ExperimentError> {
        let path = path_of(self.folder, origin, "safetensors");
        let n = subset.rows.len();
        let width = origin["width"].as_u64().and_then(|width| usize::try_from(width).ok()).unwrap_or(0);
        let (_lock, has_waited) = Lock::acquire(path.with_extension("lock"));
        if has_waited && let Some(features) = self.features(origin, (n, width)) {
            return Ok(features);
        }
        let mut write = |subset: &Subset, path: &Path, origin: &Value, progress: &mut dyn FnMut(usize)| {
            let target = (path, origin.to_string());
            write_file(extractor, subset, (storage, true), target, &Cancel::new(), progress)
        };
        if n <= PART {
            write(subset, &path, origin, progress)?;
            return Ok(file::open(&path)?.features);
        }
        let mut parts = Vec::new();
        for first in (0..n).step_by(PART) {
            let end = (first + PART).min(n);
            let rows = subset.with_rows(subset.rows.start + first..subset.rows.start + end);
            let mut part_origin = origin.clone();
            part_origin["part"] = json!([first, end]);
            let part = path_of(self.folder, &part_origin, "part");
            if part.exists() && read(&part, &part_origin, (end - first, width)).is_ok() {
                progress(end);
            } else {
                write(&rows, &part, &part_origin, &mut |done| progress(first + done))?;
            }
            parts.push(part);
        }
        join(&parts, &path, subset, storage, origin)?;
        for part in &parts {
            fs::remove_file(part).map_err(|source| FileError::Io { path: part.clone(), source })?;
        }
        Ok(file::open(&path)?.features)
    }

    /// The value that was stored for `origin`, such as a result or the state of a search; damage is logged.
    pub(crate) fn value<T: DeserializeOwned>(&self, origin: &Value) -> Option<T> {
        let path = path_of(self.folder, origin, "json");
        let bytes = fs::read(&path).ok()?;
        let read = || -> Option<T> {
            let mut found: Value = serde_json::from_slice(&bytes).ok()?;
            let value = found["value"].take();
            let is_whole = found["sha256"] == hex(value.to_string().as_bytes()) && found["origin"] == *origin;
            is_whole.then(|| serde_json::from_value(value).ok()).flatten()
        };
        let value = read();
        match &value {
            Some(_) => tracing::info!("result from {}", path.display()),
            None => tracing::warn!("{} is damaged: computed again", path.display()),
        }
        value
    }

    /// Stores a value.
    pub(crate) fn store(&self, origin: &Value, value: &impl Serialize) -> Result<(), FileError> {
        let path = path_of(self.folder, origin, "json");
        let value = json!(value);
        let sha256 = hex(value.to_string().as_bytes());
        let text = json!({ "origin": origin, "value": value, "sha256": sha256 }).to_string();
        write_atomic(&path, text.as_bytes()).map_err(|source| FileError::Io { path, source })
    }
}

/// Held while features are extracted into the cache: another process that needs them waits.
struct Lock {
    path: PathBuf,
    _file: fs::File,
}

impl Lock {
    /// Waits for another process that holds the lock; also returns whether there was one. `None` where the file system
    /// has no locks.
    fn acquire(path: PathBuf) -> (Option<Self>, bool) {
        let Ok(file) = fs::File::options().create(true).truncate(false).write(true).open(&path) else {
            return (None, false);
        };
        let mut has_waited = false;
        loop {
            match file.try_lock() {
                Ok(()) => return (Some(Self { path, _file: file }), has_waited),
                Err(fs::TryLockError::Error(_)) => return (None, has_waited),
                Err(fs::TryLockError::WouldBlock) => {
                    if !has_waited {
                        tracing::info!("another process extracts the same features: waiting for it");
                    }
                    has_waited = true;
                    std::thread::sleep(WAIT);
                }
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A file that stays is taken by the next process.
        let _ = fs::remove_file(&self.path);
    }
}

/// The features of a cached file, or the problem with it.
fn read(path: &Path, origin: &Value, shape: (usize, usize)) -> Result<Features, String> {
    let found = file::open(path).map_err(|e| e.to_string())?;
    let found_shape = (found.features.len(), found.features.width());
    if origin::parse(found.origin.as_deref()) != *origin || found_shape != shape {
        return Err("origin or shape does not match the file name".to_owned());
    }
    if !file::is_whole(path).map_err(|e| e.to_string())? {
        return Err("the checksum does not match".to_owned());
    }
    // Files of earlier versions have no checksum.
    found.features.check_finite().map_err(|e| e.to_string())?;
    Ok(found.features)
}

/// Joins the features of `parts` to one file.
fn join(
    parts: &[PathBuf],
    path: &Path,
    subset: &Subset,
    storage: Precision,
    origin: &Value,
) -> Result<(), ExperimentError> {
    let opened =
        parts.iter().map(|part| Ok(file::open(part)?.features)).collect::<Result<Vec<_>, FileError>>()?;
    let rows = opened.iter().map(Features::len).sum();
    let width = opened.first().map_or(0, Features::width);
    let labels = subset.data.labels().and_then(|labels| labels.get(subset.rows.clone()));
    let spec = FileSpec {
        storage,
        shape: (rows, width),
        labels,
        class_names: subset.data.class_names(),
        origin: &origin.to_string(),
        checksum: true,
    };
    let mut writer = Writer::create(path, &spec)?;
    let mut buffer = Vec::new();
    for features in &opened {
        for first in (0..features.len()).step_by(COPY_ROWS) {
            let end = (first + COPY_ROWS).min(features.len());
            writer.write(features.block(first..end, &mut buffer))?;
        }
    }
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extractions_of_the_same_features_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let (first, has_waited) = Lock::acquire(path.clone());
        assert!(first.is_some() && !has_waited);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::acquire(path.clone()));
            std::thread::sleep(2 * WAIT);
            assert!(!second.is_finished());
            drop(first);
            let (second, has_waited) = second.join().unwrap();
            assert!(second.is_some() && has_waited);
        });
        assert!(!path.exists());
    }
}
