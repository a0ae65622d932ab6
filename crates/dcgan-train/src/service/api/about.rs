//! What the service says about itself.

use super::blocking;
use crate::service::error::ApiError;
use crate::service::{Shared, metrics, openapi};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde_json::Value;
use std::sync::Arc;

pub(crate) async fn health() -> StatusCode {
    StatusCode::NO_CONTENT
}

pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Result<StatusCode, ApiError> {
    if shared.is_stopping() {
        return Err(ApiError::unavailable("the service stops"));
    }
    blocking(move || {
        let counts = shared.store.counts();
        counts.map_err(|_| ApiError::unavailable("the store cannot be read"))?;
        if !shared.store.has_room() {
            return Err(ApiError::unavailable(
                "the disk is full: no jobs are taken, and those that wait go on once there is room",
            ));
        }
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

pub(crate) async fn metrics(
    State(shared): State<Arc<Shared>>,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let text = blocking(move || Ok(metrics::text(&shared)?)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

pub(crate) async fn openapi() -> Json<Value> {
    Json(openapi::document())
}
