//! `/v1/jobs/{id}/...`: the contents of a job's run folder, which are its events, sample grids and model.

use super::{PathParams, blocking};
use crate::config::Fault;
use crate::run_folder::{RunFolder, RunFolderError, RunResult};
use crate::service::error::ApiError;
use crate::service::record::JobState;
use crate::service::stats_reader::{EventId, StatsReader};
use crate::service::{AppState, archive, sse};
use crate::trend::{self, Reader};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The grid of real images.
const REALS: &str = "reals.png";

pub(crate) async fn events(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let last_sent = match headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes())) {
        None => None,
        Some(text) if text.is_empty() => None,
        Some(text) => {
            let id = text.parse::<EventId>();
            Some(id.map_err(|message| ApiError::faults(vec![Fault::new("Last-Event-ID", message)]))?)
        }
    };
    let permit = Arc::clone(&state.streams).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many event streams"))?;
    let job = {
        let (state, id) = (Arc::clone(&state), id.clone());
        blocking(move || Ok(state.store.get(&id)?)).await?
    };
    let reader = StatsReader::new(state.run_folder(&id).join("stats.jsonl"), last_sent);
    if last_sent.is_some() && job.state.is_final() {
        // An EventSource reconnects after the end of a stream; 204 makes it stop.
        let mut rest = reader.clone();
        let is_complete = blocking(move || {
            loop {
                let (block, more) = rest.read().map_err(ApiError::internal)?;
                if !block.is_empty() || !more {
                    return Ok(block.is_empty());
                }
            }
        });
        if is_complete.await? {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    Ok(sse::response(state, id, reader, permit))
}

/// The folder of a job's samples; it does not exist before the job has run.
fn samples_folder(state: &AppState, id: &str) -> Result<PathBuf, ApiError> {
    state.store.get(id)?;
    Ok(state.run_folder(id).join("samples"))
}

pub(crate) async fn samples(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
) -> Result<Json<Value>, ApiError> {
    let samples = blocking(move || {
        let entries = match fs::read_dir(samples_folder(&state, &id)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(json!({ "samples": [] })),
            entries => entries.map_err(ApiError::internal)?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut images: Vec<u64> = names.filter_map(|name| images_from_name(&name)).collect();
        images.sort_unstable();
        let samples: Vec<Value> = images
            .iter()
            // Relative to the URL of this list.
            .map(|n| json!({ "n": n, "url": format!("samples/{n}.png") }))
            .collect();
        Ok(json!({ "samples": samples }))
    });
    samples.await.map(Json)
}

/// The record of the job's images, its result and the advice that `dcgan-train run` prints at the end.
pub(crate) async fn summary(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
) -> Result<Json<Value>, ApiError> {
    let summary = blocking(move || {
        let job = state.store.get(&id)?;
        let (folder, plan) = match RunFolder::open(&state.run_folder(&id)) {
            Ok((folder, plan)) => (Some(folder), Some(plan)),
            // The job has not run yet.
            Err(RunFolderError::NotARun { .. }) => (None, None),
            Err(error) => return Err(ApiError::internal(error)),
        };
        let record = folder.as_ref().map(RunFolder::data_record).transpose();
        let record = record.map_err(ApiError::internal)?.flatten();
        let changes = record.iter().flat_map(|record| &record.changes);
        let changes = changes.map(|change| json!({ "step": change.step, "description": change.description }));
        // A job that was resumed has the result of its former length.
        let result = folder.filter(|_| job.state == JobState::Done).map(|folder| folder.result());
        let result = result.and_then(|path| fs::read(path).ok());
        let result = result.and_then(|text| serde_json::from_slice::<RunResult>(&text).ok());
        let reader = Reader::Service { can_resume: !job.optimizer_dropped };
        let advice =
            plan.zip(result.as_ref()).and_then(|(plan, result)| trend::advice(&plan, result, reader));
        Ok(json!({
            "images": record.as_ref().and_then(|record| record.images),
            "skipped": record.as_ref().map_or(0, |record| record.skipped.len() + record.excluded.len()),
            "changes": changes.collect::<Vec<_>>(),
            "result": result,
            "advice": advice,
        }))
    });
    summary.await.map(Json)
}

/// The number of real images read from a sample's name, `N.png` or `0000000N.png`.
fn images_from_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".png")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

type FileResponse = ([(HeaderName, String); 2], Body);

fn file_response(content_type: &str, name: &str, body: Body) -> FileResponse {
    let disposition = format!("inline; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, content_type.to_owned()), (header::CONTENT_DISPOSITION, disposition)], body)
}

pub(crate) async fn sample(
    State(state): State<Arc<AppState>>,
    PathParams([id, name]): PathParams<2>,
) -> Result<FileResponse, ApiError> {
    let (name, bytes) = blocking(move || {
        let not_found = || ApiError::not_found("no such sample; see GET /v1/jobs/{id}/samples");
        let samples = samples_folder(&state, &id)?;
        let (name, path) = if name == REALS {
            (name, state.run_folder(&id).join(REALS))
        } else {
            let name = RunFolder::sample_name(images_from_name(&name).ok_or_else(not_found)?);
            (name.clone(), samples.join(name))
        };
        match fs::read(path) {
            Ok(bytes) => Ok((name, bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found()),
            Err(error) => Err(ApiError::internal(error)),
        }
    })
    .await?;
    Ok(file_response("image/png", &name, bytes.into()))
}

pub(crate) async fn model(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
) -> Result<FileResponse, ApiError> {
    let name = format!("{id}.zip");
    let permit = Arc::clone(&state.downloads).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many model downloads"))?;
    let files = blocking(move || {
        state.store.get(&id)?;
        archive::open(&state.run_folder(&id)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ApiError::not_found("the job has no checkpoint yet"),
            _ => ApiError::internal(error),
        })
    })
    .await?;
    let body = archive::zip(files, permit).map_err(ApiError::internal)?;
    Ok(file_response("application/zip", &name, body))
}
