//! What stands in a job's run folder: events, sample grids, the model.

use super::{Part, blocking};
use crate::config::Fault;
use crate::run_folder::RunFolder;
use crate::service::error::ApiError;
use crate::service::events;
use crate::service::tail::{Id, Tail};
use crate::service::{Shared, archive};
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

/// Real images, as the networks see them.
const REALS: &str = "reals.png";

pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    Part([id]): Part<1>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = match headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes())) {
        None => None,
        Some(text) if text.is_empty() => None,
        Some(text) => {
            let id = text.parse::<Id>();
            Some(id.map_err(|message| ApiError::faults(vec![Fault::new("Last-Event-ID", message)]))?)
        }
    };
    let permit = Arc::clone(&shared.streams).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many readers of events at a time"))?;
    let (job, tail) = {
        let (shared, id) = (Arc::clone(&shared), id.clone());
        blocking(move || {
            let job = shared.store.get(&id)?;
            Ok((job, Tail::new(shared.run_folder(&id).join("stats.jsonl"), after)))
        })
        .await?
    };
    if after.is_some() && job.state.is_final() {
        // Browsers come back after the end of a stream; 204 tells them that this was all.
        let mut rest = Tail::new(shared.run_folder(&id).join("stats.jsonl"), after);
        let is_over = blocking(move || {
            loop {
                let (block, more) = rest.read().map_err(ApiError::internal)?;
                if block.last().is_some() || !more {
                    return Ok(block.last().is_none());
                }
            }
        });
        if is_over.await? {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    Ok(events::stream(shared, id, tail, permit))
}

/// The samples of a run folder that is there; none before the job ran.
fn samples_of(shared: &Shared, id: &str) -> Result<PathBuf, ApiError> {
    shared.store.get(id)?;
    Ok(shared.run_folder(id).join("samples"))
}

pub(crate) async fn samples(
    State(shared): State<Arc<Shared>>,
    Part([id]): Part<1>,
) -> Result<Json<Value>, ApiError> {
    let samples = blocking(move || {
        let entries = match fs::read_dir(samples_of(&shared, &id)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(json!({ "samples": [] })),
            entries => entries.map_err(ApiError::internal)?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut seen: Vec<u64> = names.filter_map(|name| images_of(&name)).collect();
        seen.sort_unstable();
        let samples: Vec<Value> =
            seen.iter().map(|n| json!({ "n": n, "url": format!("/v1/jobs/{id}/samples/{n}.png") })).collect();
        Ok(json!({ "samples": samples }))
    });
    samples.await.map(Json)
}

/// `N.png` or `0000000N.png`: real images seen.
fn images_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".png")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

type File = ([(HeaderName, String); 2], Body);

fn file(kind: &str, name: &str, body: Body) -> File {
    let disposition = format!("inline; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)], body)
}

pub(crate) async fn sample(
    State(shared): State<Arc<Shared>>,
    Part([id, name]): Part<2>,
) -> Result<File, ApiError> {
    let (name, bytes) = blocking(move || {
        let nowhere = || ApiError::not_found("there is no such sample; .../samples lists them");
        let samples = samples_of(&shared, &id)?;
        let (name, path) = if name == REALS {
            (name, shared.run_folder(&id).join(REALS))
        } else {
            let name = RunFolder::sample_name(images_of(&name).ok_or_else(nowhere)?);
            (name.clone(), samples.join(name))
        };
        match fs::read(path) {
            Ok(bytes) => Ok((name, bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(nowhere()),
            Err(error) => Err(ApiError::internal(error)),
        }
    })
    .await?;
    Ok(file("image/png", &name, bytes.into()))
}

pub(crate) async fn model(State(shared): State<Arc<Shared>>, Part([id]): Part<1>) -> Result<File, ApiError> {
    let name = format!("{id}.zip");
    let permit = Arc::clone(&shared.downloads).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many downloads of models at a time"))?;
    let files = blocking(move || {
        shared.store.get(&id)?;
        archive::open(&shared.run_folder(&id)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ApiError::not_found("the job has no checkpoint yet"),
            _ => ApiError::internal(error),
        })
    })
    .await?;
    Ok(file("application/zip", &name, archive::zip(files, permit).map_err(ApiError::internal)?))
}
