//! Handlers: they validate requests, insert jobs into the store, and read the store and the run folders.

pub(crate) mod about;
pub(crate) mod files;
pub(crate) mod jobs;
pub(crate) mod models;
pub(crate) mod page;
pub(crate) mod runs;

use super::error::ApiError;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::collections::HashMap;

/// The parameters of the path. 404 if one is not UTF-8.
pub(crate) struct PathParams<const N: usize>([String; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for PathParams<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let not_found = || ApiError::not_found("no such route; see /openapi.json");
        let params = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Path(params) = params.map_err(|_| not_found())?;
        let values: Vec<String> = params.into_iter().map(|(_, value)| value).collect();
        Ok(Self(values.try_into().map_err(|_| not_found())?))
    }
}

/// The parameters of the query; of repeated ones the last.
pub(crate) struct QueryParams(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for QueryParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let query = query.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        Ok(Self(query.0.into_iter().collect()))
    }
}

/// A request's body, or why it was not read: too large, or incomplete.
pub(crate) type Body = Result<Bytes, BytesRejection>;

/// Parses a body as JSON.
fn parse_json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let body = body.map_err(|error| ApiError::new(error.status(), error.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| {
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        ApiError::new(status, format!("invalid body: {error}"))
    })
}

/// Runs blocking code on the blocking threads.
async fn blocking<T: Send + 'static>(
    body: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(body).await.map_err(ApiError::internal)?
}
