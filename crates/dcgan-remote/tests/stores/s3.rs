//! The S3 server of s3s-fs, which checks signatures.

use std::path::Path;

use dcgan_remote::{FetchOptions, fetched};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use crate::{LARGE, age, content, copy, files_below};

/// Starts a server of the buckets that are folders of `root`; returns its address.
fn start(root: &Path) -> String {
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    service.set_auth(SimpleAuth::from_single("user", "secret"));
    let service = service.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    // A client that hangs up is no fault of the test.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    address
}

fn variables(endpoint: &str, secret: &str) -> Vec<(String, String)> {
    let all = [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "user"),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_REGION", "us-east-1"),
    ];
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn buckets_are_copied_with_the_usual_variables() {
    let root = tempfile::tempdir().unwrap();
    let bucket = root.path().join("images");
    let objects =
        [("set/b/data.mdb", LARGE), ("set/a/data.mdb", 1000), ("set/c.tar", 10), ("other/x y+%.tar", 3)];
    for (seed, (name, length)) in objects.iter().enumerate() {
        let path = bucket.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content(*length, seed as u8)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let endpoint = start(root.path());
    let with = |secret: &str| FetchOptions {
        variables: variables(&endpoint, secret),
        retry_seconds: 2,
        ..FetchOptions::new(folder.path())
    };
    let options = with("secret");
    let object = |index: usize| content(objects[index].1, index as u8);
    // A prefix, with and without the slash; an object; braces.
    for address in ["s3://images/set/", "s3://images/set"] {
        let path = copy(address, &options).unwrap_or_else(|error| panic!("{address}: {error}"));
        let found = files_below(&path);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a/data.mdb", "b/data.mdb", "c.tar"], "{address}");
        assert!(found["b/data.mdb"] == object(0) && found["a/data.mdb"] == object(1), "{address}");
        assert_eq!(fetched(address, &options), Some(path), "{address}");
    }
    let path = copy("s3://images/other/x y+%.tar", &options).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), object(3));
    let found = files_below(&copy("s3a://images/{set/c,other/x y+%}.tar", &options).unwrap());
    assert_eq!(found.keys().collect::<Vec<_>>(), ["other/x y+%.tar", "set/c.tar"]);
    // An object that is gone is gone from the copy, one that changed is copied again.
    std::fs::remove_file(bucket.join("set/c.tar")).unwrap();
    std::fs::write(bucket.join("set/a/data.mdb"), content(1000, 7)).unwrap();
    age(folder.path());
    let found = files_below(&copy("s3://images/set/", &options).unwrap());
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a/data.mdb", "b/data.mdb"]);
    assert!(found["a/data.mdb"] == content(1000, 7) && found["b/data.mdb"] == object(0));
    // Faults.
    let rows = [
        ("s3://images/missing/", "secret", "no files there"),
        ("s3://images/missing.tar", "secret", "no files there"),
        ("s3://nothing/x/", "secret", "s3://nothing"),
        ("s3://images/set/a/data.mdb", "wrong", "AWS_SECRET_ACCESS_KEY"),
    ];
    for (address, secret, expected) in rows {
        let message = copy(address, &with(secret)).unwrap_err().to_string();
        assert!(message.contains(expected), "{address}: {message}");
    }
}
