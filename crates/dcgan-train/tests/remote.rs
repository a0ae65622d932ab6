//! Runs on a dataset of a web server.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../dcgan-remote/tests/stores/web_server.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod web_server;

use std::path::Path;
use std::process::{Command, Output};

use web_server::{Behavior, WebServer};

fn run(folder: &Path, command: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_dcgan-train"));
    program
        .args(command)
        .args(["--device", "cpu", "--threads", "1"])
        .env("DCGAN_CACHE", folder.join("cache"))
        .current_dir(folder);
    program.output().unwrap()
}

/// A zip of `count` grey images.
fn images(count: u8) -> Vec<u8> {
    use std::io::{Cursor, Write};
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for number in 0..count {
        let gray = |x: u32, y: u32| number * 7 + u8::try_from(x * y).unwrap();
        let image = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([gray(x, y)]));
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        zip.start_file(format!("{number:03}.png"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&png.into_inner()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_run_copies_its_dataset_and_goes_on_without_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let behavior = Behavior {
        files: [("/set/images.zip".to_owned(), (images(24), "1".to_owned()))].into(),
        ..Behavior::default()
    };
    let server = WebServer::start(behavior);
    let address = format!("{}/set/images.zip?X-Amz-Signature=secret", server.address);
    let local = folder.path().join("images.zip");
    std::fs::write(&local, images(24)).unwrap();
    // The images choose the preset; the run on the local file has the same bytes.
    for (data, out) in [(address.as_str(), "remote"), (local.to_str().unwrap(), "local")] {
        let done =
            run(folder.path(), &["run", "--data", data, "--out", out, "--batch-size", "8", "--steps", "3"]);
        let log = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{log}");
        assert_eq!(log.contains("copying http://"), out == "remote", "{log}");
        assert!(!log.contains("secret"), "{log}");
    }
    let weights = |run: &str, step: &str| {
        std::fs::read(folder.path().join(run).join("checkpoints").join(step).join("generator.safetensors"))
            .unwrap()
    };
    assert!(weights("remote", "00000003") == weights("local", "00000003"));
    // Without the server, the run continues with the copy.
    server.set(|behavior| behavior.is_down = true);
    for run_folder in ["remote", "local"] {
        let done = run(folder.path(), &["resume", run_folder, "--steps", "5"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(weights("remote", "00000005") == weights("local", "00000005"));
}
