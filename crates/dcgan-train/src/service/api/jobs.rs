//! `/v1/jobs`: submit, list, show, pause, resume, cancel.

use super::{Body, PathParams, QueryParams, blocking, parse_json};
use crate::config::Fault;
use crate::service::AppState;
use crate::service::error::ApiError;
use crate::service::options::{self, Options};
use crate::service::preview;
use crate::service::record::{Command, Job, JobState, NewJob};
use crate::service::resume;
use crate::service::store::default_name;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 200;
/// Characters of a configuration in a list.
const CONFIG_CHARS: usize = 200;

/// A job as JSON, with the live progress of a running job.
pub(super) fn job_json(state: &AppState, job: &Job) -> Value {
    // The worker leaves `running_jobs` shortly after it has stored the outcome.
    let running = state.running_jobs.get(&job.id).filter(|_| job.state == JobState::Running);
    let line = running.as_ref().and_then(|running| running.line());
    let step = running.as_ref().map_or(job.step, |running| running.step().max(job.step));
    let images = line.as_ref().map_or(job.images, |line| line.images.max(job.images));
    json!({
        "id": job.id,
        "name": job.name,
        "created": job.created,
        "state": job.state,
        "wanted": job.pending_state,
        "step": step,
        "total_steps": job.total_steps,
        "images": images,
        "images_per_s": line.as_ref().map(|line| line.images_per_s),
        "loss_d": line.as_ref().and_then(|line| line.loss_d),
        "loss_g": line.as_ref().and_then(|line| line.loss_g),
        "seconds_left": line.as_ref().map(|line| line.seconds_left),
        "error": job.error.as_ref().map(|error| state.public_message(error, Some(&job.id))),
        "remedy": job.remedy,
        "device": job.device,
        "disk_bytes": job.disk_bytes,
        "optimizer_state": if job.optimizer_dropped { "dropped" } else { "kept" },
        "options": serde_json::from_str::<Value>(&job.options).unwrap_or_default(),
        "created_unix_ms": job.created_ms,
        "started_unix_ms": job.started_ms,
        "ended_unix_ms": job.ended_ms,
    })
}

/// Truncates the configuration, for lists.
fn truncate_config(mut job: Value) -> Value {
    if let Some(Value::String(config)) = job.pointer_mut("/options/config")
        && let Some((end, _)) = config.char_indices().nth(CONFIG_CHARS)
    {
        config.truncate(end);
    }
    job
}

/// What a job with these options would train. Nothing is stored.
pub(crate) async fn preview(State(state): State<Arc<AppState>>, body: Body) -> Result<Json<Value>, ApiError> {
    let Options(mut options) = parse_json(body)?;
    let permit = Arc::clone(&state.previews).acquire_owned().await.map_err(ApiError::internal)?;
    let preview = blocking(move || {
        let _permit = permit;
        let name = options::take_name(&mut options);
        let preview = preview::preview(&state, options);
        match (name, preview) {
            (Ok(_), Ok(preview)) => Ok(preview),
            (name, preview) => {
                let faults = name.err().into_iter().chain(preview.err().unwrap_or_default());
                Err(ApiError::faults(faults.collect()))
            }
        }
    });
    preview.await.map(Json)
}

type Accepted = (StatusCode, [(HeaderName, String); 1], Json<Value>);

pub(crate) async fn submit(State(state): State<Arc<AppState>>, body: Body) -> Result<Accepted, ApiError> {
    let Options(options) = parse_json(body)?;
    if state.is_stopping() {
        return Err(ApiError::unavailable("the service is stopping"));
    }
    let job = blocking(move || insert_job(&state, options)).await?;
    let id = job["id"].as_str().unwrap_or_default();
    // Relative to the URL of the request, which ends in `jobs`: a proxy may serve the API below a sub-path.
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, format!("jobs/{id}"))], Json(job)))
}

/// Validates the name and the options and inserts the job.
fn insert_job(state: &AppState, mut options: Map<String, Value>) -> Result<Value, ApiError> {
    let name = options::take_name(&mut options);
    let data = options.get("data").and_then(Value::as_str).map(str::to_owned);
    if let Some(choice) = preview::choose_preset(state, &mut options) {
        tracing::info!(data, "{}", choice.preset);
    }
    let text = Value::Object(options.clone()).to_string();
    let plan = options::resolve(state, options);
    let (name, plan) = match (name, plan) {
        (Ok(name), Ok(plan)) => (name, plan),
        (name, plan) => {
            let faults = name.err().into_iter().chain(plan.err().unwrap_or_default());
            return Err(ApiError::faults(faults.collect()));
        }
    };
    let job = NewJob {
        name: name.unwrap_or_else(|| default_name(&plan.model.name, data.as_deref())),
        options: text,
        requested_device: state.requested_device(&plan),
        plan: toml::to_string(&plan).map_err(ApiError::internal)?,
    };
    let job = state.store.submit(&job, state.max_queued)?;
    tracing::info!(job = %job.id, name = ?job.name, "job submitted");
    state.worker_notify.notify();
    Ok(job_json(state, &job))
}

pub(crate) async fn list(
    State(app): State<Arc<AppState>>,
    QueryParams(query): QueryParams,
) -> Result<Json<Value>, ApiError> {
    let mut faults = Vec::new();
    let (mut state, mut limit, mut before) = (None, DEFAULT_LIMIT, None);
    for (name, value) in query {
        let fault = match name.as_str() {
            "state" => {
                state = JobState::from_name(&value);
                let names = JobState::ALL.map(JobState::name).join(", ");
                state.is_none().then(|| format!("state is {value:?}, expected one of {names}"))
            }
            "limit" => {
                limit = value.parse().unwrap_or(0);
                let is_valid = (1..=MAX_LIMIT).contains(&limit);
                (!is_valid).then(|| format!("limit is {value:?}, expected 1 to {MAX_LIMIT}"))
            }
            "before" => {
                before = Some(value);
                None
            }
            _ => Some(format!("unknown parameter {name:?}, expected state, limit or before")),
        };
        faults.extend(fault.map(|message| Fault::new(name, message)));
    }
    if !faults.is_empty() {
        return Err(ApiError::faults(faults));
    }
    let page = blocking(move || {
        // One more than the limit, to know whether there is another page.
        let mut jobs = app.store.list(state, before.as_deref(), limit + 1)?;
        let more = jobs.len() as u64 > limit;
        if more {
            jobs.pop();
        }
        let next = jobs.last().filter(|_| more).map(|job| job.id.clone());
        let jobs: Vec<Value> = jobs.iter().map(|job| truncate_config(job_json(&app, job))).collect();
        Ok(json!({ "jobs": jobs, "next": next }))
    });
    page.await.map(Json)
}

pub(crate) async fn show(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
) -> Result<Json<Value>, ApiError> {
    // Clients poll this route; mostly the job is in the cache.
    if let Some(job) = state.store.get_cached(&id) {
        return Ok(Json(job_json(&state, &job)));
    }
    blocking(move || Ok(job_json(&state, &*state.store.get(&id)?))).await.map(Json)
}

pub(crate) async fn pause(state: State<Arc<AppState>>, id: PathParams<1>) -> Result<Json<Value>, ApiError> {
    apply(state, id, Command::Pause).await
}

/// Without a body, resumes the job as it is; otherwise with these options, such as a greater length.
pub(crate) async fn resume(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let options = match body {
        Ok(body) if body.is_empty() => Map::new(),
        body => parse_json::<Options>(body)?.0,
    };
    if options.is_empty() {
        return apply(State(state), PathParams([id]), Command::Resume).await;
    }
    let job = blocking(move || {
        let job = resume::resume_with(&state, &id, options)?;
        tracing::info!(job = %id, options = %job.options, state = %job.state, "job resumed with other options");
        state.worker_notify.notify();
        state.broadcasts.notify(&id);
        Ok(job_json(&state, &job))
    });
    job.await.map(Json)
}

pub(crate) async fn cancel(state: State<Arc<AppState>>, id: PathParams<1>) -> Result<Json<Value>, ApiError> {
    apply(state, id, Command::Cancel).await
}

async fn apply(
    State(state): State<Arc<AppState>>,
    PathParams([id]): PathParams<1>,
    command: Command,
) -> Result<Json<Value>, ApiError> {
    let job = blocking(move || {
        let job = state.store.apply(&id, command)?;
        tracing::info!(job = %id, command = command.name(), state = %job.state, "command applied");
        if job.pending_state.is_some()
            && let Some(running) = state.running_jobs.get(&id)
        {
            running.stop();
        }
        state.worker_notify.notify();
        state.broadcasts.notify(&id);
        Ok(job_json(&state, &job))
    });
    job.await.map(Json)
}
