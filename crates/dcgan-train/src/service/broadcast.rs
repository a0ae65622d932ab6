//! Broadcast of a job's newest events to its event streams.
//!
//! A stream first reads stats.jsonl to its end and then subscribes to the job's broadcast. One task polls the file for
//! all subscribers and buffers the newest events in their wire format. A subscriber that falls behind the buffer reads
//! the file again. An additional stream therefore costs little, and a slow one does not grow the buffer.

use super::AppState;
use super::stats_reader::{EventBlock, EventId, StatsReader};
use super::store::StoreError;
use axum::body::Bytes;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Bytes of events in the buffer.
const BUFFER_BYTES: usize = 256 * 1024;
/// Shortest interval between two reads of a file: the events of a fast job are sent in batches.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// Poll interval without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The newest events of a job.
#[derive(Debug, Default)]
pub(crate) struct EventBuffer {
    blocks: VecDeque<EventBlock>,
    /// The last event that is no longer in the buffer.
    evicted: Option<EventId>,
    /// The final state of the job; none while more events may come.
    final_state: Option<&'static str>,
    /// The file cannot be read.
    failed: bool,
}

/// The next item for a subscriber.
#[derive(Debug, PartialEq)]
pub(crate) enum NextEvents {
    /// New events, and the id of the last one.
    Events(Bytes, EventId),
    /// No new events yet.
    Pending,
    /// The next events are no longer in the buffer; they must be read from the file.
    Evicted,
    /// No more events: the job is in this final state.
    Ended(&'static str),
    /// The file cannot be read.
    Failed,
}

impl EventBuffer {
    /// The events after `last_sent`.
    pub(crate) fn after(&self, last_sent: Option<EventId>) -> NextEvents {
        if self.failed {
            return NextEvents::Failed;
        }
        if last_sent < self.evicted {
            return NextEvents::Evicted;
        }
        let block = self.blocks.iter().find(|block| block.last_id() > last_sent);
        match (block.and_then(|block| Some((block, block.last_id()?))), self.final_state) {
            (Some((block, last)), _) => NextEvents::Events(block.after(last_sent), last),
            (None, Some(state)) => NextEvents::Ended(state),
            (None, None) => NextEvents::Pending,
        }
    }

    fn push(&mut self, block: EventBlock) {
        self.blocks.push_back(block);
        let mut bytes: usize = self.blocks.iter().map(|block| block.bytes().len()).sum();
        while bytes > BUFFER_BYTES
            && let Some(oldest) = self.blocks.pop_front()
        {
            bytes -= oldest.bytes().len();
            self.evicted = oldest.last_id();
        }
    }
}

/// The broadcast of one job.
#[derive(Debug)]
pub(crate) struct Broadcast {
    buffer: watch::Sender<EventBuffer>,
    /// Notified when the job has written something.
    written: Notify,
}

impl Broadcast {
    pub(crate) fn subscribe(&self) -> watch::Receiver<EventBuffer> {
        self.buffer.subscribe()
    }
}

/// The broadcasts with subscribers, by job.
#[derive(Debug, Default)]
pub(crate) struct Broadcasts(Mutex<HashMap<String, Weak<Broadcast>>>);

impl Broadcasts {
    /// The broadcast of `job`, which ends when all subscribers have dropped it. A new one starts at the position of
    /// `reader`.
    pub(crate) fn get_or_start(
        &self,
        state: &Arc<AppState>,
        job: &str,
        reader: &StatsReader,
    ) -> Arc<Broadcast> {
        let mut broadcasts = self.lock();
        let is_active = |broadcast: &Arc<Broadcast>| {
            let buffer = broadcast.buffer.borrow();
            buffer.final_state.is_none() && !buffer.failed
        };
        if let Some(broadcast) = broadcasts.get(job).and_then(Weak::upgrade).filter(is_active) {
            return broadcast;
        }
        broadcasts.retain(|_, broadcast| broadcast.strong_count() > 0);
        let reader = reader.fork();
        let buffer = EventBuffer { evicted: reader.last_sent(), ..EventBuffer::default() };
        let broadcast = Arc::new(Broadcast { buffer: watch::Sender::new(buffer), written: Notify::new() });
        broadcasts.insert(job.to_owned(), Arc::downgrade(&broadcast));
        tokio::spawn(run(Arc::clone(state), job.to_owned(), Arc::downgrade(&broadcast), reader));
        broadcast
    }

    /// Tells the broadcast of `job` that the job has written something or changed its state.
    pub(crate) fn notify(&self, job: &str) {
        if let Some(broadcast) = self.lock().get(job).and_then(Weak::upgrade) {
            broadcast.written.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Broadcast>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads new events into the buffer until all subscribers are gone or the job has ended.
async fn run(state: Arc<AppState>, job: String, broadcast: Weak<Broadcast>, reader: StatsReader) {
    let mut reader = reader;
    loop {
        let next_read = Instant::now() + MIN_INTERVAL;
        let result = read_events(&state, &job, reader).await;
        let Some(broadcast) = broadcast.upgrade() else { return };
        let more = match result {
            Ok(read) => {
                reader = read.reader;
                let final_state = read.final_state.filter(|_| !read.more);
                if !read.block.is_empty() || final_state.is_some() {
                    broadcast.buffer.send_modify(|buffer| {
                        if !read.block.is_empty() {
                            buffer.push(read.block);
                        }
                        buffer.final_state = final_state;
                    });
                }
                if final_state.is_some() {
                    return;
                }
                read.more
            }
            Err(error) => {
                tracing::warn!(%job, %error, "cannot read the events");
                broadcast.buffer.send_modify(|buffer| buffer.failed = true);
                return;
            }
        };
        if !more {
            // Keeps the broadcast alive for at most one interval after its last subscriber.
            let _ = tokio::time::timeout(POLL_INTERVAL, broadcast.written.notified()).await;
            tokio::time::sleep_until(next_read).await;
        }
    }
}

/// Result of [`read_events`].
pub(crate) struct EventRead {
    /// The reader, at its new position.
    pub(crate) reader: StatsReader,
    pub(crate) block: EventBlock,
    /// Whether more events may be available now.
    pub(crate) more: bool,
    final_state: Option<&'static str>,
}

/// Reads one block of events and the job's state.
///
/// # Errors
/// Errors of [`StatsReader::read`].
pub(crate) async fn read_events(
    state: &Arc<AppState>,
    job: &str,
    reader: StatsReader,
) -> io::Result<EventRead> {
    let (state, job, mut reader) = (Arc::clone(state), job.to_owned(), reader);
    let read = tokio::task::spawn_blocking(move || {
        // The state is read first: the events of a job that has ended are then all in the file.
        let final_state = match state.store.get(&job) {
            Ok(job) => job.state.is_final().then(|| job.state.name()),
            Err(StoreError::NotFound) => Some("deleted"),
            Err(_) => None,
        };
        let (block, more) = reader.read()?;
        Ok(EventRead { reader, block, more, final_state })
    });
    read.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_buffer_returns_new_events_and_refers_to_the_file_for_evicted_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.jsonl");
        let line = |step: u64| {
            let message = "x".repeat(1000);
            format!(r#"{{"event":"alarm","step":{step},"alarm":"collapse","message":"{message}"}}"#) + "\n"
        };
        fs::write(&path, (0..1000).map(line).collect::<String>()).unwrap();
        let id = |step: u64| Some(format!("{step}-0").parse::<EventId>().unwrap());
        let mut reader = StatsReader::new(path, None);
        let (mut buffer, mut more) = (EventBuffer::default(), true);
        assert_eq!(buffer.after(None), NextEvents::Pending);
        while more {
            let read = reader.read().unwrap();
            buffer.push(read.0);
            more = read.1;
        }
        let bytes: usize = buffer.blocks.iter().map(|block| block.bytes().len()).sum();
        assert!(bytes <= BUFFER_BYTES && bytes > BUFFER_BYTES / 2, "the buffer has {bytes} bytes");
        // From the first event in the buffer, block by block to the end.
        let (mut last_sent, mut sent) = (buffer.evicted, String::new());
        while let NextEvents::Events(events, last) = buffer.after(last_sent) {
            assert!(last_sent < Some(last));
            sent.push_str(std::str::from_utf8(&events).unwrap());
            last_sent = Some(last);
        }
        assert_eq!((last_sent, buffer.after(last_sent)), (id(999), NextEvents::Pending));
        let steps: Vec<&str> = sent.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        let first = 1000 - steps.len();
        assert_eq!(steps, (first..1000).map(|step| format!("{step}-0")).collect::<Vec<_>>());
        assert_eq!(buffer.evicted, id(first as u64 - 1));
        for (last_sent, expected) in [
            (None, NextEvents::Evicted),
            (id(first as u64 - 2), NextEvents::Evicted),
            (id(2000), NextEvents::Pending),
        ] {
            assert_eq!(buffer.after(last_sent), expected, "{last_sent:?}");
        }
        // The end comes after the last event.
        buffer.final_state = Some("done");
        assert_eq!(buffer.after(id(999)), NextEvents::Ended("done"));
        assert!(matches!(buffer.after(id(998)), NextEvents::Events(_, last) if Some(last) == id(999)));
        buffer.failed = true;
        assert_eq!(buffer.after(id(998)), NextEvents::Failed);
    }
}
