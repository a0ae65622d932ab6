//! stats.jsonl read as it grows, and its lines as server-sent events.
//!
//! An event's id is `STEP-K`, the K-th line of that step. Line numbers would not do: a resumed run drops the lines after its
//! checkpoint and writes them again, and one that was interrupted holds a checkpoint's line more. Steps come again exactly as
//! they were, so whoever brings back the id of the last event it saw goes on behind it, and sees no step twice.

use crate::event::Event;
use axum::body::Bytes;
use std::fmt::{self, Write};
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

/// Bytes read at once; also more than any line.
const BLOCK: usize = 64 * 1024;

/// Where an event stands in a run: its step, and which of the step's lines it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    step: u64,
    line: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.step, self.line)
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (step, line) = text.split_once('-')?;
            Some(Self { step: step.parse().ok()?, line: line.parse().ok()? })
        };
        parse().ok_or_else(|| format!("{text:?} is not the id of an event, expected STEP-K"))
    }
}

/// Some events one after the other, as they are sent. Clones share the bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    /// Each event's id, and where it begins.
    starts: Vec<(Id, usize)>,
    bytes: Bytes,
}

impl Block {
    pub(crate) fn last(&self) -> Option<Id> {
        self.starts.last().map(|(id, _)| *id)
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The events behind `shown`.
    pub(crate) fn behind(&self, shown: Option<Id>) -> Bytes {
        let at = self.starts.partition_point(|(id, _)| Some(*id) <= shown);
        self.bytes.slice(self.starts.get(at).map_or(self.bytes.len(), |(_, start)| *start)..)
    }
}

/// Reads stats.jsonl as it grows, also across a resumed run's replacement of it.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    /// Which file was read, and how far.
    file: Option<Identity>,
    offset: u64,
    /// The line read last, shown or not.
    last: Option<Id>,
    /// The line shown last.
    shown: Option<Id>,
}

impl Tail {
    pub(crate) fn new(path: PathBuf, after: Option<Id>) -> Self {
        Self { path, file: None, offset: 0, last: None, shown: after }
    }

    /// The line shown last, or the one that was said to have been.
    pub(crate) fn shown(&self) -> Option<Id> {
        self.shown
    }

    /// `id` was shown by someone else.
    pub(crate) fn skip(&mut self, id: Id) {
        self.shown = self.shown.max(Some(id));
    }

    /// One that stands at the same place of the file and has shown what stands before it.
    pub(crate) fn here(&self) -> Self {
        Self { shown: self.last, ..self.clone() }
    }

    /// The next lines, from at most one block of the file; and whether there may be more at once.
    pub(crate) fn read(&mut self) -> io::Result<(Block, bool)> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Block::default(), false)),
            file => file?,
        };
        let metadata = file.metadata()?;
        let identity = Some(Identity::of(&metadata));
        if identity != self.file || metadata.len() < self.offset {
            (self.file, self.offset, self.last) = (identity, 0, None);
        }
        let mut read = Vec::new();
        if metadata.len() > self.offset {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(BLOCK as u64).read_to_end(&mut read)?;
        }
        // A line that is being written is left for the next time.
        let whole = read.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole == 0 && read.len() == BLOCK {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than any event"));
        }
        self.offset += whole as u64;
        let (mut starts, mut text) = (Vec::new(), String::new());
        for line in read[..whole].split(|&byte| byte == b'\n') {
            self.line(line, &mut starts, &mut text);
        }
        Ok((Block { starts, bytes: text.into() }, read.len() == BLOCK))
    }

    /// Adds a line of the file to what is shown, unless it was shown before or is no event.
    fn line(&mut self, line: &[u8], starts: &mut Vec<(Id, usize)>, out: &mut String) {
        let Ok(text) = std::str::from_utf8(line) else { return };
        let Ok(event) = serde_json::from_str::<Event>(text) else { return };
        let step = event.step();
        let line = self.last.filter(|last| last.step == step).map_or(0, |last| last.line + 1);
        let id = Id { step, line };
        self.last = Some(id);
        if Some(id) <= self.shown {
            return;
        }
        self.shown = Some(id);
        starts.push((id, out.len()));
        // Writing to a String does not fail.
        let _ = write!(out, "id: {id}\nevent: {}\ndata: {text}\n\n", kind(&event));
    }
}

/// As it stands in the file.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Step(_) => "step",
        Event::Sample { .. } => "sample",
        Event::Checkpoint { .. } => "checkpoint",
        Event::Alarm { .. } => "alarm",
    }
}

/// Tells a file from one that replaced it under its name. A file's number is given again once it is gone, hence the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    number: u64,
    created: Option<SystemTime>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let number = 0;
        Self { number, created: metadata.created().ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn alarm(step: u64, message: &str) -> String {
        format!(r#"{{"event":"alarm","step":{step},"alarm":"collapse","message":"{message}"}}"#) + "\n"
    }

    fn ids(tail: &mut Tail) -> Vec<String> {
        tail.read().unwrap().0.starts.iter().map(|(id, _)| id.to_string()).collect()
    }

    #[test]
    fn a_tail_goes_on_behind_what_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.jsonl");
        let mut tail = Tail::new(path.clone(), None);
        assert!(ids(&mut tail).is_empty(), "no file yet");
        let before = [alarm(5, "a"), alarm(5, "b"), alarm(10, "c"), alarm(15, "d")].concat();
        fs::write(&path, before.clone() + "{\"event\":\"al").unwrap();
        assert_eq!(ids(&mut tail), ["5-0", "5-1", "10-0", "15-0"]);
        assert!(ids(&mut tail).is_empty());
        // A resumed run cuts the file at step 10, adds the line of an interruption and comes back to 15: by another file.
        let cut = [alarm(5, "a"), alarm(5, "b"), alarm(10, "c"), alarm(10, "checkpoint")].concat();
        fs::write(folder.path().join("new"), cut.clone() + &alarm(15, "d") + &alarm(20, "e")).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(ids(&mut tail), ["20-0"]);
        for (after, expected) in [
            ("5-0", vec!["5-1", "10-0", "10-1", "15-0", "20-0"]),
            ("10-0", vec!["10-1", "15-0", "20-0"]),
            ("12-7", vec!["15-0", "20-0"]),
            ("20-0", vec![]),
        ] {
            let after = after.parse().unwrap();
            assert_eq!(ids(&mut Tail::new(path.clone(), Some(after))), expected);
        }
        // More than one block.
        let long: String = (0..2000).map(|step| alarm(step, &"x".repeat(100))).collect();
        fs::write(&path, long).unwrap();
        let (mut tail, mut seen) = (Tail::new(path, None), 0);
        loop {
            let (block, more) = tail.read().unwrap();
            seen += block.starts.len();
            if !more {
                break;
            }
        }
        assert_eq!(seen, 2000);
        for text in ["", "5", "a-0", "5-", "-1-0", "5-0-0"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_block_is_sent_from_any_event_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.jsonl");
        fs::write(&path, [alarm(5, "a"), alarm(5, "b"), alarm(10, "c")].concat()).unwrap();
        let block = Tail::new(path, None).read().unwrap().0;
        let whole = String::from_utf8(block.bytes().to_vec()).unwrap();
        for (shown, begins, events) in [
            (None, "id: 5-0\n", 3),
            (Some("5-0"), "id: 5-1\n", 2),
            (Some("7-0"), "id: 10-0\n", 1),
            (Some("10-0"), "", 0),
        ] {
            let rest = block.behind(shown.map(|id| id.parse().unwrap()));
            let rest = std::str::from_utf8(&rest).unwrap();
            assert!(rest.starts_with(begins) && whole.ends_with(rest), "{rest}");
            assert_eq!(rest.matches("\n\n").count(), events, "{rest}");
        }
        assert!(whole.starts_with("id: 5-0\nevent: alarm\ndata: {\"event\":\"alarm\""), "{whole}");
    }
}
