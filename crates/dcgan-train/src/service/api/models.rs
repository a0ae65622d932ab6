//! Models to draw from, and data sets to train on.

use super::{Body, Part, blocking, json};
use crate::service::draw::{DrawError, Format, Wish};
use crate::service::error::ApiError;
use crate::service::{Shared, models, presets};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use serde_json::{Value, json as object};
use std::sync::Arc;

/// Data sets that are listed; others can be named all the same.
const LISTED: usize = 1000;

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    let models = blocking(move || Ok(models::list(&shared)?)).await?;
    Ok(Json(object!({ "models": models })))
}

pub(crate) async fn draw(
    State(shared): State<Arc<Shared>>,
    Part([id]): Part<1>,
    body: Body,
) -> Result<([(HeaderName, &'static str); 1], Vec<u8>), ApiError> {
    let wish: Wish = match body {
        Ok(body) if body.is_empty() => json(Ok("{}".into()))?,
        body => json(body)?,
    };
    let format = wish.format;
    let asked = {
        let shared = Arc::clone(&shared);
        blocking(move || {
            let folder = models::find(&shared, &id);
            let folder =
                folder.ok_or_else(|| ApiError::not_found("there is no such model; /v1/models lists them"))?;
            let asked = shared.easel.ask(folder, wish);
            asked.ok_or_else(|| ApiError::unavailable("too many requests for samples are waiting"))
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
    Ok(([(header::CONTENT_TYPE, kind)], bytes))
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
