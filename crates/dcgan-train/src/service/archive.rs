//! A MODEL folder as a zip, streamed: a slow reader holds a few blocks in memory, not the model.

use super::models;
use axum::body::{Body, Bytes};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The files of a MODEL folder; a checkpoint holds more, which only training needs.
const FILES: [&str; 4] = ["config.json", "generator.safetensors", "discriminator.safetensors", "README.md"];
const BLOCK: usize = 64 * 1024;
/// Blocks that wait for the reader, and how long one may wait.
const BLOCKS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);
/// A checkpoint may be replaced while its files are opened.
const TRIES: usize = 3;

/// The files of the best checkpoint of a run, opened: they can be read to their end even when the checkpoint is removed.
pub(crate) fn open(run: &Path) -> io::Result<Vec<(&'static str, File)>> {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..TRIES {
        let Some(folder) = models::best(run) else { return Err(io::ErrorKind::NotFound.into()) };
        match FILES.iter().map(|name| Ok((*name, File::open(folder.join(name))?))).collect() {
            Ok(files) => return Ok(files),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

/// The body of an answer that holds `files` as a zip. Equal files give equal bytes.
///
/// A thread of its own makes it, for as long as its reader takes: those that other requests wait for stay free. `permit` is
/// given back at the end.
///
/// # Errors
/// The thread cannot be made.
pub(crate) fn zip(files: Vec<(&'static str, File)>, permit: OwnedSemaphorePermit) -> io::Result<Body> {
    let (sender, receiver) = mpsc::channel(BLOCKS);
    let handle = Handle::current();
    std::thread::Builder::new().name("dcgan-zip".into()).spawn(move || {
        let out = Blocks { sender, block: Vec::with_capacity(BLOCK), handle };
        // A reader that went away is none of the service's business; one that gets an error sees the body break off.
        if let Err(error) = write(files, out) {
            tracing::debug!("a model was not read to its end: {error}");
        }
        drop(permit);
    })?;
    Ok(Body::from_stream(futures_util::stream::unfold(receiver, async |mut receiver| {
        let block: io::Result<Bytes> = receiver.recv().await?;
        Some((block, receiver))
    })))
}

fn write(files: Vec<(&'static str, File)>, out: Blocks) -> io::Result<()> {
    let mut out = out;
    let mut zip = ZipWriter::new_stream(&mut out);
    // Weights do not get smaller.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default());
    let write = || -> io::Result<()> {
        for (name, mut file) in files {
            let large = file.metadata()?.len() > u64::from(u32::MAX);
            zip.start_file(name, options.large_file(large)).map_err(io::Error::from)?;
            let mut block = vec![0; BLOCK];
            loop {
                match file.read(&mut block)? {
                    0 => break,
                    n => zip.write_all(&block[..n])?,
                }
            }
        }
        Ok(())
    };
    let written = write();
    let ended = zip.finish().map(drop).map_err(io::Error::from);
    match written.and(ended).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) => {
            // The body must not look whole.
            let _ = out.send(Err(io::Error::new(error.kind(), "the model could not be read")));
            Err(error)
        }
    }
}

/// Writes blocks into a channel.
struct Blocks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    block: Vec<u8>,
    handle: Handle,
}

impl Blocks {
    fn send(&self, block: io::Result<Bytes>) -> io::Result<()> {
        // The clock is that of the runtime, which is entered first.
        let send = async { tokio::time::timeout(PATIENCE, self.sender.send(block)).await };
        let sent = self.handle.block_on(send);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK - self.block.len();
        let taken = bytes.len().min(room);
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.send(Ok(Bytes::from(block)))
    }
}
