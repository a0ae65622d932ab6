//! `GET /v1/jobs/{id}/events`: stats.jsonl as server-sent events.
//!
//! The file is the source, so a reader that is slow or comes late holds one block of it in memory and misses nothing. An event's
//! id is `STEP-K`, the K-th line of that step. Line numbers would not do: a resumed run drops the lines after its checkpoint and
//! writes them again, and one that was interrupted holds a checkpoint's line more. Steps come again exactly as they were, so
//! whoever brings back the id of the last event it saw goes on behind it, and sees no step twice.

use super::Shared;
use super::store::StoreError;
use crate::event::Event;
use axum::response::sse;
use futures_util::Stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Bytes read at once; also more than any line.
const BLOCK: usize = 64 * 1024;
/// Between two looks at a file of which nothing was heard.
const POLL: Duration = Duration::from_secs(1);

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

/// A line of stats.jsonl.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) id: Id,
    /// `step`, `sample`, `checkpoint` or `alarm`.
    kind: String,
    /// As it stands in the file.
    text: String,
}

/// Reads stats.jsonl as it grows, also across a resumed run's replacement of it.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    /// Which file was read, and how far.
    file: u64,
    offset: u64,
    /// The line read last, shown or not.
    last: Option<Id>,
    /// The line shown last.
    shown: Option<Id>,
}

impl Tail {
    pub(crate) fn new(path: PathBuf, after: Option<Id>) -> Self {
        Self { path, file: 0, offset: 0, last: None, shown: after }
    }

    /// The next lines, from at most one block of the file; and whether there may be more at once.
    pub(crate) fn read(&mut self) -> io::Result<(Vec<Line>, bool)> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
            file => file?,
        };
        let metadata = file.metadata()?;
        if identity(&metadata) != self.file || metadata.len() < self.offset {
            (self.file, self.offset, self.last) = (identity(&metadata), 0, None);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut block = Vec::new();
        file.take(BLOCK as u64).read_to_end(&mut block)?;
        // A line that is being written is left for the next time.
        let whole = block.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole == 0 && block.len() == BLOCK {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than any event"));
        }
        self.offset += whole as u64;
        let lines = block[..whole].split(|&byte| byte == b'\n').filter_map(|line| self.line(line)).collect();
        Ok((lines, block.len() == BLOCK))
    }

    fn line(&mut self, line: &[u8]) -> Option<Line> {
        let text = std::str::from_utf8(line).ok()?;
        let step = serde_json::from_str::<Event>(text).ok()?.step();
        let line = self.last.filter(|last| last.step == step).map_or(0, |last| last.line + 1);
        let id = Id { step, line };
        self.last = Some(id);
        if self.shown.is_some_and(|shown| id <= shown) {
            return None;
        }
        self.shown = Some(id);
        let kind = serde_json::from_str::<serde_json::Value>(text).ok()?["event"].as_str()?.to_owned();
        Some(Line { id, kind, text: text.to_owned() })
    }
}

/// Tells a file from one that replaced it under its name.
fn identity(metadata: &Metadata) -> u64 {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::ino(metadata)
    }
    #[cfg(not(unix))]
    {
        let created = metadata.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        created.map_or(0, |at| u64::try_from(at.as_nanos()).unwrap_or(0))
    }
}

/// What a stream stands on between two events.
struct Reader {
    shared: Arc<Shared>,
    job: String,
    /// None while a block is being read.
    tail: Option<Tail>,
    waiting: VecDeque<Line>,
    changes: watch::Receiver<u64>,
    stops: watch::Receiver<bool>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// A look at the file and at the job.
struct Look {
    tail: Tail,
    lines: Vec<Line>,
    more: bool,
    /// The state the job will stay in; none while more may come.
    end: Option<&'static str>,
}

/// The events of a job behind `tail`'s place, until the job has ended or the service stops.
pub(crate) fn stream(
    shared: Arc<Shared>,
    job: String,
    tail: Tail,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let (changes, stops) = (shared.changes(), shared.stops());
    let (tail, waiting) = (Some(tail), VecDeque::new());
    let reader = Reader { shared, job, tail, waiting, changes, stops, ended: false, _permit: permit };
    futures_util::stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    })
}

impl Reader {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                return Some(sse::Event::default().id(line.id.to_string()).event(line.kind).data(line.text));
            }
            if self.ended {
                return None;
            }
            self.changes.mark_unchanged();
            let look = self.look().await?;
            self.tail = Some(look.tail);
            self.waiting.extend(look.lines);
            if !self.waiting.is_empty() || look.more {
                continue;
            }
            if let Some(state) = look.end {
                self.ended = true;
                let data = serde_json::json!({ "state": state }).to_string();
                return Some(sse::Event::default().event("end").data(data));
            }
            if *self.stops.borrow() {
                return None;
            }
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.stops.changed() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// None where the file cannot be read any more: the stream breaks off, and the reader may come back.
    async fn look(&mut self) -> Option<Look> {
        let (shared, job) = (Arc::clone(&self.shared), self.job.clone());
        let mut tail = self.tail.take()?;
        let look = tokio::task::spawn_blocking(move || {
            // The state first: what a job wrote before it ended is then in the file.
            let end = match shared.store.get(&job) {
                Ok(job) => job.state.is_final().then(|| job.state.name()),
                Err(StoreError::NoJob) => Some("deleted"),
                Err(_) => None,
            };
            let (lines, more) = tail.read()?;
            Ok::<_, io::Error>(Look { tail, lines, more, end })
        });
        match look.await {
            Ok(Ok(look)) => Some(look),
            Ok(Err(error)) => {
                tracing::warn!("the events of job {} cannot be read: {error}", self.job);
                None
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn alarm(step: u64, message: &str) -> String {
        format!(r#"{{"event":"alarm","step":{step},"alarm":"collapse","message":"{message}"}}"#) + "\n"
    }

    #[test]
    fn a_tail_goes_on_behind_what_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.jsonl");
        let ids = |tail: &mut Tail| -> Vec<String> {
            tail.read().unwrap().0.iter().map(|line| line.id.to_string()).collect()
        };
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
            let (lines, more) = tail.read().unwrap();
            seen += lines.len();
            if !more {
                break;
            }
        }
        assert_eq!(seen, 2000);
        for text in ["", "5", "a-0", "5-", "-1-0", "5-0-0"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
