//! A record of a long listing of folders, from which it resumes after an interruption.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Listing records what is done once it takes longer than this.
const LONG: Duration = Duration::from_secs(1);

/// What an entry of a folder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// Size, and time of the last change.
    #[serde(rename = "i")]
    Image(u64, u64),
    #[serde(rename = "f")]
    Folder,
    #[serde(rename = "l")]
    LabelFile,
    /// Not read; whether it counts as a file, and the reason.
    #[serde(rename = "s")]
    Skipped(bool, String),
}

/// A record of the entries that were looked at, by a digest of their folder, its time, and their names.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    known: HashMap<String, Vec<Entry>>,
    out: Option<BufWriter<File>>,
    started: Instant,
}

impl Journal {
    /// What is recorded at `path`, to which more is added.
    pub(crate) fn open(path: PathBuf) -> Self {
        let mut known = HashMap::new();
        if let Ok(file) = File::open(&path) {
            // A last line that was cut off is no record.
            let lines = BufReader::new(file).lines().map_while(Result::ok);
            known.extend(lines.filter_map(|line| serde_json::from_str::<(String, Vec<Entry>)>(&line).ok()));
        }
        Self { path, known, out: None, started: Instant::now() }
    }

    /// Entries that were recorded.
    pub(crate) fn take(&mut self, key: &str) -> Option<Vec<Entry>> {
        self.known.remove(key)
    }

    /// Whether listing takes so long that it is recorded.
    pub(crate) fn is_long(&self) -> bool {
        self.started.elapsed() >= LONG
    }

    /// The line of the record for entries.
    pub(crate) fn line(key: &str, entries: &[Entry]) -> String {
        serde_json::to_string(&(key, entries)).unwrap_or_default()
    }

    /// Records a line. A failure costs the record only.
    pub(crate) fn record(&mut self, line: &str) {
        if self.out.is_none() {
            let _ = self.path.parent().map(std::fs::create_dir_all);
            let file = File::options().create(true).append(true).open(&self.path);
            self.out = file.ok().map(BufWriter::new);
        }
        if let Some(out) = &mut self.out {
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x/a.partial");
        let entries =
            vec![Entry::Image(3, 4), Entry::Folder, Entry::Skipped(true, "why".to_owned()), Entry::LabelFile];
        let mut journal = Journal::open(path.clone());
        assert!(!journal.is_long(), "a short listing is not recorded");
        journal.started = Instant::now().checked_sub(2 * LONG).unwrap();
        assert!(journal.is_long());
        journal.record(&Journal::line("a", &entries));
        journal.record(&Journal::line("b", &entries[..1]));
        // Killed in the middle of a line.
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"[\"c\",[{\"i\"").unwrap();
        let mut journal = Journal::open(path);
        assert_eq!(journal.take("a"), Some(entries.clone()));
        assert_eq!(journal.take("a"), None);
        assert_eq!(journal.take("b").as_deref(), Some(&entries[..1]));
        assert_eq!(journal.take("c"), None);
    }
}
