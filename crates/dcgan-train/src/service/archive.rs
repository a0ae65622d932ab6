//! A MODEL folder as a streamed zip: a slow client holds a few blocks in memory, not the whole model.

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

/// The files of a MODEL folder. A checkpoint has more, which only training needs.
const FILES: [&str; 4] = ["config.json", "generator.safetensors", "discriminator.safetensors", "README.md"];
const BLOCK: usize = 64 * 1024;
/// Blocks queued for the client.
const QUEUED_BLOCKS: usize = 4;
/// Time in which the client must accept a block.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts to open the files: a checkpoint may be replaced meanwhile.
const ATTEMPTS: usize = 3;

/// Opens the files of a run's best checkpoint. They stay readable if the checkpoint is removed.
pub(crate) fn open(run: &Path) -> io::Result<Vec<(&'static str, File)>> {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..ATTEMPTS {
        let Some(folder) = models::best_checkpoint(run) else { return Err(io::ErrorKind::NotFound.into()) };
        match FILES.iter().map(|name| Ok((*name, File::open(folder.join(name))?))).collect() {
            Ok(files) => return Ok(files),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

/// A response body with `files` as a zip. Equal files give equal bytes.
///
/// A dedicated thread writes it at the client's speed, so that the blocking threads stay free for other requests.
/// `permit` is released at the end.
///
/// # Errors
/// The thread cannot be spawned.
pub(crate) fn zip(files: Vec<(&'static str, File)>, permit: OwnedSemaphorePermit) -> io::Result<Body> {
    let (sender, receiver) = mpsc::channel(QUEUED_BLOCKS);
    let handle = Handle::current();
    std::thread::Builder::new().name("dcgan-zip".into()).spawn(move || {
        let out = ChannelWriter { sender, block: Vec::with_capacity(BLOCK), handle };
        // A client that disconnected is not an error of the service; on other errors the body is cut short.
        if let Err(error) = write_zip(files, out) {
            tracing::debug!(%error, "model download incomplete");
        }
        drop(permit);
    })?;
    Ok(Body::from_stream(futures_util::stream::unfold(receiver, async |mut receiver| {
        let block: io::Result<Bytes> = receiver.recv().await?;
        Some((block, receiver))
    })))
}

fn write_zip(files: Vec<(&'static str, File)>, out: ChannelWriter) -> io::Result<()> {
    let mut out = out;
    let mut zip = ZipWriter::new_stream(&mut out);
    // Weights do not compress.
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
            // The body must not look complete.
            let _ = out.send(Err(io::Error::new(error.kind(), "the model cannot be read")));
            Err(error)
        }
    }
}

/// Writes into a channel, block by block.
struct ChannelWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    block: Vec<u8>,
    handle: Handle,
}

impl ChannelWriter {
    fn send(&self, block: io::Result<Bytes>) -> io::Result<()> {
        // The timeout is created inside the runtime, whose timer it needs.
        let send = async { tokio::time::timeout(SEND_TIMEOUT, self.sender.send(block)).await };
        let sent = self.handle.block_on(send);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for ChannelWriter {
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
