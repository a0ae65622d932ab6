//! The page: a few static files compiled in. They tell nothing, so they are given to anyone; what they show, they ask for.

use super::Part;
use crate::service::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::hash::{DefaultHasher, Hash, Hasher};

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name below `/page/`, content type, content.
const FILES: [(&str, &str, &str); 12] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    ("main.js", SCRIPT, include_str!("../page/main.js")),
    ("api.js", SCRIPT, include_str!("../page/api.js")),
    ("dom.js", SCRIPT, include_str!("../page/dom.js")),
    ("chart.js", SCRIPT, include_str!("../page/chart.js")),
    ("jobs.js", SCRIPT, include_str!("../page/jobs.js")),
    ("new.js", SCRIPT, include_str!("../page/new.js")),
    ("job.js", SCRIPT, include_str!("../page/job.js")),
    ("samples.js", SCRIPT, include_str!("../page/samples.js")),
    ("explore.js", SCRIPT, include_str!("../page/explore.js")),
    ("latent.js", SCRIPT, include_str!("../page/latent.js")),
];

/// Nothing from elsewhere, no script in the page's own text, and no frame of another page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a path belongs to the page.
pub(crate) fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with("/page/")
}

pub(crate) async fn index(headers: HeaderMap) -> Response {
    answer(&headers, "text/html; charset=utf-8", include_str!("../page/index.html"))
}

pub(crate) async fn file(Part([name]): Part<1>, headers: HeaderMap) -> Result<Response, ApiError> {
    let file = FILES.iter().find(|(known, ..)| *known == name);
    let (_, kind, text) = file.ok_or_else(|| ApiError::not_found("the page has no such file"))?;
    Ok(answer(&headers, kind, text))
}

/// A browser asks each time whether its copy is still good: after an update none may be left from before.
fn answer(headers: &HeaderMap, kind: &'static str, text: &'static str) -> Response {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let has_it = headers.get(header::IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == tag.as_bytes());
    let (status, body) =
        if has_it { (StatusCode::NOT_MODIFIED, Body::empty()) } else { (StatusCode::OK, text.into()) };
    let mut response = (status, [(header::ETAG, tag)], body).into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
