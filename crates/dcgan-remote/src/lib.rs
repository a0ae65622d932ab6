//! Datasets at a URL, copied to the local disk.
//!
//! [`fetch`] takes the URL of a file, of several files, or of a folder on a web server or in an S3-compatible store. It
//! copies what is not there yet into a cache folder and returns the path of the copy, which is opened like any dataset.
//! An interrupted copy resumes where it stopped. A file whose version (ETag, otherwise length and time) has changed is
//! copied again. If the server cannot be asked, a complete copy is used as it is.
//!
//! # URLs
//!
//! - `https://host/folder/train.tar`, `http://...`: a file. `train-{000..127}.tar` and `{train,val}.parquet` are
//!   several files. A URL that ends in `/` is a folder of a `WebDAV` server; others cannot list folders.
//! - `s3://bucket/prefix/`: all objects with this prefix; `s3://bucket/train.tar`: an object, also with braces.
//!
//! # Settings
//!
//! The usual environment variables: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`,
//! `AWS_REGION`, `AWS_ENDPOINT_URL` for stores other than Amazon's, `AWS_SKIP_SIGNATURE=true` for public buckets,
//! and all others that `object_store` knows. [`AUTHORIZATION_VARIABLE`] is the header `Authorization` for web
//! servers.
//!
//! # Features
//!
//! `stores`: without it, [`fetch`] is an error that says how to build with it. It adds about 100 libraries.
//!
//! `hub`: models of the Hugging Face Hub ([`pull`], `push`), on hf-hub. Its environment variables are those of the
//! Hub's own programs: `HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT`. It adds about 130 libraries.
//!
//! Modules, each uses only those before it: `error`, `options`, `address`, `store`, `copy`, `fetch`; and `hub`.

#[cfg(feature = "stores")]
mod address;
#[cfg(feature = "stores")]
mod copy;
mod error;
#[cfg(feature = "stores")]
mod fetch;
mod hub;
mod options;
#[cfg(feature = "stores")]
mod store;

pub use error::RemoteError;
#[cfg(feature = "stores")]
pub use fetch::{fetch, fetched};
#[cfg(feature = "hub")]
pub use hub::push;
pub use hub::{HubAddress, HubError, is_hub_address, pull};
pub use options::{AUTHORIZATION_VARIABLE, FetchOptions, Progress, is_address};

/// Without the feature `stores`.
///
/// # Errors
///
/// [`RemoteError::NotBuilt`].
#[cfg(not(feature = "stores"))]
pub fn fetch(
    address: &str,
    _options: &FetchOptions,
    _progress: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<std::path::PathBuf, RemoteError> {
    Err(RemoteError::NotBuilt { address: address.split('?').next().unwrap_or_default().to_owned() })
}

/// Without the feature `stores`: there are no copies.
#[cfg(not(feature = "stores"))]
pub fn fetched(_address: &str, _options: &FetchOptions) -> Option<std::path::PathBuf> {
    None
}
