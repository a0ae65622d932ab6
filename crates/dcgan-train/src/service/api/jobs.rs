//! `/v1/jobs`: submit, list, look, pause, resume, cancel, delete.

use super::{Body, Part, Query, blocking, json};
use crate::config::Fault;
use crate::service::Shared;
use crate::service::error::ApiError;
use crate::service::options::{self, Options};
use crate::service::record::{Ask, Job, JobState};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::sync::Arc;

const PAGE: u64 = 50;
const MAX_PAGE: u64 = 200;
/// Characters of a configuration in a list.
const SHOWN: usize = 200;

/// The job with what is known of it while it runs.
fn view(shared: &Shared, job: &Job) -> Value {
    // The worker lets go of a job a moment after its end is written down.
    let running = shared.live.get(&job.id).filter(|_| job.state == JobState::Running);
    let line = running.as_ref().and_then(|running| running.line());
    let step = running.as_ref().map_or(job.step, |running| running.step().max(job.step));
    // A step is a minibatch, so images go with steps.
    let images = line.as_ref().map_or(job.images, |line| line.images.max(job.images));
    json!({
        "id": job.id,
        "state": job.state,
        "wanted": job.wanted,
        "step": step,
        "total_steps": job.total_steps,
        "images": images,
        "images_per_s": line.as_ref().map(|line| line.images_per_s),
        "loss_d": line.as_ref().and_then(|line| line.loss_d),
        "loss_g": line.as_ref().and_then(|line| line.loss_g),
        "seconds_left": line.as_ref().map(|line| line.seconds_left),
        "error": job.error,
        "options": serde_json::from_str::<Value>(&job.options).unwrap_or_default(),
        "created_unix_ms": job.created_ms,
        "started_unix_ms": job.started_ms,
        "ended_unix_ms": job.ended_ms,
    })
}

/// For lists: the beginning of a configuration's text.
fn short(mut job: Value) -> Value {
    if let Some(Value::String(config)) = job.pointer_mut("/options/config")
        && let Some((end, _)) = config.char_indices().nth(SHOWN)
    {
        config.truncate(end);
    }
    job
}

type Accepted = (StatusCode, [(HeaderName, String); 1], Json<Value>);

pub(crate) async fn submit(State(shared): State<Arc<Shared>>, body: Body) -> Result<Accepted, ApiError> {
    let Options(options) = json(body)?;
    if shared.is_stopping() {
        return Err(ApiError::unavailable("the service stops"));
    }
    let job = blocking(move || accept(&shared, options)).await?;
    let id = job["id"].as_str().unwrap_or_default();
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, format!("/v1/jobs/{id}"))], Json(job)))
}

/// Checks the options and writes the job down; only then it is accepted.
fn accept(shared: &Shared, options: Map<String, Value>) -> Result<Value, ApiError> {
    let text = Value::Object(options.clone()).to_string();
    let plan = options::resolve(shared, options).map_err(ApiError::faults)?;
    let plan = toml::to_string(&plan).map_err(ApiError::internal)?;
    let job = shared.store.submit(&text, &plan, shared.max_queued)?;
    shared.bell.ring();
    Ok(view(shared, &job))
}

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query,
) -> Result<Json<Value>, ApiError> {
    let mut faults = Vec::new();
    let (mut state, mut limit, mut before) = (None, PAGE, None);
    for (name, value) in query {
        let fault = match name.as_str() {
            "state" => {
                state = JobState::named(&value);
                let names = JobState::ALL.map(JobState::name).join(", ");
                state.is_none().then(|| format!("state is {value:?}, expected one of {names}"))
            }
            "limit" => {
                limit = value.parse().unwrap_or(0);
                let holds = (1..=MAX_PAGE).contains(&limit);
                (!holds).then(|| format!("limit is {value:?}, expected 1 to {MAX_PAGE}"))
            }
            "before" => {
                before = Some(value);
                None
            }
            _ => Some(format!("there is no parameter {name:?}; parameters: state, limit, before")),
        };
        faults.extend(fault.map(|message| Fault::new(name, message)));
    }
    if !faults.is_empty() {
        return Err(ApiError::faults(faults));
    }
    let page = blocking(move || {
        // One more than asked for tells whether there is another page.
        let mut jobs = shared.store.list(state, before.as_deref(), limit + 1)?;
        let more = jobs.len() as u64 > limit;
        if more {
            jobs.pop();
        }
        let next = jobs.last().filter(|_| more).map(|job| job.id.clone());
        let jobs: Vec<Value> = jobs.iter().map(|job| short(view(&shared, job))).collect();
        Ok(json!({ "jobs": jobs, "next": next }))
    });
    page.await.map(Json)
}

pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Part([id]): Part<1>,
) -> Result<Json<Value>, ApiError> {
    // Asked again and again, and mostly known.
    if let Some(job) = shared.store.recall(&id) {
        return Ok(Json(view(&shared, &job)));
    }
    blocking(move || Ok(view(&shared, &*shared.store.get(&id)?))).await.map(Json)
}

pub(crate) async fn pause(state: State<Arc<Shared>>, id: Part<1>) -> Result<Json<Value>, ApiError> {
    ask(state, id, Ask::Pause).await
}

pub(crate) async fn resume(state: State<Arc<Shared>>, id: Part<1>) -> Result<Json<Value>, ApiError> {
    ask(state, id, Ask::Resume).await
}

pub(crate) async fn cancel(state: State<Arc<Shared>>, id: Part<1>) -> Result<Json<Value>, ApiError> {
    ask(state, id, Ask::Cancel).await
}

async fn ask(
    State(shared): State<Arc<Shared>>,
    Part([id]): Part<1>,
    ask: Ask,
) -> Result<Json<Value>, ApiError> {
    let job = blocking(move || {
        let job = shared.store.ask(&id, ask)?;
        if job.wanted.is_some()
            && let Some(running) = shared.live.get(&id)
        {
            running.stop();
        }
        shared.bell.ring();
        shared.feeds.tell(&id);
        Ok(view(&shared, &job))
    });
    job.await.map(Json)
}

pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Part([id]): Part<1>,
) -> Result<StatusCode, ApiError> {
    blocking(move || {
        let aside = shared.deleted_folder(&id);
        shared.store.delete(&id, || match fs::rename(shared.run_folder(&id), &aside) {
            // It never ran.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        })?;
        shared.feeds.tell(&id);
        if aside.exists()
            && let Err(error) = fs::remove_dir_all(&aside)
        {
            tracing::warn!("{} is tried again at the next start: {error}", aside.display());
        }
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
