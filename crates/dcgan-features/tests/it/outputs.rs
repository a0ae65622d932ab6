//! --json alone on stdout, outputs, and the cache.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{TEN, bars, json, run};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::Command;

#[test]
fn json_is_alone_on_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = bars(here, &TEN, 12, 3);
    let data = data.to_str().unwrap();
    let weights = crate::metrics::weights(here);
    let weights = weights.to_str().unwrap();
    let svhn = ["svhn", "cifar10"]; // the same command as digits, on datasets that a test does not have
    let rows: &[(&str, &[&str])] = &[
        ("digits", &["--data", data, "--c", "1e-3"]),
        ("mnist-nn", &["--data", data]),
        ("nnd", &["--counts", "20", "--queries", "18446744073709551615"]),
        ("reproduce", &["--list"]),
        ("features", &["--data", data, "--out", "train.safetensors"]),
        ("features", &["--data", data, "--test", "--out", "test.safetensors"]),
        ("probe", &["--train", "train.safetensors", "--test", "test.safetensors", "--c", "1"]),
        ("dedup", &[data, "--steps", "2"]),
        ("metrics", &[data, data, "--n", "6", "--reference-n", "6", "--inception", weights]),
        ("bench", &["--preset", "digits", "--images", "4", "--batch-size", "2"]),
    ];
    for (command, arguments) in rows {
        // Not quiet: progress, tables and logs are on stderr.
        let output = Command::new(env!("CARGO_BIN_EXE_dcgan-eval"))
            .current_dir(here)
            .arg(command)
            .args(*arguments)
            .arg("--json")
            .env_remove("RUST_LOG")
            .env("DCGAN_CACHE", "")
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(stdout.lines().count(), 1, "{command}: {stdout}");
        serde_json::from_str::<Value>(&stdout).unwrap();
    }
    let text = |arguments: &[&str]| String::from_utf8(run(here, arguments).stdout).unwrap();
    let help = text(&["--help"]);
    let (_, list) = help.split_once("Commands:").unwrap();
    for line in list.lines().skip(1).take_while(|line| line.starts_with("  ")) {
        let command = line.split_whitespace().next().unwrap();
        let has_json = command != "help" && text(&[command, "--help"]).contains("--json");
        let has_row = rows.iter().any(|(name, _)| *name == command) || svhn.contains(&command);
        assert_eq!(has_json, has_row, "{command}");
    }
}

#[test]
fn feature_files_are_written_through_devices_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = bars(here, &TEN, 3, 2);
    let line = ["features", "--data", data.to_str().unwrap(), "--out"];
    let to = |out: &str| run(here, &[&line[..], &[out]].concat());
    assert!(to("file.safetensors").status.success());
    let file = fs::read(here.join("file.safetensors")).unwrap();
    let output = to("-");
    assert!(output.status.success() && output.stdout == file);
    assert!(to("/dev/null").status.success());
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    symlink("nothing", here.join("dangling")).unwrap();
    for (out, part) in
        [("dangling", "does not exist"), ("f.npy", "expected .safetensors"), (".", "is a folder")]
    {
        let output = to(out);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && message.contains(part), "{out}: {message}");
    }
    let json = [&line[..], &["-", "--json"]].concat();
    let message = run(here, &json).stderr;
    assert!(String::from_utf8_lossy(&message).contains("standard output"));
}

#[test]
fn an_interrupted_evaluation_continues_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = bars(here, &TEN, 12, 3);
    fs::create_dir(here.join("cache")).unwrap();
    let line = ["digits", "--data", data.to_str().unwrap(), "--c", "1e-3,1e-2", "--cache", "cache"];
    let result = |value: Value| -> Vec<Value> {
        let rows = std::iter::once(value.clone()).chain(value["baselines"].as_array().unwrap().clone());
        rows.map(|row| serde_json::json!([row["name"], row["accuracy_percent"], row["c"]])).collect()
    };
    let first = result(json(here, &line));
    let files = || {
        let names = fs::read_dir(here.join("cache")).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let all = files();
    // Features of two networks and two splits, and three results.
    assert_eq!(all.len(), 7, "{all:?}");
    // Whatever is missing or damaged, the result is the same.
    for (i, path) in all.iter().enumerate() {
        let bytes = fs::read(path).unwrap();
        if i % 2 == 0 {
            fs::remove_file(path).unwrap();
        } else {
            let mut damaged = bytes.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 4;
            fs::write(path, damaged).unwrap();
        }
        assert_eq!(result(json(here, &line)), first, "{}", path.display());
        assert_eq!(fs::read(path).unwrap(), bytes, "{}", path.display());
    }
    // With all files, nothing is computed: the log names the files.
    let output =
        Command::new(env!("CARGO_BIN_EXE_dcgan-eval")).current_dir(here).args(line).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (log.matches("result from cache").count(), log.matches("features from cache").count()),
        (3, 4)
    );
}

#[test]
fn searches_continue_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = bars(here, &TEN, 30, 3);
    fs::create_dir(here.join("cache")).unwrap();
    let data = data.to_str().unwrap();
    for line in [
        &["mnist-nn", "--data", data][..],
        &["nnd", "--data", data, "--counts", "20,50", "--queries", "7", "--seed", "3"],
    ] {
        let scores = |more: &[&str]| {
            let found = crate::results::deterministic(json(here, &[line, more].concat()));
            (found["scores"].clone(), found["real"].clone())
        };
        let plain = scores(&[]);
        assert_eq!(scores(&["--cache", "cache"]), plain);
        assert_eq!(scores(&["--cache", "cache"]), plain);
        for entry in fs::read_dir(here.join("cache")).unwrap() {
            fs::write(entry.unwrap().path(), "damaged").unwrap();
        }
        assert_eq!(scores(&["--cache", "cache"]), plain, "damaged");
    }
    assert_eq!(fs::read_dir(here.join("cache")).unwrap().count(), 3);
}
