//! Access control: host names, the token, origins.

use super::AppState;
use super::api::page::is_page;
use super::error::ApiError;
use super::limits::BODY_BYTES;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Health checks need no token: they reveal nothing, and their callers often have none.
const PUBLIC_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// Log lines of each kind of refusal within [`LOG_INTERVAL`]; more are counted.
const LOG_LINES: u32 = 20;
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Characters of a header or path in a log line or message.
const LOGGED_CHARS: usize = 200;

/// Address of the client, an extension of each request. Behind a proxy it is that of the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) SocketAddr);

/// Middleware that rejects requests without access.
pub(crate) async fn authorize(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    match check(&state, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(state: &AppState, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "the request has more than one Host header"));
    }
    match &state.token {
        _ if PUBLIC_PATHS.contains(&request.uri().path()) || is_page(request.uri().path()) => {}
        Some(token) => check_token(headers, token).inspect_err(|_| log_refused_token(state, request))?,
        // DNS rebinding: a web page can resolve its own host name to this machine and then read the responses.
        None if !is_loopback_host(headers) => {
            log_refusal(&state.refusals.host, request, "request for another host refused");
            let message = format!(
                "the Host header is {}; without --token-file the service accepts only localhost and 127.0.0.1: open \
                 {}, or start the service with --token-file (--allow-origin allows pages of other origins, not hosts)",
                header_text(headers, &header::HOST),
                state.base_url(),
            );
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
        None => {}
    }
    let origin = headers.get(header::ORIGIN).map(|origin| origin.as_bytes());
    let is_allowed = |origin: &[u8]| {
        state.allow_origin.as_deref().is_some_and(|allowed| origin == allowed.as_bytes())
            || headers.get(header::HOST).is_some_and(|host| {
                // Behind a TLS proxy the page's scheme is https, which the service does not see.
                [&b"http://"[..], b"https://"]
                    .into_iter()
                    .any(|scheme| origin == [scheme, host.as_bytes()].concat())
            })
            || headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin")
    };
    // CSRF: browsers send simple cross-origin requests and only hide the response from the page.
    let is_unsafe = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if is_unsafe && origin.is_some_and(|origin| !is_allowed(origin)) {
        log_refusal(&state.refusals.origin, request, "request from another origin refused");
        return Err(ApiError::new(StatusCode::FORBIDDEN, origin_message(state, headers)));
    }
    // Rejected before the body is sent; a body without Content-Length is cut off at the limit.
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_BYTES as u64) {
        let message = format!("the body is longer than {BODY_BYTES} bytes");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(())
}

/// Logs a request with an invalid token, for audits. The page sends its first request without a token, which is no
/// incident.
fn log_refused_token(state: &AppState, request: &Request) {
    if request.headers().contains_key(header::AUTHORIZATION) {
        log_refusal(&state.refusals.token, request, "request with an invalid token refused");
    } else {
        let (client, method, path) = (client(request), request.method(), request.uri().path());
        tracing::debug!(%client, %method, %path, "request without a token refused");
    }
}

fn client(request: &Request) -> String {
    let client = request.extensions().get::<ClientAddress>();
    client.map_or_else(|| "unknown".to_owned(), |address| address.0.to_string())
}

/// Logs a refused request, unless too many of its kind were logged within the last minute.
fn log_refusal(lines: &LogLimit, request: &Request, message: &'static str) {
    let Some(not_logged) = lines.next_line(Instant::now()) else { return };
    let (method, headers) = (request.method(), request.headers());
    let path: String = request.uri().path().chars().take(LOGGED_CHARS).collect();
    let (host, origin) = (header_text(headers, &header::HOST), header_text(headers, &header::ORIGIN));
    tracing::warn!(client = %client(request), %method, %path, %host, %origin, not_logged, "{message}");
}

/// The value of a header, quoted for messages and log lines, or `missing`.
fn header_text(headers: &HeaderMap, name: &HeaderName) -> String {
    let Some(value) = headers.get(name) else { return "missing".to_owned() };
    let text: String = String::from_utf8_lossy(value.as_bytes()).chars().take(LOGGED_CHARS).collect();
    format!("{text:?}")
}

/// Why an origin is refused, and how to allow it.
fn origin_message(state: &AppState, headers: &HeaderMap) -> String {
    let value = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let allow =
        if is_origin(value) { format!("--allow-origin {value}") } else { "--allow-origin".to_owned() };
    format!(
        "requests from the origin {} are not allowed (Host: {}): open {}, or start the service with {allow}; a \
         reverse proxy must pass the Host header on",
        header_text(headers, &header::ORIGIN),
        header_text(headers, &header::HOST),
        state.base_url(),
    )
}

/// Whether `text` is an origin as browsers send it, `scheme://host[:port]`.
pub fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/'))
}

/// Log lines of refused requests, by reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    token: LogLimit,
    host: LogLimit,
    origin: LogLimit,
}

/// A limit of log lines per minute: requests cost a client nothing, log lines fill the disk.
#[derive(Debug, Default)]
struct LogLimit(Mutex<LoggedLines>);

#[derive(Debug, Default)]
struct LoggedLines {
    /// Start of the current minute.
    since: Option<Instant>,
    lines: u32,
    /// Requests without a line since the last line.
    not_logged: u64,
}

impl LogLimit {
    /// Whether a line may be logged now; then the number of requests since the last line that were not logged.
    fn next_line(&self, now: Instant) -> Option<u64> {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.since.is_none_or(|since| now.duration_since(since) >= LOG_INTERVAL) {
            (logged.since, logged.lines) = (Some(now), 0);
        }
        if logged.lines == LOG_LINES {
            logged.not_logged += 1;
            return None;
        }
        logged.lines += 1;
        Some(std::mem::take(&mut logged.not_logged))
    }
}

fn check_token(headers: &HeaderMap, token: &str) -> Result<(), ApiError> {
    let value = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let (scheme, credentials) = value.split_at_checked(7).unwrap_or((b"", b""));
    // Constant time: the duration does not reveal how many bytes match.
    let is_equal: bool = credentials.ct_eq(token.as_bytes()).into();
    if scheme.eq_ignore_ascii_case(b"bearer ") && is_equal {
        Ok(())
    } else {
        let message = "missing or invalid token: send the header Authorization: Bearer TOKEN";
        Err(ApiError::new(StatusCode::UNAUTHORIZED, message))
    }
}

/// Whether the Host header is localhost or a loopback address. A request without one does not come from a browser.
fn is_loopback_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn log_lines_are_limited_by_minute() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let at = |seconds| limit.next_line(start + Duration::from_secs(seconds));
        for _ in 0..LOG_LINES {
            assert_eq!(at(0), Some(0));
        }
        assert_eq!((at(1), at(59), at(60), at(61)), (None, None, Some(2), Some(0)));
    }

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
            assert_eq!(is_loopback_host(&headers), expected, "{host:?}");
        }
        for (value, expected) in [
            ("Bearer secret", true),
            ("bearer secret", true),
            ("Bearer secre", false),
            ("Bearer secrets", false),
            ("Bearer  secret", false),
            ("Basic secret", false),
            ("secret", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(check_token(&headers, "secret").is_ok(), expected, "{value:?}");
        }
    }
}
