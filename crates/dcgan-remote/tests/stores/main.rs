//! Copies from servers: a web server with faults, and an S3 server that checks signatures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]
#![allow(clippy::cast_possible_truncation, reason = "seeds are small, and contents repeat")]

mod s3;
mod web_server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dcgan_remote::{AUTHORIZATION_VARIABLE, FetchOptions, Progress, RemoteError, fetch, fetched};
use web_server::{Behavior, WebServer};

/// More than the bytes of two requests.
const LARGE: usize = 9 << 20;

fn content(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i / 7 % 251) as u8 ^ seed).collect()
}

/// Files with their content, seeds 0, 1 and so on.
fn serve(files: &[(&str, usize)]) -> WebServer {
    let files = files.iter().enumerate();
    let files = files.map(|(seed, (path, length))| {
        ((*path).to_owned(), (content(*length, seed as u8), format!("v{seed}")))
    });
    WebServer::start(Behavior { files: files.collect(), ..Behavior::default() })
}

fn options(folder: &Path) -> FetchOptions {
    FetchOptions { variables: Vec::new(), retry_seconds: 1, ..FetchOptions::new(folder) }
}

fn copy(address: &str, options: &FetchOptions) -> Result<PathBuf, RemoteError> {
    fetch(address, options, &|_| true)
}

/// All files below a path, by name.
fn files_below(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![path.to_owned()];
    while let Some(next) = open.pop() {
        if next.is_dir() {
            open.extend(std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = next.strip_prefix(path).unwrap().to_string_lossy().into_owned();
            found.insert(name, std::fs::read(&next).unwrap());
        }
    }
    found
}

/// Makes all listings too old to be used without asking the server.
fn age(folder: &Path) {
    for entry in std::fs::read_dir(folder.join("remote")).unwrap() {
        let listing = std::fs::File::options().write(true).open(entry.unwrap().path().join("listing.json"));
        listing.unwrap().set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }
}

#[test]
fn files_are_copied_by_every_kind_of_web_server() {
    let one: &[(&str, usize)] = &[("/x%20y/a.tar", LARGE)];
    let several: &[(&str, usize)] = &[("/d/1/a.tar", 1000), ("/d/2/a.tar", 0), ("/d/2/b.tar", LARGE)];
    /// The files of the server, the address, and what is special.
    type Row<'a> = (&'a str, &'a [(&'a str, usize)], &'a str, fn(&mut Behavior));
    let rows: &[Row<'_>] = &[
        ("one file", one, "/x%20y/a.tar", |_| {}),
        ("a query", one, "/x%20y/a.tar?X-Amz-Signature=1", |_| {}),
        ("no version", one, "/x%20y/a.tar", |b| b.files.values_mut().for_each(|file| file.1.clear())),
        ("no ranges", one, "/x%20y/a.tar", |b| b.has_no_ranges = true),
        ("no HEAD", one, "/x%20y/a.tar", |b| b.refuses_head = true),
        ("cut connections", one, "/x%20y/a.tar", |b| b.cuts = 2),
        ("several", several, "/d/{1/a,2/a,2/b}.tar", |_| {}),
        ("several, no ranges", several, "/d/{1/a,2/a,2/b}.tar", |b| b.has_no_ranges = true),
    ];
    for (name, files, address, change) in rows {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(files);
        server.set(change);
        let address = format!("{}{address}", server.address);
        let options = options(folder.path());
        assert_eq!(fetched(&address, &options), None, "{name}");
        let path = copy(&address, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
        if let [(file, length)] = files {
            assert_eq!(path.file_name().unwrap(), "a.tar", "{name}: {file}");
            assert!(std::fs::read(&path).unwrap() == content(*length, 0), "{name}: other bytes");
        } else {
            let found = files_below(&path);
            let expected = files.iter().enumerate().map(|(seed, (file, length))| {
                (file.trim_start_matches("/d/").to_owned(), content(*length, seed as u8))
            });
            assert!(found == expected.collect(), "{name}: {:?}", found.keys());
        }
        // What is here is not copied again, nor is the server asked at once.
        server.take();
        assert_eq!(copy(&address, &options).unwrap(), path, "{name}");
        assert_eq!(server.take().0, [""; 0], "{name}");
        assert_eq!(fetched(&address, &options).as_ref(), Some(&path), "{name}");
        age(folder.path());
        assert_eq!(copy(&address, &options).unwrap(), path, "{name}");
        let (requests, _) = server.take();
        let is_asked = requests.iter().all(|request| !request.contains("bytes="));
        assert!(is_asked && requests.len() >= files.len(), "{name}: {requests:?}");
        // Without the server, the copy is used.
        age(folder.path());
        server.set(|b| b.is_down = true);
        assert_eq!(copy(&address, &options).unwrap(), path, "{name}");
        // A file that is damaged is copied again.
        let damaged = if path.is_dir() { path.join("1/a.tar") } else { path.clone() };
        std::fs::write(&damaged, b"short").unwrap();
        assert_eq!(fetched(&address, &options), None, "{name}");
        server.set(|b| b.is_down = false);
        assert_eq!(copy(&address, &options).unwrap(), path, "{name}");
        assert!(std::fs::read(&damaged).unwrap() == content(files[0].1, 0), "{name}: not repaired");
    }
}

#[test]
fn a_copy_goes_on_where_it_was_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&[("/a.tar", 4 * LARGE)]);
    let address = format!("{}/a.tar", server.address);
    let options = options(folder.path());
    let bytes = 4 * LARGE as u64;
    let stop = |progress: Progress| progress.done == 0;
    let mut rounds = 0;
    // A round may be over before its progress is looked at.
    while let Err(error) = fetch(&address, &options, &stop) {
        assert!(matches!(error, RemoteError::Cancelled), "{error}");
        assert_eq!(fetched(&address, &options), None);
        rounds += 1;
        assert!(rounds < 100, "no progress");
        let partial = files_below(folder.path()).into_iter().find(|(name, _)| name.contains("partial"));
        if let Some((_, partial)) = partial.filter(|(_, bytes)| !bytes.is_empty()) {
            server.take();
            let reports = std::sync::Mutex::new(Vec::new());
            let path = fetch(&address, &options, &|progress| {
                reports.lock().unwrap().push(progress);
                true
            });
            assert!(std::fs::read(path.unwrap()).unwrap() == content(4 * LARGE, 0));
            // Requests of the round before may still be answered; they are for later bytes.
            let (requests, _) = server.take();
            let start = |request: &String| request.split_once("bytes=")?.1.split('-').next()?.parse().ok();
            let starts: Vec<usize> = requests.iter().filter_map(start).collect();
            assert_eq!(starts.iter().min(), Some(&partial.len()), "only what was missing");
            let reports = reports.into_inner().unwrap();
            assert!(reports.iter().all(|p| p.done <= p.bytes && (p.bytes == 0 || p.bytes == bytes)));
            break;
        }
    }
}

/// What an interrupted copy left is no obstacle where the server has no ranges.
#[test]
fn a_cut_copy_from_a_server_without_ranges_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&[("/a.tar", LARGE)]);
    server.set(|b| (b.has_no_ranges, b.cuts) = (true, 100));
    let address = format!("{}/a.tar", server.address);
    let options = options(folder.path());
    copy(&address, &options).unwrap_err();
    let is_part = |(name, bytes): (&String, &Vec<u8>)| name.contains("partial") && !bytes.is_empty();
    assert!(files_below(folder.path()).iter().any(is_part));
    server.set(|b| b.cuts = 0);
    let path = copy(&address, &options).unwrap();
    assert!(std::fs::read(path).unwrap() == content(LARGE, 0));
}

#[test]
fn a_file_that_changed_is_copied_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&[("/a.tar", 1000), ("/b.tar", 1000)]);
    let address = format!("{}/{{a,b}}.tar", server.address);
    let options = options(folder.path());
    let path = copy(&address, &options).unwrap();
    let new = content(1000, 9);
    server.set(|b| {
        b.files.insert("/a.tar".to_owned(), (new.clone(), "new".to_owned()));
    });
    age(folder.path());
    server.take();
    assert_eq!(copy(&address, &options).unwrap(), path);
    assert_eq!(server.take().1, 1000, "one file");
    assert!(files_below(&path)["a.tar"] == new);
    // A file that changes between the listing and the copy.
    server.set(|b| {
        b.files.insert("/c.tar".to_owned(), (content(1000, 1), "c".to_owned()));
        b.claimed_bytes = Some(999);
    });
    let message = copy(&format!("{}/c.tar", server.address), &options).unwrap_err().to_string();
    assert!(message.contains("/c.tar: it changed while it was copied"), "{message}");
}

#[test]
fn faults_have_one_message_with_a_fix() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&[("/a.tar", 1000)]);
    let with = |name: &str, value: &str| FetchOptions {
        variables: vec![(name.to_owned(), value.to_owned())],
        ..options(folder.path())
    };
    let plain = options(folder.path());
    let message = |address: &str, options: &FetchOptions| {
        copy(&format!("{}/{address}", server.address), options).unwrap_err().to_string()
    };
    let found = message("missing.tar", &plain);
    assert!(found.ends_with("/missing.tar: no files there"), "{found}");
    let found = message("folder/", &plain);
    assert!(found.contains("does not list folders") && found.contains("train-{000..127}.tar"), "{found}");
    server.set(|b| b.claimed_bytes = Some(1 << 60));
    let found = message("a.tar", &plain);
    assert!(found.contains("DCGAN_CACHE") && found.contains(&(1_u64 << 60).to_string()), "{found}");
    server.set(|b| (b.claimed_bytes, b.authorization) = (None, Some("Bearer secret".to_owned())));
    let found = message("a.tar?X-Amz-Signature=secret", &plain);
    assert!(found.contains(AUTHORIZATION_VARIABLE) && !found.contains("secret"), "{found}");
    let found = message("a.tar", &with(AUTHORIZATION_VARIABLE, "Bearer \n secret"));
    assert!(found.contains("not the value of a header") && !found.contains("secret"), "{found}");
    let path =
        copy(&format!("{}/a.tar", server.address), &with(AUTHORIZATION_VARIABLE, "Bearer secret")).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content(1000, 0));
    // Nobody listens there.
    let found = copy("http://127.0.0.1:1/a.tar?X-Amz-Signature=secret", &plain).unwrap_err().to_string();
    assert!(found.starts_with("http://127.0.0.1:1/a.tar: ") && !found.contains("secret"), "{found}");
    for (name, text) in files_below(folder.path()) {
        assert!(!String::from_utf8_lossy(&text).contains("secret"), "{name}");
    }
}

#[test]
fn processes_that_fetch_the_same_address_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&[("/a.tar", LARGE)]);
    let address = format!("{}/a.tar", server.address);
    let options = options(folder.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert!(std::fs::read(copy(&address, &options).unwrap()).unwrap() == content(LARGE, 0))
            });
        }
    });
    assert_eq!(server.take().1, LARGE as u64, "copied once");
}
