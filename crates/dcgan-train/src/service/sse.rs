//! `GET /v1/jobs/{id}/events`: stats.jsonl as server-sent events.
//!
//! The file is the source: a slow or late client reads it block by block, with one block in memory, and misses no
//! event. At its end the stream continues with the newest events from the job's [`broadcast`], as all other streams do.

use super::AppState;
use super::broadcast::{self, Broadcast, EventBuffer, NextEvents};
use super::stats_reader::StatsReader;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// After this time without an event a comment is sent, so that no proxy closes the connection as idle.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: &str = ":\n\n";
/// Poll interval while a resumed job rewrites the file up to the position of the broadcast.
const CATCH_UP: Duration = Duration::from_secs(1);

/// State of a stream between two chunks.
struct EventStream {
    state: Arc<AppState>,
    job: String,
    /// None while a block is being read.
    reader: Option<StatsReader>,
    /// Set once the end of the file has been reached.
    broadcast: Option<(Arc<Broadcast>, watch::Receiver<EventBuffer>)>,
    stopping: watch::Receiver<bool>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// A response with the events of a job from the position of `reader` until the job has ended or the service stops.
pub(crate) fn response(
    state: Arc<AppState>,
    job: String,
    reader: StatsReader,
    permit: OwnedSemaphorePermit,
) -> Response {
    let stopping = state.subscribe_shutdown();
    let stream = EventStream {
        state,
        job,
        reader: Some(reader),
        broadcast: None,
        stopping,
        ended: false,
        _permit: permit,
    };
    let chunks = futures_util::stream::unfold(stream, async |mut stream| {
        let chunk = stream.next().await?;
        Some((Ok::<_, Infallible>(chunk), stream))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // no-transform: a proxy that compresses the stream would hold events back.
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        // nginx would otherwise buffer the stream.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

impl EventStream {
    /// The next chunk. None at the end, and after an error: the client may reconnect.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            let next = match (&mut self.broadcast, &self.reader) {
                (Some((_, buffer)), Some(reader)) => buffer.borrow_and_update().after(reader.last_sent()),
                _ => NextEvents::Evicted,
            };
            match next {
                NextEvents::Events(events, last) => {
                    self.reader.as_mut()?.skip_to(last);
                    return Some(events);
                }
                NextEvents::Ended(state) => {
                    self.ended = true;
                    return Some(format!("event: end\ndata: {{\"state\":\"{state}\"}}\n\n").into());
                }
                NextEvents::Failed => return None,
                NextEvents::Pending if *self.stopping.borrow() => return None,
                NextEvents::Pending => {
                    if !self.wait(KEEP_ALIVE).await {
                        return Some(Bytes::from_static(COMMENT.as_bytes()));
                    }
                }
                NextEvents::Evicted => {
                    let read = broadcast::read_events(&self.state, &self.job, self.reader.take()?).await;
                    let read = read.inspect_err(|error| {
                        tracing::warn!(job = %self.job, %error, "cannot read the events");
                    });
                    let read = read.ok()?;
                    let reader = self.reader.insert(read.reader);
                    if !read.block.is_empty() {
                        return Some(read.block.bytes().clone());
                    }
                    if read.more {
                        continue;
                    }
                    if self.broadcast.is_none() {
                        let broadcast = self.state.broadcasts.get_or_start(&self.state, &self.job, reader);
                        let buffer = broadcast.subscribe();
                        self.broadcast = Some((broadcast, buffer));
                    } else if *self.stopping.borrow() {
                        return None;
                    } else {
                        self.wait(CATCH_UP).await;
                    }
                }
            }
        }
        None
    }

    /// Waits for new events or the shutdown. False after `timeout`.
    async fn wait(&mut self, timeout: Duration) -> bool {
        let Some((_, buffer)) = &mut self.broadcast else { return false };
        tokio::select! {
            _ = buffer.changed() => true,
            _ = self.stopping.changed() => true,
            () = tokio::time::sleep(timeout) => false,
        }
    }
}
