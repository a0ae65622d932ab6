//! The table of routes; the router and `/openapi.json` are built from it.

use super::error::ApiError;
use super::limits::{BODY_BYTES, RESPONSE_TIMEOUT};
use super::openapi::{Answer, Operation};
use super::{AppState, api, auth, metrics};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use std::sync::Arc;
use tower_http::cors::CorsLayer;

type Route = (Operation, MethodRouter<Arc<AppState>>);

/// All routes with their descriptions.
pub(crate) fn routes() -> Vec<Route> {
    use Answer::{Binary, Events, Json, Nothing, Text};
    let op = Operation::new;
    vec![
        (op("GET", "/", "The web page", Text("text/html")), get(api::page::index)),
        (
            op(
                "GET",
                "/page/{name}",
                "A file of the web page",
                Binary(&["text/javascript", "text/css", "image/svg+xml"]),
            )
            .or(&[304, 404]),
            get(api::page::file),
        ),
        (op("GET", "/healthz", "Liveness check", Nothing(204)), get(api::about::health)),
        (
            op("GET", "/readyz", "Readiness check: whether jobs are accepted and run", Nothing(204))
                .or(&[503]),
            get(api::about::ready),
        ),
        (
            op("GET", "/metrics", "Prometheus metrics", Text("text/plain; version=0.0.4")),
            get(api::about::metrics),
        ),
        (op("GET", "/openapi.json", "This description", Json(200, "")), get(api::about::openapi)),
        (
            op("POST", "/v1/jobs", "Submit a job: the options of `dcgan-train run`", Json(202, "Job"))
                .body("JobOptions")
                .or(&[400, 413, 422, 429, 503, 507]),
            post(api::jobs::submit),
        ),
        (
            op(
                "GET",
                "/v1/jobs",
                "Jobs, newest first; a `config` is cut to its first 200 characters",
                Json(200, "Jobs"),
            )
            .query(&[
                ("state", "string", "Only jobs in this state"),
                ("limit", "integer", "Jobs per page, 1 to 200 [default: 50]"),
                ("before", "string", "Only jobs older than this id: `next` of the previous page"),
            ])
            .or(&[422]),
            get(api::jobs::list),
        ),
        (
            op(
                "POST",
                "/v1/jobs/preview",
                "What a job with these options would train: its networks, and what does not fit its images",
                Json(200, "Preview"),
            )
            .body("JobOptions")
            .or(&[400, 413, 422]),
            post(api::jobs::preview),
        ),
        (op("GET", "/v1/jobs/{id}", "A job", Json(200, "Job")).or(&[404]), get(api::jobs::show)),
        (
            op("DELETE", "/v1/jobs/{id}", "Delete a job that is not running, and its files", Nothing(204))
                .or(&[404, 409]),
            delete(api::files::delete),
        ),
        (
            op(
                "POST",
                "/v1/jobs/delete",
                "Delete jobs by id, or all that are done, failed or cancelled, at most 1,000; without confirm only \
                 list them",
                Json(200, "Deleted"),
            )
            .body("DeleteRequest")
            .or(&[400, 413, 422]),
            post(api::files::delete_many),
        ),
        (
            op(
                "POST",
                "/v1/jobs/{id}/drop-optimizer",
                "Remove the optimizer state of a done or cancelled job, most of its size; it cannot be resumed then",
                Json(200, "Job"),
            )
            .or(&[404, 409]),
            post(api::files::drop_optimizer),
        ),
        (
            op(
                "POST",
                "/v1/jobs/{id}/pause",
                "Stop after the current step, with a checkpoint",
                Json(200, "Job"),
            )
            .or(&[404, 409, 507]),
            post(api::jobs::pause),
        ),
        (
            op(
                "POST",
                "/v1/jobs/{id}/resume",
                "Queue a paused or failed job again, from its last checkpoint; with a greater length also a done one",
                Json(200, "Job"),
            )
            .body("ResumeOptions")
            .or(&[400, 404, 409, 413, 422, 507]),
            post(api::jobs::resume),
        ),
        (
            op("POST", "/v1/jobs/{id}/cancel", "Cancel a job; its files stay", Json(200, "Job"))
                .or(&[404, 409, 507]),
            post(api::jobs::cancel),
        ),
        (
            op(
                "GET",
                "/v1/jobs/{id}/events",
                "Events of a job, from the beginning or after Last-Event-ID",
                Events,
            )
            .or(&[204, 404, 422, 503]),
            get(api::runs::events),
        ),
        (
            op(
                "GET",
                "/v1/jobs/{id}/summary",
                "What a job has recorded of its images, and at its end the result and what to do next",
                Json(200, "Summary"),
            )
            .or(&[404]),
            get(api::runs::summary),
        ),
        (
            op(
                "GET",
                "/v1/jobs/{id}/samples",
                "Sample grids by number of real images read",
                Json(200, "Samples"),
            )
            .or(&[404]),
            get(api::runs::samples),
        ),
        (
            op(
                "GET",
                "/v1/jobs/{id}/samples/{name}",
                "A sample grid: N.png; real images: reals.png",
                Binary(&["image/png"]),
            )
            .or(&[404]),
            get(api::runs::sample),
        ),
        (
            op(
                "GET",
                "/v1/jobs/{id}/model",
                "The model folder of the best checkpoint",
                Binary(&["application/zip"]),
            )
            .or(&[404, 503]),
            get(api::runs::model),
        ),
        (
            op(
                "GET",
                "/v1/models",
                "Models of jobs, and model folders below --model-root",
                Json(200, "Models"),
            ),
            get(api::models::list),
        ),
        (
            op(
                "POST",
                "/v1/models/{id}/samples",
                "Draw samples",
                Binary(&["image/png", "application/octet-stream"]),
            )
            .body("DrawRequest")
            .or(&[400, 404, 413, 422, 503]),
            post(api::models::draw),
        ),
        (
            op("GET", "/v1/presets", "Presets: networks and training settings by name", Json(200, "Presets")),
            get(api::models::presets),
        ),
        (op("GET", "/v1/store", "Disk space of the jobs", Json(200, "Store")), get(api::files::store)),
        (op("GET", "/v1/data", "Datasets below --data-root", Json(200, "Data")), get(api::models::data)),
    ]
}

pub(crate) fn router(state: Arc<AppState>) -> Router {
    let mut router = Router::new();
    for (operation, method) in routes() {
        router = router.route(operation.path, method);
    }
    let router = router
        .fallback(async || ApiError::not_found("no such route; see /openapi.json"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; see /openapi.json")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn(limit_response_time))
        .layer(from_fn_with_state(Arc::clone(&state), auth::authorize));
    // Outside the authorization: browsers send CORS preflight requests without the token.
    let origin = state.allow_origin.as_deref().and_then(|origin| HeaderValue::from_str(origin).ok());
    let router = match origin {
        Some(origin) => router.layer(
            CorsLayer::new()
                .allow_origin(origin)
                .allow_methods([Method::GET, Method::POST, Method::DELETE])
                .allow_headers([
                    header::AUTHORIZATION,
                    header::CONTENT_TYPE,
                    header::HeaderName::from_static("last-event-id"),
                ]),
        ),
        None => router,
    };
    router.layer(from_fn_with_state(Arc::clone(&state), metrics::measure)).with_state(state)
}

/// Middleware that answers 503 if a response does not start in time.
async fn limit_response_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(RESPONSE_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no response within {} s", RESPONSE_TIMEOUT.as_secs());
            ApiError::unavailable(message).into_response()
        }
    }
}
