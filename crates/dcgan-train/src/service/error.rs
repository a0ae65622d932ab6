//! Errors of the service, and their HTTP responses: a status and `{"error": {"message", "faults": [{"field",
//! "message"}]}}`.

use crate::config::Fault;
use crate::service::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::io;
use std::path::PathBuf;

/// Why the service cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A file or folder cannot be accessed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process holds the store's lock.
    #[error("another service uses {}; stop it first, or choose another --store", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// The training device cannot be opened.
    #[error(transparent)]
    Device(#[from] crate::inputs::InputsError),
    /// The devices do not fit together.
    #[error("{problem}")]
    Devices {
        /// Why.
        problem: String,
    },
    /// The database cannot be read or written.
    #[error("{}: {problem}", path.display())]
    Store {
        /// The database.
        path: PathBuf,
        /// The error of the store.
        problem: String,
    },
    /// The address is reachable from other machines and no token is set.
    #[error("{address} can be reached from other machines: give --token-file, or listen on 127.0.0.1")]
    Open {
        /// The address to listen on.
        address: String,
    },
    /// A thread or a socket failed.
    #[error("the service cannot run: {0}")]
    Runtime(io::Error),
}

/// The error response of a request.
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
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 422 with all `faults`.
    pub(crate) fn faults(faults: Vec<Fault>) -> Self {
        let message = match faults.as_slice() {
            [fault] => fault.message.clone(),
            faults => format!("{} faults", faults.len()),
        };
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, message, faults }
    }

    /// 500. The cause is logged and not sent to the client.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error; see the service's log")
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
            StoreError::NotFound => Self::not_found(message),
            StoreError::Conflict { .. } | StoreError::OptimizerDropped => {
                Self::new(StatusCode::CONFLICT, message)
            }
            StoreError::QueueFull { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, message),
            StoreError::DiskFull => Self::new(StatusCode::INSUFFICIENT_STORAGE, message),
            StoreError::Sqlite(_) | StoreError::NewerSchema { .. } | StoreError::Io(_) => {
                Self::internal(message)
            }
        }
    }
}
