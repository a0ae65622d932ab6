//! `GET /v1/jobs/{id}/events`: stats.jsonl as server-sent events.
//!
//! The file is the source: a reader that is slow or comes late reads it block by block, holds one block in memory and misses
//! nothing. One that has come to its end takes the newest events from the job's [`feed`](super::feed), as all others do.

use super::Shared;
use super::feed::{self, Feed, Found, News};
use super::tail::Tail;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// After so long without an event a comment is sent, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: &str = ":\n\n";
/// Between two looks at a file that a resumed job writes again up to where the feed is.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What a stream stands on between two events.
struct Reader {
    shared: Arc<Shared>,
    job: String,
    /// None while a block is being read.
    tail: Option<Tail>,
    feed: Option<(Arc<Feed>, watch::Receiver<News>)>,
    stops: watch::Receiver<bool>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// The events of a job behind `tail`'s place, until the job has ended or the service stops.
pub(crate) fn stream(shared: Arc<Shared>, job: String, tail: Tail, permit: OwnedSemaphorePermit) -> Response {
    let stops = shared.stops();
    let reader = Reader { shared, job, tail: Some(tail), feed: None, stops, ended: false, _permit: permit };
    let events = futures_util::stream::unfold(reader, async |mut reader| {
        let events = reader.next().await?;
        Some((Ok::<_, Infallible>(events), reader))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

impl Reader {
    /// Events as they are sent. None at the end, and where they cannot be read any more: the reader may come back.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            let found = match (&mut self.feed, &self.tail) {
                (Some((_, news)), Some(tail)) => news.borrow_and_update().behind(tail.shown()),
                _ => Found::InFile,
            };
            match found {
                Found::Events(events, last) => {
                    self.tail.as_mut()?.skip(last);
                    return Some(events);
                }
                Found::End(state) => {
                    self.ended = true;
                    return Some(format!("event: end\ndata: {{\"state\":\"{state}\"}}\n\n").into());
                }
                Found::Broken => return None,
                Found::Nothing if *self.stops.borrow() => return None,
                Found::Nothing => {
                    if !self.hear(KEEP_ALIVE).await {
                        return Some(Bytes::from_static(COMMENT.as_bytes()));
                    }
                }
                Found::InFile => {
                    let look = feed::look(&self.shared, &self.job, self.tail.take()?).await;
                    let look = look.inspect_err(|error| {
                        tracing::warn!("the events of job {} cannot be read: {error}", self.job);
                    });
                    let look = look.ok()?;
                    let tail = self.tail.insert(look.tail);
                    if look.block.last().is_some() {
                        return Some(look.block.bytes().clone());
                    }
                    if look.more {
                        continue;
                    }
                    if self.feed.is_none() {
                        let feed = self.shared.feeds.join(&self.shared, &self.job, tail);
                        let news = feed.news();
                        self.feed = Some((feed, news));
                    } else if *self.stops.borrow() {
                        return None;
                    } else {
                        self.hear(CATCH_UP).await;
                    }
                }
            }
        }
        None
    }

    /// Waits for news or the service's stop; whether there was one within `limit`.
    async fn hear(&mut self, limit: Duration) -> bool {
        let Some((_, news)) = &mut self.feed else { return false };
        tokio::select! {
            _ = news.changed() => true,
            _ = self.stops.changed() => true,
            () = tokio::time::sleep(limit) => false,
        }
    }
}
