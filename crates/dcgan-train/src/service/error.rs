//! From what went wrong to an answer: a status and `{"error": {"message", "faults": [{"field", "message"}]}}`.

use crate::config::Fault;
use crate::service::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::io;
use std::path::PathBuf;

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another service works on the store.
    #[error("another service works on {}; stop it first, or choose another --store", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// The device that jobs would train on.
    #[error(transparent)]
    Device(#[from] crate::inputs::InputsError),
    /// The jobs cannot be read.
    #[error("{}: {problem}", path.display())]
    Store {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Anyone who reaches the machine could train on it.
    #[error("{address} can be reached from other machines: give --token-file, or listen on 127.0.0.1")]
    Open {
        /// The address asked for.
        address: String,
    },
    /// Threads or the network.
    #[error("the service cannot run: {0}")]
    Runtime(io::Error),
}

/// What a request is answered with when it is not done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    faults: Vec<Fault>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), faults: Vec::new() }
    }

    /// 404
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    /// 422 with every fault.
    pub(crate) fn faults(faults: Vec<Fault>) -> Self {
        let message = match faults.as_slice() {
            [fault] => fault.message.clone(),
            faults => format!("{} faults", faults.len()),
        };
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, message, faults }
    }

    /// 500: the reason is for the log, not for the caller.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!("a request failed: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the service failed; its log says why")
    }

    /// 503
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, message, faults } = self;
        let body = Json(json!({ "error": { "message": message, "faults": faults } }));
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::NoJob => Self::not_found(message),
            StoreError::Conflict { .. } => Self::new(StatusCode::CONFLICT, message),
            StoreError::QueueFull { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, message),
            StoreError::DiskFull => Self::new(StatusCode::INSUFFICIENT_STORAGE, message),
            StoreError::Sqlite(_) | StoreError::Newer { .. } | StoreError::Io(_) => Self::internal(message),
        }
    }
}
