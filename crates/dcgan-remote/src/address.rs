//! URLs of datasets.

use dcgan_base::digest::Digest;
use url::Url;

use crate::error::RemoteError;

/// Maximum number of files that braces stand for.
const MAX_FILES: usize = 1_000_000;

/// Parameters of presigned URLs: they change each time a URL is signed.
const SIGNATURES: [&str; 2] = ["X-Amz-", "X-Goog-"];

/// Where the files are.
#[derive(Debug, PartialEq)]
pub(crate) enum Address {
    /// Objects of a bucket. A name that is empty or ends in `/` is a prefix.
    S3 { bucket: String, names: Vec<String> },
    /// Files of a server, as paths with percent encoding; one that ends in `/` is a folder.
    Http { server: Url, paths: Vec<String> },
}

impl Address {
    /// # Errors
    ///
    /// [`RemoteError::Address`].
    pub(crate) fn parse(text: &str) -> Result<Self, RemoteError> {
        let fault = |problem: String| RemoteError::Address { address: without_secrets(text), problem };
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        if scheme.eq_ignore_ascii_case("s3") || scheme.eq_ignore_ascii_case("s3a") {
            let (bucket, name) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(fault("the bucket is missing, expected s3://BUCKET/NAME".to_owned()));
            }
            let names = expand(name).map_err(fault)?;
            return Ok(Self::S3 { bucket: bucket.to_owned(), names });
        }
        let mut server = None;
        let mut paths = Vec::new();
        for text in expand(text).map_err(fault)? {
            let mut url = Url::parse(&text).map_err(|error| fault(error.to_string()))?;
            if !url.username().is_empty() || url.password().is_some() {
                let problem = "the URL has a password, which would be stored with the run: remove it, and set \
                               DCGAN_HTTP_AUTHORIZATION, such as `Basic ...` or `Bearer ...`";
                return Err(fault(problem.to_owned()));
            }
            paths.push(url.path().trim_start_matches('/').to_owned());
            url.set_path("");
            url.set_fragment(None);
            if server.get_or_insert_with(|| url.clone()) != &url {
                return Err(fault("all files must be on one server, with one query".to_owned()));
            }
        }
        match server {
            Some(server) => Ok(Self::Http { server, paths }),
            None => Err(fault("no file".to_owned())),
        }
    }
}

/// A URL without its query, which may be a signature, and without a password.
pub(crate) fn without_secrets(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if url.host().is_some() && !text.contains(['{', ' ']) && text.starts_with("http") => {
            // Fails for URLs without a host only.
            let _ = url.set_password(None);
            let _ = url.set_username("");
            url.set_query(None);
            url.to_string()
        }
        _ => {
            let text = text.split_once('?').map_or(text, |(text, _)| text);
            match text.split_once("://") {
                Some((scheme, rest)) => {
                    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
                    format!("{scheme}://{host}{path}")
                }
                None => text.to_owned(),
            }
        }
    }
}

/// The name of the folder in the cache: readable, and different for each URL and settings.
pub(crate) fn folder_name(text: &str, endpoint: Option<&str>) -> String {
    let (address, query) = text.split_once('?').unwrap_or((text, ""));
    let is_kept = |parameter: &&str| !SIGNATURES.iter().any(|signature| parameter.starts_with(signature));
    let query: Vec<&str> = query.split('&').filter(is_kept).collect();
    let mut digest = Digest::default();
    digest.field(address).field(query.join("&")).field(endpoint.unwrap_or_default());
    let last = address.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain: String = last.chars().map(|c| if is_plain(c) { c } else { '_' }).take(60).collect();
    format!("{plain}-{}", digest.hex().get(..16).unwrap_or_default())
}

/// Expands braces as shells do: `{a,b}` and `{08..11}`, with leading zeros.
fn expand(text: &str) -> Result<Vec<String>, String> {
    let mut done = Vec::new();
    let mut open = vec![text.to_owned()];
    while let Some(text) = open.pop() {
        let Some(start) = text.find('{') else {
            done.push(text);
            continue;
        };
        let (before, rest) = text.split_at(start);
        let inner = rest.get(1..).unwrap_or_default();
        let Some((inner, after)) = inner.split_once('}') else {
            return Err(format!("a brace is not closed: {rest}"));
        };
        let items = match inner.split_once("..") {
            Some((first, last)) => range(first, last)?,
            None if inner.contains(',') => inner.split(',').map(str::to_owned).collect(),
            None => {
                return Err(format!(
                    "{{{inner}}} is neither a list, such as {{a,b}}, nor a range, such as {{00..99}}"
                ));
            }
        };
        if done.len() + open.len() + items.len() > MAX_FILES {
            return Err(format!("the braces stand for more than {MAX_FILES} files"));
        }
        open.extend(items.into_iter().rev().map(|item| format!("{before}{item}{after}")));
    }
    Ok(done)
}

fn range(first: &str, last: &str) -> Result<Vec<String>, String> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.len() <= 9 && text.bytes().all(|c| c.is_ascii_digit());
        let fault = || format!("{{{first}..{last}}} is not a range of numbers, such as {{00..99}}");
        text.parse::<usize>().ok().filter(|_| is_number).ok_or_else(fault)
    };
    let (from, to) = (number(first)?, number(last)?);
    if from > to {
        return Err(format!("{{{first}..{last}}} starts after its end"));
    }
    if to - from >= MAX_FILES {
        return Err(format!("{{{first}..{last}}} has more than {MAX_FILES} numbers"));
    }
    let has_zeros = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if has_zeros(first) || has_zeros(last) { first.len().max(last.len()) } else { 0 };
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::is_address;

    #[test]
    fn braces_stand_for_files() {
        let rows: &[(&str, &[&str])] = &[
            ("a", &["a"]),
            ("a-{8..10}.tar", &["a-8.tar", "a-9.tar", "a-10.tar"]),
            ("{08..10}", &["08", "09", "10"]),
            ("{0..1}{a,b}", &["0a", "0b", "1a", "1b"]),
            ("x{,s}/", &["x/", "xs/"]),
        ];
        for (text, expected) in rows {
            assert_eq!(expand(text).unwrap(), *expected, "{text}");
        }
        let faults = [
            ("{a", "not closed"),
            ("{a}", "neither a list"),
            ("{a..b}", "not a range"),
            ("{3..1}", "after its end"),
            ("{0..99999999}", "more than"),
            ("{0..9999999999}", "not a range"),
            ("{0..999}{0..999}{0..9}", "more than"),
        ];
        for (text, expected) in faults {
            let message = expand(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn addresses_have_a_store_and_names() {
        for text in ["s3://b/x", "S3a://b", "https://h/x.tar", "HTTP://h"] {
            assert!(is_address(text), "{text}");
            Address::parse(text).unwrap();
        }
        for text in ["", "s3:/b", "data", "C:\\data", "file://x", "ä3://x"] {
            assert!(!is_address(text), "{text}");
        }
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let s3 = |bucket: &str, of: &[&str]| Address::S3 { bucket: bucket.to_owned(), names: names(of) };
        assert_eq!(Address::parse("s3://b").unwrap(), s3("b", &[""]));
        // A key is taken literally, without percent encoding.
        assert_eq!(Address::parse("s3://b/x y%/{1,2}?").unwrap(), s3("b", &["x y%/1?", "x y%/2?"]));
        let Address::Http { server, paths } = Address::parse("http://h:1/x%20y/{1,2}.tar?a=b#c").unwrap()
        else {
            panic!("a web server");
        };
        assert_eq!((server.as_str(), paths), ("http://h:1/?a=b", names(&["x%20y/1.tar", "x%20y/2.tar"])));
        let faults = [
            ("s3:///x", "the bucket is missing"),
            ("http://", "empty host"),
            ("http://u:secret@h/x", "DCGAN_HTTP_AUTHORIZATION"),
            ("http://h{1,2}/x", "one server"),
            ("http://h/{x", "not closed"),
        ];
        for (text, expected) in faults {
            let message = Address::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains("secret"), "{text}: {message}");
        }
    }

    #[test]
    fn folders_are_named_by_address_without_signatures() {
        let name = |text| folder_name(text, None);
        assert!(name("s3://b/some data/").starts_with("some_data-"), "{}", name("s3://b/some data/"));
        assert_eq!(name("https://h/a.tar?X-Amz-Signature=1"), name("https://h/a.tar?X-Amz-Signature=2"));
        let all =
            ["https://h/a.tar", "https://h/a.tar?f=1", "https://g/a.tar", "s3://h/a.tar", "s3://h/a.tar/"];
        let mut names: Vec<String> = all.iter().map(|text| name(text)).collect();
        names.push(folder_name("s3://h/a.tar", Some("http://localhost")));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len() + 1);
        for (text, expected) in [
            ("https://u:p@h/a?X-Amz-Signature=1", "https://h/a"),
            ("https://u:p@h/{a,b}?X", "https://h/{a,b}"),
            ("s3://b/x", "s3://b/x"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }
}
