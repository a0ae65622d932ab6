//! Copies of files: written beside their final name, and renamed when they are complete.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dcgan_base::digest::Digest;
use dcgan_base::files::sync_names;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::error::RemoteError;
use crate::store::{RemoteFile, Store};

/// Bytes of a request.
pub(crate) const CHUNK_BYTES: u64 = 4 << 20;

/// Bytes between two syncs of a file: what a power failure costs at most.
const SYNC_BYTES: u64 = 256 << 20;

/// The folder of a copy.
#[derive(Debug)]
pub(crate) struct Copies {
    folder: PathBuf,
}

/// A line of the record of complete files.
#[derive(Debug, Serialize, Deserialize)]
struct Copied {
    name: String,
    bytes: u64,
    version: String,
}

impl Copies {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where the files are.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    fn record(&self) -> PathBuf {
        self.folder.join("copied.jsonl")
    }

    /// Where a file is while it is copied. Another version has another name.
    fn partial(&self, file: &RemoteFile) -> PathBuf {
        let key = Digest::default().field(&file.name).field(&file.version).number(file.bytes).hex();
        self.folder.join("partial").join(key.get(..32).unwrap_or(&key))
    }

    /// Bytes of a file that are here although it is not complete.
    pub(crate) fn partial_bytes(&self, file: &RemoteFile) -> u64 {
        fs::metadata(self.partial(file)).map_or(0, |metadata| metadata.len()).min(file.bytes)
    }

    /// The files that are not here in their version.
    pub(crate) fn missing<'a>(&self, files: &'a [RemoteFile]) -> Vec<&'a RemoteFile> {
        let mut copied = std::collections::HashMap::new();
        if let Ok(file) = File::open(self.record()) {
            // The last line may be incomplete.
            let lines = BufReader::new(file).lines().map_while(Result::ok);
            for line in lines.filter_map(|line| serde_json::from_str::<Copied>(&line).ok()) {
                copied.insert(line.name, (line.bytes, line.version));
            }
        }
        let root = self.files();
        let is_here = |file: &RemoteFile| {
            let recorded = copied.get(&file.name);
            recorded.is_some_and(|(bytes, version)| *bytes == file.bytes && *version == file.version)
                && fs::metadata(root.join(&file.name))
                    .is_ok_and(|found| found.is_file() && found.len() == file.bytes)
        };
        files.iter().filter(|file| !is_here(file)).collect()
    }

    /// Removes files that are no longer at the URL, and partial files of other versions.
    pub(crate) fn remove_others(&self, files: &[RemoteFile]) -> Result<(), RemoteError> {
        let root = self.files();
        let mut kept: std::collections::HashSet<PathBuf> = std::collections::HashSet::new();
        for file in files {
            kept.insert(self.partial(file));
            kept.extend(root.join(&file.name).ancestors().map(Path::to_owned));
        }
        let mut folders = vec![root, self.folder.join("partial")];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let entry = entry.map_err(RemoteError::io(&folder))?;
                let path = entry.path();
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                match (kept.contains(&path), is_folder) {
                    (true, true) => folders.push(path),
                    (true, false) => {}
                    (false, true) => fs::remove_dir_all(&path).map_err(RemoteError::io(&path))?,
                    (false, false) => fs::remove_file(&path).map_err(RemoteError::io(&path))?,
                }
            }
        }
        Ok(())
    }

    /// Copies one file with `requests` at once, from where it was interrupted. `done` counts the bytes.
    pub(crate) async fn copy(
        &self,
        store: &Store,
        remote: &RemoteFile,
        requests: usize,
        done: &AtomicU64,
    ) -> Result<(), RemoteError> {
        let partial = self.partial(remote);
        let io = |error| RemoteError::io(&partial)(error);
        make_folder(&partial)?;
        let file = OpenOptions::new().create(true).append(true).open(&partial).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        done.fetch_add(length, Ordering::Relaxed);
        let mut part = Part { path: &partial, file, done, length, unsynced: 0 };
        if length > remote.bytes {
            part.restart()?;
        }
        let length = part.length;
        if remote.bytes <= CHUNK_BYTES && length == 0 {
            // Without a range: the one way that all servers know.
            copy_whole(store, remote, &mut part).await?;
        } else {
            let starts = (length..remote.bytes).step_by(usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX));
            let chunks = starts.map(|start| start..remote.bytes.min(start + CHUNK_BYTES));
            let mut chunks = std::pin::pin!(
                stream::iter(chunks)
                    .map(|range| async move {
                        let bytes = store.get(remote, Some(range.clone())).await?;
                        let start: Vec<u8> =
                            Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
                        let joined = bytes.try_fold(start, |mut all, part| async move {
                            all.extend_from_slice(part.as_ref());
                            Ok(all)
                        });
                        joined.await.map_err(|error| store.error(&remote.location, &error))
                    })
                    .buffered(requests)
            );
            let mut is_first = true;
            while let Some(chunk) = chunks.next().await {
                match chunk {
                    Ok(bytes) => part.write(&bytes)?,
                    // A server without ranges: the file comes again from its beginning.
                    Err(RemoteError::Store { .. }) if is_first => {
                        copy_whole(store, remote, &mut part).await?;
                        break;
                    }
                    Err(error) => return Err(error),
                }
                is_first = false;
            }
        }
        part.file.sync_data().map_err(io)?;
        let length = part.file.metadata().map_err(io)?.len();
        if length != remote.bytes {
            // Never renamed; the next call starts the file anew.
            fs::remove_file(&partial).map_err(io)?;
            let problem = format!("{length} bytes came, expected {}", remote.bytes);
            return Err(RemoteError::Store { address: remote.location.clone(), problem, fix: "; try again" });
        }
        let path = self.files().join(&remote.name);
        make_folder(&path)?;
        fs::rename(&partial, &path).map_err(RemoteError::io(&path))?;
        if let Some(folder) = path.parent() {
            sync_names(folder).map_err(RemoteError::io(folder))?;
        }
        let copied =
            Copied { name: remote.name.clone(), bytes: remote.bytes, version: remote.version.clone() };
        let record = self.record();
        let line =
            serde_json::to_string(&copied).map_err(std::io::Error::from).map_err(RemoteError::io(&record))?;
        let mut file =
            OpenOptions::new().create(true).append(true).open(&record).map_err(RemoteError::io(&record))?;
        // The line break in front ends a line that an interruption cut.
        file.write_all(format!("\n{line}\n").as_bytes()).map_err(RemoteError::io(&record))
    }
}

/// A file that is being copied.
struct Part<'a> {
    path: &'a Path,
    file: File,
    /// Bytes of all files that are here.
    done: &'a AtomicU64,
    length: u64,
    unsynced: u64,
}

impl Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RemoteError> {
        self.file.write_all(bytes).map_err(RemoteError::io(self.path))?;
        let count = bytes.len() as u64;
        self.done.fetch_add(count, Ordering::Relaxed);
        self.length += count;
        self.unsynced += count;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data().map_err(RemoteError::io(self.path))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Drops what is here.
    fn restart(&mut self) -> Result<(), RemoteError> {
        self.file.set_len(0).map_err(RemoteError::io(self.path))?;
        self.done.fetch_sub(self.length, Ordering::Relaxed);
        self.length = 0;
        Ok(())
    }
}

/// Copies a file in one request. What is here is dropped once the server answers.
async fn copy_whole(store: &Store, remote: &RemoteFile, part: &mut Part<'_>) -> Result<(), RemoteError> {
    let mut bytes = store.get(remote, None).await?;
    part.restart()?;
    while let Some(bytes) = bytes.next().await {
        let bytes = bytes.map_err(|error| store.error(&remote.location, &error))?;
        if part.length + bytes.as_ref().len() as u64 > remote.bytes {
            break;
        }
        part.write(bytes.as_ref())?;
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), RemoteError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(RemoteError::io(folder))
}
