//! Models to draw from, and datasets to train on.

use super::{Body, Part, blocking, json};
use crate::service::draw::{DrawError, Format, Wish};
use crate::service::error::ApiError;
use crate::service::limits::DRAWN_TIME;
use crate::service::{Shared, models, presets};
use axum::Json;
use axum::body::{Body as Sent, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use serde_json::{Value, json as object};
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// Datasets that are listed; others can be named all the same.
const LISTED: usize = 1000;
/// Bytes of images that are sent at once.
const BLOCK: usize = 64 * 1024;

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    let models = blocking(move || Ok(models::list(&shared)?)).await?;
    Ok(Json(object!({ "models": models })))
}

pub(crate) async fn draw(
    State(shared): State<Arc<Shared>>,
    Part([id]): Part<1>,
    body: Body,
) -> Result<([(HeaderName, HeaderValue); 2], Sent), ApiError> {
    let wish: Wish = match body {
        Ok(body) if body.is_empty() => json(Ok("{}".into()))?,
        body => json(body)?,
    };
    let format = wish.format;
    let busy = || ApiError::unavailable("too many requests for samples are waiting");
    let permit = Arc::clone(&shared.draws).try_acquire_owned().map_err(|_| busy())?;
    let asked = {
        let shared = Arc::clone(&shared);
        blocking(move || {
            let folder = models::find(&shared, &id);
            let folder =
                folder.ok_or_else(|| ApiError::not_found("there is no such model; /v1/models lists them"))?;
            let asked = shared.easel.ask(folder, wish);
            asked.ok_or_else(busy)
        })
        .await?
    };
    let bytes = match asked.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(DrawError::Faults(faults))) => return Err(ApiError::faults(faults)),
        Ok(Err(DrawError::Failed(problem))) => return Err(ApiError::internal(problem)),
        Err(error) => return Err(ApiError::internal(error)),
    };
    let kind = match format {
        Format::Png => "image/png",
        Format::Safetensors | Format::Latents => "application/octet-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_LENGTH, HeaderValue::from(bytes.len())),
    ];
    Ok((headers, sent(bytes, permit)))
}

/// Images on their way, block by block: `permit` is held until the last one, and no longer than they may take.
fn sent(bytes: Vec<u8>, permit: OwnedSemaphorePermit) -> Sent {
    let start = (bytes, 0, Instant::now() + DRAWN_TIME, permit);
    Sent::from_stream(futures_util::stream::unfold(start, async |(bytes, at, until, permit)| {
        let block = bytes.get(at..bytes.len().min(at + BLOCK)).filter(|block| !block.is_empty())?;
        // A copy: what is queued for a slow reader must not hold all of it.
        let block = if Instant::now() < until {
            Ok(Bytes::copy_from_slice(block))
        } else {
            Err(io::Error::from(io::ErrorKind::TimedOut))
        };
        Some((block, (bytes, at + BLOCK, until, permit)))
    }))
}

pub(crate) async fn presets() -> Result<Json<Value>, ApiError> {
    Ok(Json(object!({ "presets": presets::list().map_err(ApiError::internal)? })))
}

pub(crate) async fn data(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    let sets = blocking(move || {
        let Some(root) = &shared.data_root else { return Ok(Vec::new()) };
        let entries = root.entries(LISTED).map_err(ApiError::internal)?;
        let sets = entries.into_iter().filter_map(|(name, path)| {
            let metadata = path.metadata().ok()?;
            let kind = if metadata.is_dir() { "folder" } else { "file" };
            Some(object!({ "name": name, "kind": kind, "bytes": metadata.is_file().then_some(metadata.len()) }))
        });
        Ok(sets.collect::<Vec<_>>())
    });
    Ok(Json(object!({ "data": sets.await? })))
}
