//! Results of every command, for any number of threads.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{TEN, bars, features, features_from, json, run};
use serde_json::{Value, json};

/// Keys of the JSON line that scripts read.
const KEYS: [&str; 17] = [
    "task",
    "interval95",
    "interval_over",
    "c",
    "features",
    "train",
    "held_out",
    "test",
    "seconds",
    "statistics",
    "per_class_accuracy",
    "weights_sha256",
    "train_sha256",
    "test_sha256",
    "protocol_sha256",
    "baselines",
    "version",
];

/// The object without times and memory.
pub(crate) fn deterministic(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        if let Value::Object(map) = value {
            map.retain(|key, _| !key.contains("seconds") && key != "peak_memory_bytes");
            map.values_mut().for_each(strip);
        } else if let Value::Array(all) = value {
            all.iter_mut().for_each(strip);
        }
    }
    strip(&mut value);
    value
}

#[test]
fn experiments_do_not_depend_on_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let data = bars(folder.path(), &TEN, 30, 8);
    let data = data.to_str().unwrap();
    let rows: &[(&[&str], usize)] = &[
        (&["digits", "--data", data, "--c", "1e-3,1e-2"], 2),
        (
            &[
                "digits",
                "--data",
                data,
                "--labels-per-class",
                "3",
                "--repeats",
                "4",
                "--selection-draws",
                "2",
            ],
            2,
        ),
        (
            &[
                "digits",
                "--data",
                data,
                "--labels-per-class",
                "3",
                "--repeats",
                "2",
                "--solver",
                "linfa",
                "--c",
                "1",
                "--baseline",
                "pixels",
            ],
            1,
        ),
        (
            &[
                "digits",
                "--data",
                data,
                "--dtype",
                "bf16",
                "--statistics",
                "recalibrate",
                "--c",
                "1e-3",
                "--baseline",
                "none",
            ],
            0,
        ),
        (
            &[
                "digits",
                "--data",
                data,
                "--labels-per-class",
                "2",
                "--repeats",
                "1",
                "--baseline",
                "supervised",
                "--trials",
                "1",
                "--c",
                "1e-3",
            ],
            0,
        ),
    ];
    for (arguments, baselines) in rows {
        let found = json(folder.path(), &[arguments, &["--threads", "1"][..]].concat());
        for key in KEYS {
            assert!(found.get(key).is_some(), "{arguments:?}: no {key} in {found}");
        }
        let accuracy = found["accuracy_percent"].as_f64().unwrap();
        assert!(accuracy > 80.0, "{arguments:?}: expected above 80 on bars, found {accuracy}");
        assert_eq!(found["baselines"].as_array().unwrap().len(), *baselines, "{arguments:?}");
        assert_eq!((&found["task"], &found["test"]), (&json!("digits"), &json!(80)));
        assert_eq!(found["per_class_accuracy"].as_object().unwrap().len(), 10);
        let again = json(folder.path(), &[arguments, &["--threads", "2"][..]].concat());
        assert_eq!(deterministic(found), deterministic(again), "{arguments:?}");
    }
}

#[test]
fn hashes_equal_those_of_earlier_versions() {
    let folder = tempfile::tempdir().unwrap();
    let data = bars(folder.path(), &TEN, 30, 4);
    let arguments = [
        &["digits", "--data", data.to_str().unwrap(), "--baseline", "none", "--c", "1e-3"][..],
        &["--labels-per-class", "2", "--repeats", "1", "--statistics", "recalibrate"],
    ];
    let found = json(folder.path(), &arguments.concat());
    assert_eq!(found["protocol"]["statistics"], "reestimated"); // earlier name
    // Values of version 0.1.0 before keys and values were renamed.
    assert_eq!(found["protocol_sha256"], "671029bbc24abe8d98d810cdb1fa24778620ee135e3c70073e0b86280005c214");
    assert_eq!(found["config_sha256"], "237b41e34a05fa8964c2ca536ef18d816fe0aea1b8dbeaff7f3dfef33cc7e471");
}

#[test]
fn batch_norm_statistics_are_running_ones_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let data = bars(folder.path(), &TEN, 30, 4);
    let line = ["digits", "--data", data.to_str().unwrap(), "--baseline", "none", "--c", "1e-3"];
    let found = |more: &[&str]| json(folder.path(), &[&line[..], more].concat());
    for (more, expected) in [
        (&[][..], "stored"),
        (&["--statistics", "running"], "stored"),
        (&["--statistics", "stored"], "stored"), // earlier name of running
        (&["--statistics", "recalibrate"], "reestimated"), // earlier name
    ] {
        assert_eq!(found(more)["protocol"]["statistics"], expected, "{more:?}");
    }
}

#[test]
fn claims_are_reproduced_or_not_run_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let found = json(folder.path(), &["reproduce", "digits"]);
    let claim = &found["claims"][0];
    assert_eq!((&claim["name"], &claim["reproduced"]), (&json!("digits"), &json!(true)), "{found}");
    let difference = claim["percent"].as_f64().unwrap() - claim["expected_percent"].as_f64().unwrap();
    assert!(difference.abs() <= claim["tolerance"].as_f64().unwrap(), "{found}");
    let listed = json(folder.path(), &["reproduce", "--list"]);
    assert!(listed["claims"].as_array().unwrap().len() > 2);
    let output = run(folder.path(), &["reproduce", "digits"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("digits ") && line.ends_with("  reproduced")), "{text}");
}

#[test]
fn draws_and_caches() {
    let folder = tempfile::tempdir().unwrap();
    let data = bars(folder.path(), &TEN, 30, 4);
    std::fs::create_dir(folder.path().join("cache")).unwrap();
    let few = [
        "--labels-per-class",
        "3",
        "--repeats",
        "2",
        "--selection-draws",
        "2",
        "--c",
        "1e-3",
        "--save-draws",
        "draws.json",
    ];
    let arguments =
        [&["digits", "--data", data.to_str().unwrap(), "--baseline", "random"][..], &few].concat();
    let plain = json(folder.path(), &arguments);
    let cached = [&arguments[..], &["--cache", "cache"]].concat();
    for _ in 0..2 {
        std::fs::remove_file(folder.path().join("draws.json")).unwrap();
        assert_eq!(deterministic(json(folder.path(), &cached)), deterministic(plain.clone()));
        // Features of two networks and two splits, and two results.
        assert_eq!(std::fs::read_dir(folder.path().join("cache")).unwrap().count(), 6);
    }
    let draws = std::fs::read_to_string(folder.path().join("draws.json")).unwrap();
    let draws: Value = serde_json::from_str(&draws).unwrap();
    assert_eq!(draws["held_out"], json!([240, 300]));
    for (kind, count) in [("selection", 2), ("test", 2)] {
        let all = draws[kind].as_array().unwrap();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|draw| draw.as_array().unwrap().len() == 30));
    }
    // Damaged cache files are replaced.
    for entry in std::fs::read_dir(folder.path().join("cache")).unwrap() {
        std::fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    std::fs::remove_file(folder.path().join("draws.json")).unwrap();
    assert_eq!(deterministic(json(folder.path(), &cached)), deterministic(plain.clone()));
    // The protocol's hash includes the seed.
    std::fs::remove_file(folder.path().join("draws.json")).unwrap();
    let other = json(folder.path(), &[&arguments[..], &["--seed", "1"]].concat());
    assert_ne!(other["protocol_sha256"], plain["protocol_sha256"]);
}

#[test]
fn features_then_probe_equals_the_experiment() {
    let folder = tempfile::tempdir().unwrap();
    let data = bars(folder.path(), &TEN, 30, 8);
    let data = data.to_str().unwrap();
    for dtype in ["f32", "bf16"] {
        for split in ["train", "test"] {
            let out = format!("{split}-{dtype}.safetensors");
            let made = run(
                folder.path(),
                &["features", "--data", data, "--split", split, "--dtype", dtype, "--out", &out],
            );
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let (train, test) = (format!("train-{dtype}.safetensors"), format!("test-{dtype}.safetensors"));
        let probe = json(folder.path(), &["probe", "--train", &train, "--test", &test, "--c", "1e-3,1e-2"]);
        let whole = json(
            folder.path(),
            &["digits", "--data", data, "--dtype", dtype, "--c", "1e-3,1e-2", "--baseline", "none"],
        );
        for key in
            ["accuracy_percent", "c", "features", "train", "held_out", "test", "held_out_error_percent"]
        {
            assert_eq!(probe[key], whole[key], "{dtype}: {key}");
        }
        assert_eq!(probe["origins"]["train"]["weights_sha256"], whole["weights_sha256"]);
    }
}

#[test]
fn neighbours_of_real_images_and_samples() {
    let folder = tempfile::tempdir().unwrap();
    let data = bars(folder.path(), &TEN, 30, 8);
    let data = data.to_str().unwrap();
    let found = json(folder.path(), &["mnist-nn", "--data", data]);
    assert_eq!(found["error_percent"], json!(0.0), "bars of one class are nearest to each other");
    assert_eq!((&found["train"], &found["test"]), (&json!(300), &json!(80)));
    assert!(found["nnd_score"].as_f64().unwrap() > 0.5);
    // An image is its own nearest neighbour.
    let itself = json(
        folder.path(),
        &["mnist-nn", "--data", data, "--samples", &format!("{data}/t10k-images-idx3-ubyte")],
    );
    assert_eq!((&itself["error_percent"], &itself["nnd_score"]), (&json!(0.0), &json!(0.0)));
    let counts = ["nnd", "--data", data, "--counts", "10,200", "--queries", "50"];
    let found = json(folder.path(), &counts);
    let scores: Vec<f64> = found["scores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|score| score["mean_distance"].as_f64().unwrap())
        .collect();
    assert!(scores.len() == 2 && scores[1] <= scores[0] && scores[1] > 0.0, "{scores:?}");
    assert_eq!(found["real"].as_array().unwrap().len(), 2);
    assert!(
        found["real"][1]["mean_distance"].as_f64().unwrap() < scores[1],
        "bars are nearer to bars than digits are"
    );
    let threads = json(folder.path(), &[&counts[..], &["--threads", "1"]].concat());
    assert_eq!(deterministic(found), deterministic(threads));
}

#[test]
fn probe_holds_out_a_fifth_of_every_class() {
    let folder = tempfile::tempdir().unwrap();
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    // Sorted by class, like folders of images.
    for class in 0..4_u32 {
        for i in 0..30 {
            values.extend((0..4).map(|j| if j == class { 1.0 } else { 0.3 } + (i % 7) as f32 * 0.05));
            labels.push(class);
        }
    }
    features(&folder.path().join("sorted"), &values, 4, Some(&labels));
    let found = json(folder.path(), &["probe", "--train", "sorted", "--test", "sorted"]);
    assert_eq!(found["held_out"], json!(24));
    assert!(found["accuracy_percent"].as_f64().unwrap() > 90.0, "{found}");
    // Origins by an earlier version and this one, which name the same statistics.
    let origin = |images: &str, statistics: &str| format!(r#"{{{images},"statistics":"{statistics} on q"}}"#);
    for (name, origin) in [
        ("earlier", origin(r#""pictures_sha256":"p""#, "reestimated")),
        ("current", origin(r#""images_sha256":"r""#, "recalibrated")),
    ] {
        features_from(&folder.path().join(name), &values, 4, Some(&labels), &origin);
    }
    let mixed = json(folder.path(), &["probe", "--train", "earlier", "--test", "current"]);
    assert_eq!(mixed["accuracy_percent"], found["accuracy_percent"]);
    // The second is the old name.
    for key in ["images_sha256", "pictures_sha256"] {
        // earlier name
        assert_eq!(
            (&mixed["origins"]["train"][key], &mixed["origins"]["test"][key]),
            (&json!("p"), &json!("r"))
        );
    }
    // With a single C no images are held out.
    let found = json(folder.path(), &["probe", "--train", "sorted", "--test", "sorted", "--c", "1"]);
    assert_eq!((&found["held_out"], &found["train"]), (&json!(0), &json!(120)));
}
