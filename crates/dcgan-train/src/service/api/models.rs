//! `/v1/models`, `/v1/presets`, `/v1/data`.

use super::{Body, PathParams, blocking, parse_json};
use crate::service::draw::{DrawError, DrawRequest, Format};
use crate::service::error::ApiError;
use crate::service::limits::DRAW_SEND_TIMEOUT;
use crate::service::{AppState, models, presets};
use axum::Json;
use axum::body::{Body as ResponseBody, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// Limit of listed datasets; jobs may name others too.
const MAX_LISTED: usize = 1000;
/// Bytes of a chunk of the response.
const CHUNK_BYTES: usize = 64 * 1024;

pub(crate) async fn list(State(state): State<Arc<AppState>>) -> Result<Json<Value>, ApiError> {
    let models = blocking(move || Ok(models::list(&state)?)).await?;
    Ok(Json(json!({ "models": models })))
}

pub(crate) async fn draw(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
    body: Body,
) -> Result<([(HeaderName, HeaderValue); 2], ResponseBody), ApiError> {
    let request: DrawRequest = match body {
        Ok(body) if body.is_empty() => parse_json(Ok("{}".into()))?,
        body => parse_json(body)?,
    };
    let format = request.format;
    let busy = || ApiError::unavailable("the draw queue is full");
    let permit = Arc::clone(&state.draws).try_acquire_owned().map_err(|_| busy())?;
    let result = blocking(move || {
        let folder = models::find(&state, &id);
        let folder = folder.ok_or_else(|| ApiError::not_found("no such model; see GET /v1/models"))?;
        state.draw_queue.submit(folder, request).ok_or_else(busy)
    })
    .await?;
    let bytes = match result.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(DrawError::Faults(faults))) => return Err(ApiError::faults(faults)),
        Ok(Err(DrawError::Failed(problem))) => return Err(ApiError::internal(problem)),
        Err(error) => return Err(ApiError::internal(error)),
    };
    let content_type = match format {
        Format::Png => "image/png",
        Format::Safetensors | Format::Latents => "application/octet-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_LENGTH, HeaderValue::from(bytes.len())),
    ];
    Ok((headers, chunked_body(bytes, permit)))
}

/// The rest of a draw request's response.
struct Remaining {
    bytes: Vec<u8>,
    offset: usize,
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

/// A body that is sent in chunks. It holds `permit` until the last chunk, at most for [`DRAW_SEND_TIMEOUT`].
fn chunked_body(bytes: Vec<u8>, permit: OwnedSemaphorePermit) -> ResponseBody {
    let remaining =
        Remaining { bytes, offset: 0, deadline: Instant::now() + DRAW_SEND_TIMEOUT, _permit: permit };
    ResponseBody::from_stream(futures_util::stream::unfold(remaining, async |mut remaining| {
        let Remaining { bytes, offset, deadline, .. } = &remaining;
        let end = bytes.len().min(offset + CHUNK_BYTES);
        let chunk = bytes.get(*offset..end).filter(|chunk| !chunk.is_empty())?;
        // A copy: a chunk queued for a slow client must not keep all bytes alive.
        let chunk = if Instant::now() < *deadline {
            Ok(Bytes::copy_from_slice(chunk))
        } else {
            Err(io::Error::from(io::ErrorKind::TimedOut))
        };
        remaining.offset = end;
        Some((chunk, remaining))
    }))
}

pub(crate) async fn presets() -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "presets": presets::list().map_err(ApiError::internal)? })))
}

pub(crate) async fn data(State(state): State<Arc<AppState>>) -> Result<Json<Value>, ApiError> {
    let datasets = blocking(move || {
        let Some(root) = &state.data_root else { return Ok(Vec::new()) };
        let entries = root.entries(MAX_LISTED).map_err(ApiError::internal)?;
        let datasets = entries.into_iter().filter_map(|(name, path)| {
            let metadata = path.metadata().ok()?;
            let kind = if metadata.is_dir() { "folder" } else { "file" };
            Some(json!({ "name": name, "kind": kind, "bytes": metadata.is_file().then_some(metadata.len()) }))
        });
        Ok(datasets.collect::<Vec<_>>())
    });
    Ok(Json(json!({ "data": datasets.await? })))
}
