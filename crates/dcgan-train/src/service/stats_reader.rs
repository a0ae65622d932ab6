//! Reads stats.jsonl while it grows, and formats its lines as server-sent events.
//!
//! An event's id is `STEP-K`, the K-th line of that step. Line numbers would not be stable: a resumed run drops the
//! lines after its checkpoint and writes them again, and an interrupted run has an additional checkpoint line. Repeated
//! steps are identical, so a client that reconnects with its last event id continues after it and sees no step twice.

use crate::event::Event;
use axum::body::Bytes;
use std::borrow::Cow;
use std::fmt::{self, Write};
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

/// Bytes of one read; also the limit of a line.
const BLOCK_BYTES: usize = 64 * 1024;

/// Position of an event in a run: its step, and its index among the step's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventId {
    step: u64,
    line: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.step, self.line)
    }
}

impl FromStr for EventId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (step, line) = text.split_once('-')?;
            Some(Self { step: step.parse().ok()?, line: line.parse().ok()? })
        };
        parse().ok_or_else(|| format!("Last-Event-ID is {text:?}, expected STEP-K"))
    }
}

/// Consecutive events in their wire format. Clones share the bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventBlock {
    /// Id and byte offset of each event.
    offsets: Vec<(EventId, usize)>,
    bytes: Bytes,
}

impl EventBlock {
    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub(crate) fn last_id(&self) -> Option<EventId> {
        self.offsets.last().map(|(id, _)| *id)
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The events after `last_sent`.
    pub(crate) fn after(&self, last_sent: Option<EventId>) -> Bytes {
        let index = self.offsets.partition_point(|(id, _)| Some(*id) <= last_sent);
        self.bytes.slice(self.offsets.get(index).map_or(self.bytes.len(), |(_, offset)| *offset)..)
    }
}

/// Follows stats.jsonl, as `tail -F` does: a resumed run replaces the file.
#[derive(Clone, Debug)]
pub(crate) struct StatsReader {
    path: PathBuf,
    /// The file that `offset` refers to.
    file: Option<FileIdentity>,
    offset: u64,
    /// The last event read, sent or skipped.
    last_read: Option<EventId>,
    /// The last event sent to the client.
    last_sent: Option<EventId>,
}

impl StatsReader {
    pub(crate) fn new(path: PathBuf, last_sent: Option<EventId>) -> Self {
        Self { path, file: None, offset: 0, last_read: None, last_sent }
    }

    /// The last event sent, or the one given to [`Self::new`].
    pub(crate) fn last_sent(&self) -> Option<EventId> {
        self.last_sent
    }

    /// Skips the events up to `id`, which were sent from elsewhere.
    pub(crate) fn skip_to(&mut self, id: EventId) {
        self.last_sent = self.last_sent.max(Some(id));
    }

    /// A reader at the same position of the file that has sent everything before it.
    pub(crate) fn fork(&self) -> Self {
        Self { last_sent: self.last_read, ..self.clone() }
    }

    /// Reads the next events, from at most one block of the file, and whether more may be available now.
    ///
    /// # Errors
    /// Errors of the operating system; a line longer than a block.
    pub(crate) fn read(&mut self) -> io::Result<(EventBlock, bool)> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((EventBlock::default(), false));
            }
            file => file?,
        };
        let metadata = file.metadata()?;
        let identity = Some(FileIdentity::of(&metadata));
        if identity != self.file || metadata.len() < self.offset {
            (self.file, self.offset, self.last_read) = (identity, 0, None);
        }
        // Both buffers are allocated once: growing ones leave freed blocks of many sizes in the heap of every thread.
        let unread = usize::try_from(metadata.len().saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(unread.min(BLOCK_BYTES));
        if metadata.len() > self.offset {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(BLOCK_BYTES as u64).read_to_end(&mut bytes)?;
        }
        // An incomplete last line is left for the next read.
        let complete = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if complete == 0 && bytes.len() == BLOCK_BYTES {
            let message = format!("a line is longer than {BLOCK_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.offset += complete as u64;
        // An event has a few dozen bytes more than its line.
        let (mut offsets, mut text) = (Vec::new(), String::with_capacity(complete + complete / 4));
        for line in bytes[..complete].split(|&byte| byte == b'\n') {
            self.format_line(line, &mut offsets, &mut text);
        }
        Ok((EventBlock { offsets, bytes: text.into() }, bytes.len() == BLOCK_BYTES))
    }

    /// Appends the event of a line to `out`, unless it was sent before or the line is not an event.
    fn format_line(&mut self, line: &[u8], offsets: &mut Vec<(EventId, usize)>, out: &mut String) {
        let Ok(text) = std::str::from_utf8(line) else { return };
        let Ok(event) = serde_json::from_str::<Event>(text) else { return };
        let step = event.step();
        let line = self.last_read.filter(|last| last.step == step).map_or(0, |last| last.line + 1);
        let id = EventId { step, line };
        self.last_read = Some(id);
        if Some(id) <= self.last_sent {
            return;
        }
        self.last_sent = Some(id);
        offsets.push((id, out.len()));
        let text = without_folder(text, &event);
        // Writing to a String cannot fail.
        let _ = write!(out, "id: {id}\nevent: {}\ndata: {text}\n\n", event_name(&event));
    }
}

/// The line of an event with the path of its file relative to the run folder: clients do not learn where the service
/// stores its files.
fn without_folder<'a>(line: &'a str, event: &Event) -> Cow<'a, str> {
    let (path, parent) = match event {
        Event::Sample { path, .. } => (path, "samples"),
        Event::Checkpoint { path, .. } => (path, "checkpoints"),
        Event::Step(_) | Event::Metrics { .. } | Event::Alarm { .. } => return line.into(),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let json = |path: &str| serde_json::Value::from(path).to_string();
    if path.is_absolute() {
        line.replacen(&json(&path.to_string_lossy()), &json(&format!("{parent}/{name}")), 1).into()
    } else {
        line.into()
    }
}

/// The value of the key `event` in the file.
fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Step(_) => "step",
        Event::Sample { .. } => "sample",
        Event::Checkpoint { .. } => "checkpoint",
        Event::Metrics { .. } => "metrics",
        Event::Alarm { .. } => "alarm",
    }
}

/// Distinguishes a file from one that replaced it. Inode numbers are reused, hence the creation time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity {
    inode: u64,
    created: Option<SystemTime>,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Self { inode, created: metadata.created().ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn alarm(step: u64, message: &str) -> String {
        format!(r#"{{"event":"alarm","step":{step},"alarm":"collapse","message":"{message}"}}"#) + "\n"
    }

    fn ids(reader: &mut StatsReader) -> Vec<String> {
        reader.read().unwrap().0.offsets.iter().map(|(id, _)| id.to_string()).collect()
    }

    #[test]
    fn a_reader_continues_after_the_last_event_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.jsonl");
        let mut reader = StatsReader::new(path.clone(), None);
        assert!(ids(&mut reader).is_empty(), "no file yet");
        let before = [alarm(5, "a"), alarm(5, "b"), alarm(10, "c"), alarm(15, "d")].concat();
        fs::write(&path, before.clone() + "{\"event\":\"al").unwrap();
        assert_eq!(ids(&mut reader), ["5-0", "5-1", "10-0", "15-0"]);
        assert!(ids(&mut reader).is_empty());
        // A resumed run replaces the file: cut at step 10, with an additional checkpoint line, and then step 15 again.
        let cut = [alarm(5, "a"), alarm(5, "b"), alarm(10, "c"), alarm(10, "checkpoint")].concat();
        fs::write(folder.path().join("new"), cut.clone() + &alarm(15, "d") + &alarm(20, "e")).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(ids(&mut reader), ["20-0"]);
        for (after, expected) in [
            ("5-0", vec!["5-1", "10-0", "10-1", "15-0", "20-0"]),
            ("10-0", vec!["10-1", "15-0", "20-0"]),
            ("12-7", vec!["15-0", "20-0"]),
            ("20-0", vec![]),
        ] {
            let after = after.parse().unwrap();
            assert_eq!(ids(&mut StatsReader::new(path.clone(), Some(after))), expected);
        }
        // More than one block.
        let long: String = (0..2000).map(|step| alarm(step, &"x".repeat(100))).collect();
        fs::write(&path, long).unwrap();
        let (mut reader, mut count) = (StatsReader::new(path, None), 0);
        loop {
            let (block, more) = reader.read().unwrap();
            count += block.offsets.len();
            if !more {
                break;
            }
        }
        assert_eq!(count, 2000);
        for text in ["", "5", "a-0", "5-", "-1-0", "5-0-0"] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }

    #[test]
    fn events_do_not_name_folders_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.jsonl");
        let sample = |path: &str| {
            format!(r#"{{"event":"sample","step":5,"images":80,"path":"{path}","diversity":0.5}}"#)
        };
        let checkpoint = |path: &str| {
            format!(r#"{{"event":"checkpoint","step":9,"path":"{path}","frechet":null,"best":false}}"#)
        };
        for (line, expected) in [
            (sample(r#"/a \"b\"/runs/1/samples/00000080.png"#), sample("samples/00000080.png")),
            (sample("samples/00000080.png"), sample("samples/00000080.png")),
            (checkpoint("/store/runs/1/checkpoints/00000009"), checkpoint("checkpoints/00000009")),
            (checkpoint("checkpoints/00000009"), checkpoint("checkpoints/00000009")),
        ] {
            fs::write(&path, line + "\n").unwrap();
            let block = StatsReader::new(path.clone(), None).read().unwrap().0;
            let text = std::str::from_utf8(block.bytes()).unwrap().to_owned();
            assert!(text.contains(&format!("data: {expected}\n")), "{text}");
        }
    }

    #[test]
    fn a_block_can_be_sent_from_any_event_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.jsonl");
        fs::write(&path, [alarm(5, "a"), alarm(5, "b"), alarm(10, "c")].concat()).unwrap();
        let block = StatsReader::new(path, None).read().unwrap().0;
        let whole = String::from_utf8(block.bytes().to_vec()).unwrap();
        for (last_sent, start, events) in [
            (None, "id: 5-0\n", 3),
            (Some("5-0"), "id: 5-1\n", 2),
            (Some("7-0"), "id: 10-0\n", 1),
            (Some("10-0"), "", 0),
        ] {
            let rest = block.after(last_sent.map(|id| id.parse().unwrap()));
            let rest = std::str::from_utf8(&rest).unwrap();
            assert!(rest.starts_with(start) && whole.ends_with(rest), "{rest}");
            assert_eq!(rest.matches("\n\n").count(), events, "{rest}");
        }
        assert!(whole.starts_with("id: 5-0\nevent: alarm\ndata: {\"event\":\"alarm\""), "{whole}");
    }
}
