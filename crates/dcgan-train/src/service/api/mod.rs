//! Handlers: they check, write jobs into the store, read it and the run folders, and touch no network.

pub(crate) mod about;
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

/// A parameter of the path that is no text leads nowhere.
pub(crate) struct Part<const N: usize>([String; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for Part<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let nowhere = || ApiError::not_found("there is nothing here");
        let Path(parts) =
            Path::<Vec<(String, String)>>::from_request_parts(parts, state).await.map_err(|_| nowhere())?;
        let values: Vec<String> = parts.into_iter().map(|(_, value)| value).collect();
        Ok(Self(values.try_into().map_err(|_| nowhere())?))
    }
}

/// The parameters of the query; the last of equal names counts.
pub(crate) struct Query(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let query = query.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        Ok(Self(query.0.into_iter().collect()))
    }
}

/// A body as bytes, or the reason why it was not read: too large, or broken off.
pub(crate) type Body = Result<Bytes, BytesRejection>;

/// Reads a body as JSON.
fn json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let body = body.map_err(|error| ApiError::new(error.status(), error.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| {
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        ApiError::new(status, format!("the body: {error}"))
    })
}

/// Runs what waits for the disk where it does not keep other requests from being answered.
async fn blocking<T: Send + 'static>(
    body: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(body).await.map_err(ApiError::internal)?
}
