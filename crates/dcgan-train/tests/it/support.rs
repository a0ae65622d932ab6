//! Running the binary, and comparing run folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A configuration so small that a step takes a millisecond or two.
pub(crate) const TINY: &str = r#"
[model]
name = "tiny"
height = 8
width = 8
channels = 1
latent = { size = 4, distribution = "uniform" }

[model.generator]
project_channels = 8
project_norm = "per-activation"
norm = { eps = 1e-5, affine = true }
blocks = [
    { channels = 4, kernel = 4, stride = 2, padding = 1 },
    { channels = 1, kernel = 5, stride = 2, padding = 2, output_padding = 1 },
]
output = "tanh"

[model.discriminator]
negative_slope = 0.2
norm = { eps = 1e-5, affine = true }
blocks = [
    { channels = 4, kernel = 4, stride = 2, padding = 1 },
    { channels = 8, kernel = 3, stride = 2, padding = 1 },
]

[training]
batch_size = 16
steps = 120
order = "both"
learning_rate = 1e-3
learning_rate_decay = "none"
beta1 = 0.5
beta2 = 0.999
adam_eps = 1e-8
weight_decay = 0.0
label_smoothing = 0.0
ema = 0.0
weight_std = 0.1
norm_weight_std = 0.02
"#;

/// The binary with arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dcgan-train"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// Runs to the end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Runs to the end with success.
pub(crate) fn succeed(arguments: &[&str]) -> Output {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} ended with {}: {stderr}", output.status);
    output
}

/// The bytes of every file below `folder`, by relative path.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Checkpoints and samples of two runs are equal byte for byte, and not empty.
pub(crate) fn assert_same_run(a: &Path, b: &Path) {
    for part in ["checkpoints", "samples"] {
        let (of_a, of_b) = (contents(&a.join(part)), contents(&b.join(part)));
        assert_eq!(of_a.keys().collect::<Vec<_>>(), of_b.keys().collect::<Vec<_>>(), "files of {part}");
        assert!(!of_a.is_empty(), "{part} is empty");
        for (name, bytes) in &of_a {
            assert!(*bytes == of_b[name], "{part}/{name} differs");
        }
    }
    assert_eq!(fs::read_link(a.join("best")).unwrap(), fs::read_link(b.join("best")).unwrap());
}

/// The events of one kind in stats.jsonl.
pub(crate) fn stats(run: &Path, event: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("stats.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

/// The number of TensorBoard event files of a run, one for each start. Each starts with the version of the format.
pub(crate) fn event_files(run: &Path) -> usize {
    let mut files = contents(run);
    files.retain(|name, _| name.starts_with("events.out.tfevents."));
    for (name, bytes) in &files {
        // After length, checksum, and the wall time.
        assert_eq!(bytes.get(23..36), Some(&b"brain.Event:2"[..]), "{name}");
    }
    files.len()
}
