//! Health checks, metrics and the API description.

use super::blocking;
use crate::service::error::ApiError;
use crate::service::{AppState, metrics, openapi};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde_json::Value;
use std::sync::Arc;

pub(crate) async fn health() -> StatusCode {
    StatusCode::NO_CONTENT
}

pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Result<StatusCode, ApiError> {
    if state.is_stopping() {
        return Err(ApiError::unavailable("the service is stopping"));
    }
    blocking(move || {
        let counts = state.store.counts();
        counts.map_err(|_| ApiError::unavailable("cannot read the store"))?;
        if !state.store.has_room() {
            return Err(ApiError::unavailable(
                "the disk is full: new jobs are refused, and queued jobs wait until there is room",
            ));
        }
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

pub(crate) async fn metrics(
    State(state): State<Arc<AppState>>,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let text = blocking(move || Ok(metrics::render(&state)?)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

pub(crate) async fn openapi() -> Json<Value> {
    Json(openapi::document())
}
