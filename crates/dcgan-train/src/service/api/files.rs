//! The files of jobs: deletion of one job or of many, removal of optimizer states, disk space.

use super::jobs::job_json;
use super::{Body, PathParams, blocking, parse_json};
use crate::config::Fault;
use crate::service::error::ApiError;
use crate::service::record::{Job, JobState};
use crate::service::store::StoreError;
use crate::service::{AppState, housekeeping};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dcgan_base::files::free_bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::sync::Arc;

/// Jobs that one request deletes. Each is a transaction on the disk, and a request must end in time.
const MAX_DELETED: usize = 1000;
/// States of jobs that can be deleted together.
const DELETABLE: [JobState; 3] = [JobState::Cancelled, JobState::Failed, JobState::Done];

/// Deletes a job. Its files are renamed at once and removed later: large folders take long.
fn delete_job(state: &AppState, id: &str) -> Result<Job, StoreError> {
    let deleted = state.deleted_folder(id);
    let job = state.store.delete(id, || match fs::rename(state.run_folder(id), &deleted) {
        // The job never ran.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    })?;
    tracing::info!(job = %id, "job deleted");
    state.broadcasts.notify(id);
    if deleted.exists() {
        state.removals.push(deleted);
        state.housekeeping_notify.notify();
    }
    Ok(job)
}

pub(crate) async fn delete(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
) -> Result<StatusCode, ApiError> {
    blocking(move || Ok(delete_job(&state, &id).map(|_| StatusCode::NO_CONTENT)?)).await
}

/// Body of `POST /v1/jobs/delete`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteRequest {
    /// Jobs by id, or
    ids: Option<Vec<String>>,
    /// all jobs in these states.
    states: Option<Vec<String>>,
    /// Without it nothing is deleted.
    #[serde(default)]
    confirm: bool,
}

pub(crate) async fn delete_many(
    State(state): State<Arc<AppState>>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let request: DeleteRequest = parse_json(body)?;
    let deleted = blocking(move || {
        let (mut done, mut bytes, mut failed) = (Vec::new(), 0, Vec::new());
        for id in select(&state, &request)? {
            let result =
                if request.confirm { delete_job(&state, &id) } else { state.store.check_delete(&id) };
            match result {
                Ok(job) => {
                    bytes += job.disk_bytes.unwrap_or(0);
                    done.push(id);
                }
                Err(error @ (StoreError::NotFound | StoreError::Conflict { .. })) => {
                    failed.push(json!({ "id": id, "message": error.to_string() }));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let (deleted, would_delete) = if request.confirm { (done, Vec::new()) } else { (Vec::new(), done) };
        Ok(json!({ "deleted": deleted, "would_delete": would_delete, "disk_bytes": bytes, "failed": failed }))
    });
    deleted.await.map(Json)
}

/// The ids of a request's jobs.
fn select(state: &AppState, request: &DeleteRequest) -> Result<Vec<String>, ApiError> {
    let fault = |field: &str, message: String| ApiError::faults(vec![Fault::new(field, message)]);
    match (&request.ids, &request.states) {
        (Some(ids), None) if ids.len() > MAX_DELETED => {
            Err(fault("ids", format!("{} ids, expected at most {MAX_DELETED}", ids.len())))
        }
        (Some(ids), None) => Ok(ids.clone()),
        (None, Some(names)) => {
            let parse = |name: &String| {
                let expected = DELETABLE.map(JobState::name).join(", ");
                let state = JobState::from_name(name).filter(|state| DELETABLE.contains(state));
                state.ok_or_else(|| fault("states", format!("{name:?} in states, expected {expected}")))
            };
            let states = names.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            Ok(state.store.in_states(&states, MAX_DELETED)?)
        }
        _ => Err(fault("ids", "expected either ids or states".to_owned())),
    }
}

pub(crate) async fn drop_optimizer(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
) -> Result<Json<Value>, ApiError> {
    let job = blocking(move || {
        state.store.drop_optimizer(&id)?;
        housekeeping::remove_optimizer_state(&state, &id);
        tracing::info!(job = %id, "optimizer state dropped");
        Ok(job_json(&state, &*state.store.get(&id)?))
    });
    job.await.map(Json)
}

/// Disk space of the store.
pub(crate) async fn store(State(state): State<Arc<AppState>>) -> Result<Json<Value>, ApiError> {
    let described = blocking(move || {
        let disk = state.store.disk_use()?;
        let states = disk
            .states
            .iter()
            .map(|(name, jobs, bytes)| (name.to_string(), json!({ "jobs": jobs, "disk_bytes": bytes })));
        Ok(json!({
            "disk_bytes": disk.total(),
            "database_bytes": disk.database,
            "free_bytes": free_bytes(state.runs.path()),
            "states": states.collect::<serde_json::Map<_, _>>(),
            "keep_done": state.keep_done.map(|policy| policy.to_string()),
        }))
    });
    described.await.map(Json)
}
