//! The newest events of a job, read once for all who follow it.
//!
//! Whoever has read a job's file to its end joins the job's feed: one task looks at the file when something was written and
//! keeps the latest events as they are sent. A reader takes what it has not seen, and goes back to the file where that is no
//! longer kept. So a reader that follows costs little, and one that is slow costs no more.

use super::Shared;
use super::store::StoreError;
use super::tail::{Block, Id, Tail};
use axum::body::Bytes;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Bytes of events that are kept for readers that are a little behind.
const KEPT: usize = 256 * 1024;
/// Between two looks at a file: what comes meanwhile is sent at once, and a fast job does not keep the readers busy.
const GAP: Duration = Duration::from_millis(500);
/// Between two looks at a job of which nothing was heard.
const POLL: Duration = Duration::from_secs(5);

/// What a feed holds for its readers.
#[derive(Debug, Default)]
pub(crate) struct News {
    blocks: VecDeque<Block>,
    /// The event before the first one that is kept.
    before: Option<Id>,
    /// The state the job will stay in; none while more may come.
    end: Option<&'static str>,
    /// The file cannot be read.
    broken: bool,
}

/// What a reader finds.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// Events behind its place, and the last of them.
    Events(Bytes, Id),
    /// Nothing new yet.
    Nothing,
    /// No longer kept: they are in the file.
    InFile,
    /// There will be no more.
    End(&'static str),
    /// Nor can they be read.
    Broken,
}

impl News {
    /// What comes behind `shown`.
    pub(crate) fn behind(&self, shown: Option<Id>) -> Found {
        if self.broken {
            return Found::Broken;
        }
        if shown < self.before {
            return Found::InFile;
        }
        let block = self.blocks.iter().find(|block| block.last() > shown);
        match (block.and_then(|block| Some((block, block.last()?))), self.end) {
            (Some((block, last)), _) => Found::Events(block.behind(shown), last),
            (None, Some(state)) => Found::End(state),
            (None, None) => Found::Nothing,
        }
    }

    fn add(&mut self, block: Block) {
        self.blocks.push_back(block);
        let mut bytes: usize = self.blocks.iter().map(|block| block.bytes().len()).sum();
        while bytes > KEPT
            && let Some(oldest) = self.blocks.pop_front()
        {
            bytes -= oldest.bytes().len();
            self.before = oldest.last();
        }
    }
}

/// One job's feed.
#[derive(Debug)]
pub(crate) struct Feed {
    news: watch::Sender<News>,
    /// Something was written.
    bell: Notify,
}

impl Feed {
    pub(crate) fn news(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }
}

/// The feeds that are followed, by job.
#[derive(Debug, Default)]
pub(crate) struct Feeds(Mutex<HashMap<String, Weak<Feed>>>);

impl Feeds {
    /// The feed of `job`, which whoever reads it holds; where there is none it begins where `tail` stands.
    pub(crate) fn join(&self, shared: &Arc<Shared>, job: &str, tail: &Tail) -> Arc<Feed> {
        let mut feeds = self.lock();
        let has_more = |feed: &Arc<Feed>| {
            let news = feed.news.borrow();
            news.end.is_none() && !news.broken
        };
        if let Some(feed) = feeds.get(job).and_then(Weak::upgrade).filter(has_more) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let tail = tail.here();
        let news = News { before: tail.shown(), ..News::default() };
        let feed = Arc::new(Feed { news: watch::Sender::new(news), bell: Notify::new() });
        feeds.insert(job.to_owned(), Arc::downgrade(&feed));
        tokio::spawn(follow(Arc::clone(shared), job.to_owned(), Arc::downgrade(&feed), tail));
        feed
    }

    /// Something was written of `job`.
    pub(crate) fn tell(&self, job: &str) {
        if let Some(feed) = self.lock().get(job).and_then(Weak::upgrade) {
            feed.bell.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Feed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for what is new until nobody reads it or the job has ended.
async fn follow(shared: Arc<Shared>, job: String, feed: Weak<Feed>, tail: Tail) {
    let mut tail = tail;
    loop {
        let next = Instant::now() + GAP;
        let look = look(&shared, &job, tail).await;
        let Some(feed) = feed.upgrade() else { return };
        let more = match look {
            Ok(look) => {
                tail = look.tail;
                let end = look.end.filter(|_| !look.more);
                if look.block.last().is_some() || end.is_some() {
                    feed.news.send_modify(|news| {
                        if look.block.last().is_some() {
                            news.add(look.block);
                        }
                        news.end = end;
                    });
                }
                if end.is_some() {
                    return;
                }
                look.more
            }
            Err(error) => {
                tracing::warn!("the events of job {job} cannot be read: {error}");
                feed.news.send_modify(|news| news.broken = true);
                return;
            }
        };
        if !more {
            // Holds the feed up to a poll longer than its readers.
            let _ = tokio::time::timeout(POLL, feed.bell.notified()).await;
            tokio::time::sleep_until(next).await;
        }
    }
}

/// A look at the file and at the job.
pub(crate) struct Look {
    pub(crate) tail: Tail,
    pub(crate) block: Block,
    pub(crate) more: bool,
    end: Option<&'static str>,
}

/// Reads one block where `tail` stands.
///
/// # Errors
/// What the operating system says.
pub(crate) async fn look(shared: &Arc<Shared>, job: &str, tail: Tail) -> io::Result<Look> {
    let (shared, job, mut tail) = (Arc::clone(shared), job.to_owned(), tail);
    let look = tokio::task::spawn_blocking(move || {
        // The state first: what a job wrote before it ended is then in the file.
        let end = match shared.store.get(&job) {
            Ok(job) => job.state.is_final().then(|| job.state.name()),
            Err(StoreError::NoJob) => Some("deleted"),
            Err(_) => None,
        };
        let (block, more) = tail.read()?;
        Ok(Look { tail, block, more, end })
    });
    look.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn readers_find_what_is_kept_and_are_sent_to_the_file_for_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.jsonl");
        let line = |step: u64| {
            let message = "x".repeat(1000);
            format!(r#"{{"event":"alarm","step":{step},"alarm":"collapse","message":"{message}"}}"#) + "\n"
        };
        fs::write(&path, (0..1000).map(line).collect::<String>()).unwrap();
        let id = |step: u64| Some(format!("{step}-0").parse::<Id>().unwrap());
        let (mut tail, mut news, mut more) = (Tail::new(path, None), News::default(), true);
        assert_eq!(news.behind(None), Found::Nothing);
        while more {
            let read = tail.read().unwrap();
            news.add(read.0);
            more = read.1;
        }
        let kept: usize = news.blocks.iter().map(|block| block.bytes().len()).sum();
        assert!(kept <= KEPT && kept > KEPT / 2, "{kept} bytes are kept");
        // From the first event that is kept on, block by block to the end.
        let (mut shown, mut seen) = (news.before, String::new());
        while let Found::Events(events, last) = news.behind(shown) {
            assert!(shown < Some(last));
            seen.push_str(std::str::from_utf8(&events).unwrap());
            shown = Some(last);
        }
        assert_eq!((shown, news.behind(shown)), (id(999), Found::Nothing));
        let steps: Vec<&str> = seen.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        let first = 1000 - steps.len();
        assert_eq!(steps, (first..1000).map(|step| format!("{step}-0")).collect::<Vec<_>>());
        assert_eq!(news.before, id(first as u64 - 1));
        for (shown, expected) in
            [(None, Found::InFile), (id(first as u64 - 2), Found::InFile), (id(2000), Found::Nothing)]
        {
            assert_eq!(news.behind(shown), expected, "{shown:?}");
        }
        // The end comes behind the last event, for those who have seen it.
        news.end = Some("done");
        assert_eq!(news.behind(id(999)), Found::End("done"));
        assert!(matches!(news.behind(id(998)), Found::Events(_, last) if Some(last) == id(999)));
        news.broken = true;
        assert_eq!(news.behind(id(998)), Found::Broken);
    }
}
