//! The web page: static files, compiled in. They contain no data and need no token; the page gets its data through
//! `/v1`.

use super::PathParams;
use crate::service::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::hash::{DefaultHasher, Hash, Hasher};

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name below `/page/`, content type, and content of each file.
const FILES: [(&str, &str, &str); 13] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    ("main.js", SCRIPT, include_str!("../page/main.js")),
    ("api.js", SCRIPT, include_str!("../page/api.js")),
    ("dom.js", SCRIPT, include_str!("../page/dom.js")),
    ("chart.js", SCRIPT, include_str!("../page/chart.js")),
    ("jobs.js", SCRIPT, include_str!("../page/jobs.js")),
    ("new.js", SCRIPT, include_str!("../page/new.js")),
    ("job.js", SCRIPT, include_str!("../page/job.js")),
    ("outcome.js", SCRIPT, include_str!("../page/outcome.js")),
    ("samples.js", SCRIPT, include_str!("../page/samples.js")),
    ("explore.js", SCRIPT, include_str!("../page/explore.js")),
    ("latent.js", SCRIPT, include_str!("../page/latent.js")),
];

/// No resources of other origins, no inline scripts, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a path is one of the page's files.
pub(crate) fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with("/page/")
}

pub(crate) async fn index(headers: HeaderMap) -> Response {
    respond(&headers, "text/html; charset=utf-8", include_str!("../page/index.html"))
}

pub(crate) async fn file(
    PathParams([name]): PathParams<1>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = FILES.iter().find(|(known, ..)| *known == name);
    let (_, content_type, text) = file.ok_or_else(|| ApiError::not_found("no such file of the page"))?;
    Ok(respond(&headers, content_type, text))
}

/// A file with its ETag, or 304. Browsers must revalidate: after an update no old file may stay in use.
fn respond(headers: &HeaderMap, content_type: &'static str, text: &'static str) -> Response {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let etag = format!("\"{:016x}\"", hasher.finish());
    let if_none_match = headers.get(header::IF_NONE_MATCH);
    let is_current = if_none_match.is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let (status, body) =
        if is_current { (StatusCode::NOT_MODIFIED, Body::empty()) } else { (StatusCode::OK, text.into()) };
    let mut response = (status, [(header::ETAG, etag)], body).into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
