//! Every route, in one table that the router and `/openapi.json` are both made from.

use super::error::ApiError;
use super::openapi::{Answer, Operation};
use super::{Shared, api, guard};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post};
use std::sync::Arc;
use tower_http::cors::CorsLayer;

type Route = (Operation, MethodRouter<Arc<Shared>>);

/// The table.
pub(crate) fn routes() -> Vec<Route> {
    use Answer::{Binary, Events, Json, Nothing, Text};
    let op = Operation::new;
    vec![
        (op("GET", "/", "The page for a browser", Text("text/html")), get(api::page::index)),
        (
            op(
                "GET",
                "/page/{name}",
                "A file of the page",
                Binary(&["text/javascript", "text/css", "image/svg+xml"]),
            )
            .or(&[304, 404]),
            get(api::page::file),
        ),
        (op("GET", "/healthz", "Whether the process answers", Nothing(204)), get(api::about::health)),
        (
            op("GET", "/readyz", "Whether jobs are taken and run", Nothing(204)).or(&[503]),
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
                "Jobs, newest first, of a `config` the first 200 characters",
                Json(200, "Jobs"),
            )
            .query(&[
                ("state", "string", "Only jobs in this state"),
                ("limit", "integer", "Jobs of a page, 1 to 200 [default: 50]"),
                ("before", "string", "Only jobs older than this id: `next` of the page before"),
            ])
            .or(&[422]),
            get(api::jobs::list),
        ),
        (op("GET", "/v1/jobs/{id}", "A job", Json(200, "Job")).or(&[404]), get(api::jobs::show)),
        (
            op("DELETE", "/v1/jobs/{id}", "Delete a job that does not run, and its files", Nothing(204))
                .or(&[404, 409]),
            delete(api::jobs::delete),
        ),
        (
            op("POST", "/v1/jobs/{id}/pause", "Stop after the step, with a checkpoint", Json(200, "Job"))
                .or(&[404, 409, 507]),
            post(api::jobs::pause),
        ),
        (
            op(
                "POST",
                "/v1/jobs/{id}/resume",
                "Queue a paused or failed job again, from its last checkpoint",
                Json(200, "Job"),
            )
            .or(&[404, 409, 507]),
            post(api::jobs::resume),
        ),
        (
            op("POST", "/v1/jobs/{id}/cancel", "Give a job up; its files stay", Json(200, "Job"))
                .or(&[404, 409, 507]),
            post(api::jobs::cancel),
        ),
        (
            op(
                "GET",
                "/v1/jobs/{id}/events",
                "What happens, from the beginning or behind Last-Event-ID",
                Events,
            )
            .or(&[204, 404, 422, 503]),
            get(api::runs::events),
        ),
        (
            op("GET", "/v1/jobs/{id}/samples", "Sample grids, by images seen", Json(200, "Samples"))
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
                "The best checkpoint's model folder",
                Binary(&["application/zip"]),
            )
            .or(&[404, 503]),
            get(api::runs::model),
        ),
        (
            op("GET", "/v1/models", "Models of jobs, and model folders", Json(200, "Models")),
            get(api::models::list),
        ),
        (
            op(
                "POST",
                "/v1/models/{id}/samples",
                "Draw images",
                Binary(&["image/png", "application/octet-stream"]),
            )
            .body("Wish")
            .or(&[400, 404, 413, 422, 503]),
            post(api::models::draw),
        ),
        (
            op("GET", "/v1/presets", "Networks and settings by name", Json(200, "Presets")),
            get(api::models::presets),
        ),
        (op("GET", "/v1/data", "Datasets under --data-root", Json(200, "Data")), get(api::models::data)),
    ]
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for (operation, method) in routes() {
        router = router.route(operation.path, method);
    }
    let router = router
        .fallback(async || ApiError::not_found("there is nothing here; /openapi.json says what there is"))
        .method_not_allowed_fallback(async || {
            let message = "not with this method; /openapi.json says with which";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
        })
        .layer(DefaultBodyLimit::max(guard::BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&shared), guard::guard));
    // Outside the guard: a browser asks beforehand, without the token, whether it may ask.
    let origin = shared.allow_origin.as_deref().and_then(|origin| HeaderValue::from_str(origin).ok());
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
    router.layer(from_fn_with_state(Arc::clone(&shared), guard::clock)).with_state(shared)
}
