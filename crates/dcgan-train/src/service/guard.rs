//! What every request passes: who may ask, from where, for how long; and the clock that /metrics reads.

use super::Shared;
use super::api::page::is_page;
use super::error::ApiError;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Time to the beginning of an answer, the reading of the request's body included.
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a request's body.
pub(crate) const BODY_BYTES: usize = 1 << 20;

/// Paths that tell nothing and are asked for by programs that hold no token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Refuses what may not be asked, and what takes too long.
pub(crate) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if let Err(error) = check(&shared, &request) {
        return error.into_response();
    }
    match tokio::time::timeout(LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable(format!("no answer within {} s", LIMIT.as_secs())).into_response(),
    }
}

fn check(shared: &Shared, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "the request names more than one host"));
    }
    match &shared.token {
        _ if OPEN.contains(&request.uri().path()) || is_page(request.uri().path()) => {}
        Some(token) => check_token(headers, token)?,
        // A web page can make its own name lead here (DNS rebinding), and then reads what this machine alone should.
        None if !names_this_machine(headers) => {
            let message = "without --token-file the service answers to localhost and 127.0.0.1 only";
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
        None => {}
    }
    let origin = headers.get(header::ORIGIN).map(|origin| origin.as_bytes());
    let allowed = |origin: &[u8]| {
        shared.allow_origin.as_deref().is_some_and(|allowed| origin == allowed.as_bytes())
            || headers.get(header::HOST).is_some_and(|host| {
                // With TLS in front the page's origin is another one than this service sees.
                [&b"http://"[..], b"https://"]
                    .into_iter()
                    .any(|scheme| origin == [scheme, host.as_bytes()].concat())
            })
            || headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin")
    };
    // Browsers send some requests to any service and only hide the answer from the page.
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && origin.is_some_and(|origin| !allowed(origin)) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "requests of this web page are not answered"));
    }
    // Said before anything of it is sent; a body that does not say its length is cut off where it becomes too long.
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_BYTES as u64) {
        let message = format!("the body is longer than {BODY_BYTES} bytes");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(())
}

fn check_token(headers: &HeaderMap, token: &str) -> Result<(), ApiError> {
    let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let (scheme, given) = given.split_at_checked(7).unwrap_or((b"", b""));
    // In a time that does not tell how much of it is right.
    let equal: bool = given.ct_eq(token.as_bytes()).into();
    if scheme.eq_ignore_ascii_case(b"bearer ") && equal {
        Ok(())
    } else {
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "this needs the header Authorization: Bearer TOKEN"))
    }
}

/// Whether the request was sent to localhost or to a loopback address; programs that name no host are no browsers.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Counts the request under its matched path, so that ids make no labels.
pub(crate) async fn clock(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let path = path.as_deref().unwrap_or("other");
    shared.metrics.count_request(method.as_str(), path, response.status().as_u16(), started.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn hosts_and_tokens() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:8421", true),
            ("127.0.0.1:8421", true),
            ("127.9.9.9", true),
            ("[::1]:80", true),
            ("[::1]", true),
            ("example.com", false),
            ("localhost.example.com:8421", false),
            ("10.0.0.1", false),
            ("127.0.0.1.example.com", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(names_this_machine(&headers), expected, "{host:?}");
        }
        for (given, expected) in [
            ("Bearer secret", true),
            ("bearer secret", true),
            ("Bearer secre", false),
            ("Bearer secrets", false),
            ("Bearer  secret", false),
            ("Basic secret", false),
            ("secret", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(given))]);
            assert_eq!(check_token(&headers, "secret").is_ok(), expected, "{given:?}");
        }
    }
}
