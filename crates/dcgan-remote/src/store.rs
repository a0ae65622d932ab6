//! Stores: what files are at a URL, and the bytes of one.

use std::collections::HashSet;
use std::error::Error as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt,
    RetryConfig,
};
use serde::{Deserialize, Serialize};

use crate::address::{Address, without_secrets};
use crate::error::RemoteError;
use crate::options::AUTHORIZATION_VARIABLE;

/// Longest name of a local file, in bytes, on the usual file systems.
const MAX_NAME: usize = 255;

/// Requests at once.
pub(crate) const REQUESTS: usize = 16;

/// A file at a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteFile {
    /// Its path in the store.
    pub(crate) location: String,
    /// Its path below the copy's folder, with `/`.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Changes when the content does.
    pub(crate) version: String,
}

/// The store of a URL.
pub(crate) struct Store {
    store: Arc<dyn ObjectStore>,
    address: Address,
    /// For messages.
    text: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("address", &self.text).finish_non_exhaustive()
    }
}

impl Store {
    /// # Errors
    ///
    /// An invalid URL or setting.
    pub(crate) fn open(
        text: &str,
        variables: &[(String, String)],
        retry_seconds: u64,
    ) -> Result<Self, RemoteError> {
        let address = Address::parse(text)?;
        let text = without_secrets(text);
        // Fails where the program has chosen another one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fault = |error: Error| RemoteError::Address { address: text.clone(), problem: describe(&error) };
        let retry =
            RetryConfig { retry_timeout: Duration::from_secs(retry_seconds), ..RetryConfig::default() };
        let store: Arc<dyn ObjectStore> = match &address {
            Address::S3 { bucket, .. } => {
                let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(retry);
                for (name, value) in variables {
                    let key = name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse());
                    if let Some(Ok(key)) = key {
                        builder = builder.with_config(key, value);
                    }
                }
                // A user who names a local store by its URL wants it as it is.
                let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
                if endpoints.iter().any(|key| is_http(builder.get_config_value(key))) {
                    builder = builder.with_allow_http(true);
                }
                Arc::new(builder.build().map_err(fault)?)
            }
            Address::Http { server, .. } => {
                let mut options = ClientOptions::new().with_allow_http(server.scheme() == "http");
                let header = variables.iter().find(|(name, _)| name == AUTHORIZATION_VARIABLE);
                if let Some((_, value)) = header.filter(|(_, value)| !value.is_empty()) {
                    let mut value = HeaderValue::from_str(value).map_err(|_| RemoteError::Address {
                        address: text.clone(),
                        problem: format!("{AUTHORIZATION_VARIABLE} is not the value of a header"),
                    })?;
                    value.set_sensitive(true);
                    options = options.with_default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
                }
                let builder = HttpBuilder::new()
                    .with_url(server.as_str())
                    .with_client_options(options)
                    .with_retry(retry);
                Arc::new(builder.build().map_err(fault)?)
            }
        };
        Ok(Self { store, address, text })
    }

    /// The files at the URL, by name.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or refuses; there are no files, or files with names that no local file can have.
    pub(crate) async fn list(&self) -> Result<Vec<RemoteFile>, RemoteError> {
        let names = match &self.address {
            Address::S3 { names, .. } => names.clone(),
            Address::Http { paths, .. } => paths.clone(),
        };
        let is_s3 = matches!(self.address, Address::S3 { .. });
        let found: Vec<Vec<ObjectMeta>> = stream::iter(names)
            .map(|name| async move {
                let is_folder = name.is_empty() || name.ends_with('/');
                let path = if is_s3 { Path::parse(&name) } else { Path::from_url_path(&name) };
                let path = path.map_err(|_| self.invalid_name(&name))?;
                if is_folder {
                    return self.list_folder(path).await;
                }
                match self.describe_file(&path).await {
                    Ok(file) => Ok(vec![file]),
                    // A prefix without a slash: not every store says that there is no such object.
                    Err(error) if is_s3 => {
                        let found = self.list_folder(path).await.unwrap_or_default();
                        if found.is_empty() { Err(self.error(&name, &error)) } else { Ok(found) }
                    }
                    Err(error) => Err(self.error(&name, &error)),
                }
            })
            .buffered(REQUESTS)
            .try_collect()
            .await?;
        let found: Vec<ObjectMeta> = found.into_iter().flatten().collect();
        let skip = self.common_folder(&found);
        let mut files = Vec::new();
        for meta in found {
            let location = meta.location.as_ref().to_owned();
            let name = location.get(skip..).unwrap_or_default().to_owned();
            if !name.split('/').all(is_file_name) {
                return Err(self.invalid_name(&location));
            }
            files.push(RemoteFile { version: version(&meta), bytes: meta.size, location, name });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup_by(|a, b| a.name == b.name);
        if files.is_empty() { Err(self.no_files("")) } else { Ok(files) }
    }

    /// Bytes of a file; its whole content without a `range`.
    ///
    /// # Errors
    ///
    /// Those of the server; [`RemoteError::Changed`].
    pub(crate) async fn get(
        &self,
        file: &RemoteFile,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<impl AsRef<[u8]> + use<>, Error>>, RemoteError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let path = Path::parse(&file.location).map_err(|_| self.invalid_name(&file.location))?;
        let got: GetResult =
            self.store.get_opts(&path, options).await.map_err(|error| self.error(&file.location, &error))?;
        if !is_version(&got.meta, &file.version) || got.meta.size != file.bytes {
            return Err(RemoteError::Changed { address: self.address_of(&file.location) });
        }
        Ok(got.into_stream())
    }

    pub(crate) fn error(&self, location: &str, error: &Error) -> RemoteError {
        let fix = match error {
            Error::NotFound { .. } => {
                return RemoteError::NoFiles { address: self.address_of(location) };
            }
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => match self.address {
                Address::S3 { .. } => {
                    "; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or AWS_SKIP_SIGNATURE=true for a \
                     public bucket"
                }
                Address::Http { .. } => "; DCGAN_HTTP_AUTHORIZATION is the header Authorization",
            },
            _ if describe(error).contains("169.254.169.254") => {
                "; no credentials are set: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true \
                 for a public bucket"
            }
            _ => "",
        };
        RemoteError::Store { address: self.address_of(location), problem: describe(error), fix }
    }

    /// The URL of a file.
    fn address_of(&self, location: &str) -> String {
        let location = location.trim_start_matches('/');
        match &self.address {
            _ if location.is_empty() => self.text.clone(),
            Address::S3 { bucket, .. } => format!("s3://{bucket}/{location}"),
            Address::Http { server, .. } => without_secrets(&format!("{}/{location}", origin(server))),
        }
    }

    fn no_files(&self, location: &str) -> RemoteError {
        RemoteError::NoFiles { address: self.address_of(location) }
    }

    fn invalid_name(&self, name: &str) -> RemoteError {
        RemoteError::Name { address: self.text.clone(), name: name.to_owned() }
    }

    /// By HEAD, or by GET where a server answers nothing else, as for presigned URLs.
    async fn describe_file(&self, path: &Path) -> Result<ObjectMeta, Error> {
        match self.store.head(path).await {
            Err(error) if !matches!(error, Error::NotFound { .. }) => {
                let got = self.store.get(path).await;
                got.map(|got| got.meta).map_err(|_| error)
            }
            found => found,
        }
    }

    async fn list_folder(&self, path: Path) -> Result<Vec<ObjectMeta>, RemoteError> {
        let files = self.store.list(Some(&path)).try_collect().await;
        files.map(|files| without_markers(&path, files)).map_err(|error| match self.address {
            Address::Http { .. } => RemoteError::Store {
                address: self.address_of(path.as_ref()),
                problem: format!("the server does not list folders: {}", describe(&error)),
                fix: "; name the files, such as train-{000..127}.tar",
            },
            Address::S3 { .. } => self.error(path.as_ref(), &error),
        })
    }

    /// Bytes of the longest folder that all files are in.
    fn common_folder(&self, files: &[ObjectMeta]) -> usize {
        let mut files = files.iter().map(|meta| meta.location.as_ref());
        let Some(first) = files.next() else { return 0 };
        let folder = |text: &str| text.rfind('/').map_or(0, |slash| slash + 1);
        let common = |length: usize, file: &str| {
            let equal = first.bytes().zip(file.bytes()).take(length).take_while(|(a, b)| a == b).count();
            first.get(..equal).map_or(0, folder)
        };
        files.fold(folder(first), common)
    }
}

/// Without the empty objects that tools create for folders: `path` itself, and folders of others. Their names end with
/// a slash, which [`Path`] drops.
fn without_markers(path: &Path, mut files: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
    let parents = |location: &Path| {
        let text = location.as_ref();
        text.match_indices('/')
            .filter_map(|(slash, _)| text.get(..slash).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let folders: HashSet<String> = files.iter().flat_map(|meta| parents(&meta.location)).collect();
    files.retain(|meta| meta.size > 0 || meta.location != *path && !folders.contains(meta.location.as_ref()));
    files
}

fn is_http(endpoint: Option<String>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

fn origin(server: &url::Url) -> String {
    server.origin().ascii_serialization()
}

/// Whether a part of a path is the name of a file or folder on every system, and not a step upwards.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && !name.contains(['/', '\\', '\0', ':'])
}

/// The ETag, otherwise the time; the length is compared as well.
fn version(meta: &ObjectMeta) -> String {
    meta.e_tag.clone().unwrap_or_else(|| time_version(meta))
}

/// Whether a file still has its version. A listing may lack the ETag that the file has.
fn is_version(meta: &ObjectMeta, version: &str) -> bool {
    meta.e_tag.as_deref() == Some(version) || time_version(meta) == version
}

fn time_version(meta: &ObjectMeta) -> String {
    format!("time {}", meta.last_modified.timestamp())
}

/// The innermost causes in one line, without the query of a URL, which may be a signature.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    let mut plain = String::new();
    let mut is_query = false;
    for c in text.replace(['\n', '\r'], " ").chars() {
        is_query = if c == '?' { true } else { is_query && !matches!(c, ' ' | ')' | '"') };
        if !is_query {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_of_folders_are_no_files() {
        let meta = |(location, size): (&str, u64)| ObjectMeta {
            location: Path::parse(location).unwrap(),
            last_modified: Default::default(),
            size,
            e_tag: None,
            version: None,
        };
        let listed =
            [("set/", 0), ("set/train/", 0), ("set/train/1.png", 9), ("set/empty.txt", 0), ("set/train", 3)];
        let files = without_markers(&Path::from("set"), listed.map(meta).into());
        let names: Vec<&str> = files.iter().map(|meta| meta.location.as_ref()).collect();
        assert_eq!(names, ["set/train/1.png", "set/empty.txt", "set/train"]);
    }

    #[test]
    fn names_are_those_of_files() {
        for name in ["a", "a b.tar", "...", "ä"] {
            assert!(is_file_name(name), "{name}");
        }
        let long = "x".repeat(256);
        for name in ["", ".", "..", "a\\b", "c:", "a\0", &long] {
            assert!(!is_file_name(name), "{name}");
        }
    }
}
