//! Classes of two datasets are matched by name.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{features, json, run};
use image::GrayImage;
use serde_json::json;
use std::fs;
use std::path::Path;

/// A folder of one folder per class; images of class i are a bar at column 3 i + 1, with a varying level.
pub(crate) fn images(folder: &Path, name: &str, classes: &[(&str, u32)], each: u8) {
    for (class, position) in classes {
        let path = folder.join(name).join(class);
        fs::create_dir_all(&path).unwrap();
        for i in 0..each {
            let pixel = |x, y| {
                let level =
                    if (x / 3) == *position { 200 - i } else { u8::try_from((x * 7 + y * 3) % 20).unwrap() };
                image::Luma([level])
            };
            GrayImage::from_fn(28, 28, pixel).save(path.join(format!("{i}.png"))).unwrap();
        }
    }
}

#[test]
fn classes_are_matched_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    images(here, "abc", &[("a", 1), ("b", 3), ("c", 5)], 10);
    images(here, "ac", &[("a", 1), ("c", 5)], 4);
    images(here, "cba", &[("1 c", 5), ("2 b", 3), ("3 a", 1)], 4);
    images(here, "abx", &[("a", 1), ("b", 3), ("x", 6)], 4);
    for name in ["abc", "ac", "cba", "abx"] {
        let output = run(here, &["features", "--data", name, "--out", &format!("{name}.safetensors")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let probe = ["probe", "--train", "abc.safetensors", "--c", "1", "--test"];
    let found = json(here, &[&probe[..], &["ac.safetensors"]].concat());
    assert_eq!(found["accuracy_percent"], json!(100.0), "{found}");
    assert_eq!(found["class_names"], json!(["a", "b", "c"]));
    assert_eq!(found["per_class_accuracy"], json!({ "0": 100.0, "2": 100.0 }));
    // Without names, as in files of earlier versions, numbers are compared, and the program says so.
    let labels: Vec<u32> = (0..8).map(|i| i / 4).collect();
    let width = usize::try_from(found["features"].as_u64().unwrap()).unwrap();
    features(&here.join("unnamed.safetensors"), &vec![0.5; 8 * width], width, Some(&labels));
    let output = run(here, &[&probe[..], &["unnamed.safetensors"]].concat());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.contains("--test has no class names"), "{message}");
    // A class that the training features lack.
    for (test, parts) in [
        ("abx.safetensors", ["4 of 12 test images", "lack: x; the training features have a, b, c"]),
        ("cba.safetensors", ["12 of 12 test images", "lack: 1 c, 2 b, 3 a"]),
    ] {
        let output = run(here, &[&probe[..], &[test]].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn samples_of_other_folders_are_matched_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // MNIST files with the classes 0 to 2, and samples in folders with these names and one more before them.
    let data = crate::support::bars(here, &[0, 1, 2], 4, 4);
    images(here, "samples", &[("-", 8), ("0", 1), ("1", 3), ("2", 5)], 3);
    images(here, "fewer", &[("0", 1), ("2", 5)], 3);
    let line = ["mnist-nn", "--data", data.to_str().unwrap(), "--samples"];
    let found = json(here, &[&line[..], &["samples"]].concat());
    assert_eq!(found["train"], json!(12));
    let output = run(here, &[&line[..], &["fewer"]].concat());
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("no images of class 1, which test images have; it has 0, 2"), "{message}");
}
