//! Invalid input: one message with the fix, exit code 2, nothing written.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{TEN, bars, features, features_from, run};
use std::fs;
use std::path::Path;

#[test]
fn invalid_input_is_rejected_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = bars(here, &TEN, 30, 4);
    let data = data.to_str().unwrap();
    let nine = bars(here, &[0, 1, 2, 3, 5, 6, 7, 8, 9], 30, 4);
    let nine = nine.to_str().unwrap();
    fs::create_dir(here.join("empty")).unwrap();
    let authors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/authors");
    let authors = authors.to_str().unwrap();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits");
    let digits = digits.to_str().unwrap();
    // Test images with other classes than the training images.
    let five = bars(here, &[0, 1, 2, 3, 4], 30, 4);
    let mixed = here.join("mixed");
    fs::create_dir(&mixed).unwrap();
    for part in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
        fs::copy(five.join(format!("train-{part}")), mixed.join(format!("train-{part}"))).unwrap();
        fs::copy(Path::new(data).join(format!("t10k-{part}")), mixed.join(format!("t10k-{part}"))).unwrap();
    }
    let file = |name: &str, values: &[f32], width, labels: Option<&[u32]>| {
        features(&here.join(name), values, width, labels)
    };
    file("ok", &[0.0, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 0.5, 0.1, 0.9], 2, Some(&[0, 1, 0, 1, 0]));
    file("wide", &[0.0; 15], 3, Some(&[0, 1, 0, 1, 0]));
    file("nan", &[0.0, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, f32::NAN, 0.1, 0.9], 2, Some(&[0, 1, 0, 1, 0]));
    file("unlabeled", &[0.0; 10], 2, None);
    file("one-class", &[0.0, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 0.5, 0.1, 0.9], 2, Some(&[3; 5]));
    // A truncated image.
    fs::create_dir_all(here.join("damaged/0")).unwrap();
    fs::write(here.join("damaged/0/b.png"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    fs::write(here.join("text"), "no features").unwrap();
    fs::write(here.join("exists.safetensors"), "keep me").unwrap();

    for (name, origin) in [
        ("first", r#"{"images_sha256":"p","statistics":"stored","weights_sha256":"w"}"#),
        ("second", r#"{"images_sha256":"q","statistics":"recalibrated on p","weights_sha256":"v"}"#), // earlier names
        // The keys and values of earlier versions.
        ("earlier", r#"{"pictures_sha256":"p","statistics":"stored","weights_sha256":"w"}"#),
        ("recalibrated", r#"{"pictures_sha256":"r","statistics":"reestimated on p","weights_sha256":"v"}"#), // earlier names
    ] {
        features_from(&here.join(name), &[0.0, 1.0, 1.0, 0.0], 2, Some(&[0, 1]), origin);
    }

    let rows: &[(&[&str], &[&str])] = &[
        // Numbers out of range.
        (&["digits", "--seed", "-1"], &["'-1' for '--seed", "an integer of at least 0"]),
        (&["svhn", "--repeats", "-1"], &["'-1' for '--repeats", "from 1 to 1000000"]),
        (&["digits", "--c", "-1,1e-3"], &["--c is -1, expected values from 1e-12 to 1e12, such as --c 1e-4"]),
        (&["digits", "--c", "0"], &["--c is 0, expected values from 1e-12 to 1e12"]),
        (&["digits", "--c", "1e-3,x"], &["'x' for '--c", "expected a number"]),
        (&["nnd", "--counts", "10,-5"], &["'-5' for '--counts", "from 1 to 1000000000"]),
        (&["bench", "--threads", "-2"], &["'-2' for '--threads", "from 1 to 4096"]),
        // The model.
        (&["svhn", "--model", authors, "--preset", "pytorch32", "--data", data], &["blocks", "expected"]),
        (&["svhn", "--model", authors, "--data", data], &["--preset", "svhn32"]),
        (&["svhn", "--model", "absent", "--data", data], &["absent does not exist"]),
        (&["cifar10"], &["models/imagenet32 does not exist", "missing --data"]),
        (&["cifar10", "--data", data], &["models/imagenet32 does not exist", "--model"]),
        (&["digits", "--model", "text"], &["text", "unknown format"]),
        (&["svhn", "--model", authors, "--preset", "nonsense", "--data", data], &["nonsense", "svhn32"]),
        // The data.
        (&["digits", "--data", "empty"], &["empty"]),
        (&["digits", "--data", "absent"], &["absent"]),
        (&["digits", "--data", nine], &["class 4 (4) has 0 training images"]),
        (
            &["digits", "--data", data, "--labels-per-class", "25"],
            &["has 24 training images, expected at least 25", "--labels-per-class"],
        ),
        (&["digits", "--data", &format!("{data}/train-images-idx3-ubyte")], &["no test images of its own"]),
        (&["nnd", "--data", "damaged"], &["image 0/b.png", "--skip-bad"]),
        (&["features", "--data", "damaged", "--out", "new"], &["image 0/b.png", "--skip-bad"]),
        (
            &["features", "--skip-bad", "--background", "white", "--out", "new"],
            &["--skip-bad needs --data", "--background needs --data"],
        ),
        (&["digits", "--background", "white"], &["--background needs --data"]),
        (&["features", "--split", "val", "--out", "new"], &["--split val needs --data"]),
        (&["mnist-nn", "--skip-bad"], &["--skip-bad needs --data"]),
        (&["nnd", "--data", data, "--background", "red"], &["expected black, white or #rrggbb"]),
        (&["mnist-nn", "--samples", "absent"], &["absent"]),
        (&["digits", "--data", "mixed"], &["class 5", "has 0 training images"]),
        (&["svhn", "--model", digits, "--data", data], &["svhn needs", "train_32x32.mat"]),
        (
            &[
                "features",
                "--data",
                "bars-10-30-4/train-images-idx3-ubyte",
                "--split",
                "test",
                "--out",
                "new",
            ],
            &["no test images of its own"],
        ),
        (&["digits", "--labels-per-class", "2", "--save-draws", "text"], &["--save-draws text exists"]),
        (&["cifar10", "--model", digits, "--data", data], &["cifar10 needs", "data_batch_1.bin"]),
        (&["probe", "--train", "first", "--test", "first"], &["features of the same images"]),
        (&["probe", "--train", "earlier", "--test", "first"], &["features of the same images"]),
        (&["probe", "--train", "first", "--test", "recalibrated"], &["different batch norm statistics"]),
        (
            &["probe", "--train", "first", "--test", "second"],
            &["different weights", "different batch norm statistics"],
        ),
        // Numbers; all errors at once.
        (
            &["digits", "--c", "0,1,-2,nan", "--repeats", "0"],
            &["--c is 0", "--c is -2", "--c is NaN", "--repeats is 0"],
        ),
        (&["digits", "--c", "x"], &["--c"]),
        (&["digits", "--threads", "0"], &["--threads is 0"]),
        (&["digits", "--repeats", "5", "--trials", "3"], &["--labels-per-class", "--baseline supervised"]),
        (&["digits", "--selection-draws", "5"], &["--selection-draws needs --labels-per-class"]),
        (&["mnist-nn", "--model", digits, "--count", "0"], &["--count is 0, expected 1 to 1000000000"]),
        (
            &["dedup", data, "--pairs", "1001", "--tables", "0"],
            &["--pairs is 1001, expected 1 to 1000", "--tables is 0"],
        ),
        (&["digits", "--baseline", "none,pixels"], &["--baseline none"]),
        (&["digits", "--baseline", "supervised"], &["--labels-per-class"]),
        (&["digits", "--cache", "absent"], &["--cache absent"]),
        (&["digits", "--labels-per-class", "2", "--save-draws", "no/where.json"], &["no"]),
        (&["nnd", "--counts", "0", "--queries", "0"], &["--counts", "--queries 0"]),
        // Feature files.
        (&["features", "--out", "exists.safetensors"], &["exists.safetensors exists"]),
        (&["features", "--out", "no/where.safetensors"], &["the folder no does not exist"]),
        (&["probe", "--train", "ok", "--test", "wide"], &["2 features", "3"]),
        (&["probe", "--train", "nan", "--test", "ok"], &["--train", "feature 1 of row 3 is NaN"]),
        (&["probe", "--train", "ok", "--test", "nan"], &["--test", "feature 1 of row 3 is NaN"]),
        (
            &["probe", "--train", "unlabeled", "--test", "text"],
            &["unlabeled has no labels", "text", "not a complete safetensors file"],
        ),
        (&["probe", "--train", "one-class", "--test", "one-class"], &["1 class"]),
        (
            &["probe", "--train", "ok", "--test", "ok", "--held-out", "5"],
            &["--held-out 5", "5 training images", "omit the option"],
        ),
        (
            &["probe", "--train", "ok", "--test", "ok", "--held-out", "4"],
            &["--held-out 4", "class 1 has 0 training images", "omit the option"],
        ),
        (&["probe", "--train", "ok", "--test", "ok", "--held-out", "2", "--c", "1"], &["--held-out", "--c"]),
        (&["probe", "--train", "ok", "--test", "ok", "--c", "-1"], &["--c"]),
        // Claims.
        (&["reproduce", "nonsense"], &["nonsense", "digits"]),
        (&["reproduce", "svhn-crops"], &["--model", "--data"]),
        (&["reproduce", "--model", digits], &["--model", "name the claim"]),
        (&["reproduce", "digits", "--list"], &["--list"]),
        (&["reproduce", "--cache", "absent"], &["--cache absent"]),
        (&["reproduce", "--threads", "0"], &["--threads is 0"]),
        (&["reproduce", "digits", "--data", data], &["omit --data"]),
        (&["reproduce", "mnist-real", "--data", data, "--model", digits], &["omit --model"]),
    ];
    let listing = || {
        let mut names: Vec<_> = fs::read_dir(here).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listing();
    for (arguments, expected) in rows {
        let output = run(here, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        for part in *expected {
            assert!(said.contains(part), "{arguments:?}: no {part:?} in: {said}");
        }
        assert!(!said.contains("panicked") && output.stdout.is_empty(), "{arguments:?}: {said}");
    }
    assert_eq!(listing(), before, "files were written");
    assert_eq!(fs::read_to_string(here.join("exists.safetensors")).unwrap(), "keep me");
}
