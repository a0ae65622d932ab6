//! Small datasets in MNIST's format, and runs of the binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the binary with `-q` in `folder`.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dcgan-eval"));
    command.current_dir(folder).arg("-q").args(arguments).env_remove("RUST_LOG");
    command.output().unwrap()
}

/// Runs it with `--json` and parses stdout, which has nothing else.
pub(crate) fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, &[arguments, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

/// Digits.
pub(crate) const TEN: [u8; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// A folder of MNIST's four files: `train` and `test` images of each of `classes`. Class k is a bar at row 2 k, with
/// noise.
pub(crate) fn bars(folder: &Path, classes: &[u8], train: usize, test: usize) -> PathBuf {
    let path = folder.join(format!("bars-{}-{train}-{test}", classes.len()));
    fs::create_dir(&path).unwrap();
    let mut state = 7_u32;
    let mut noise = |most: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % most
    };
    for (name, each) in [("train", train), ("t10k", test)] {
        let n = u32::try_from(each * classes.len()).unwrap();
        let mut pixels = [2051_u32, n, 28, 28].map(u32::to_be_bytes).concat();
        let mut labels = [2049_u32, n].map(u32::to_be_bytes).concat();
        // Classes alternate, so that every range of the file has all of them.
        for &class in (0..each).flat_map(|_| classes) {
            labels.push(class);
            for y in 0..28 {
                let bar = y / 2 == u32::from(class) + 1;
                pixels.extend((0..28).map(|_| u8::try_from(if bar { 150 } else { 0 } + noise(90)).unwrap()));
            }
        }
        fs::write(path.join(format!("{name}-images-idx3-ubyte")), pixels).unwrap();
        fs::write(path.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
    path
}

/// Writes a feature file of rows of `width` values, with or without labels.
pub(crate) fn features(path: &Path, values: &[f32], width: usize, labels: Option<&[u32]>) {
    features_from(path, values, width, labels, "null");
}

/// The same with an origin (JSON).
pub(crate) fn features_from(path: &Path, values: &[f32], width: usize, labels: Option<&[u32]>, origin: &str) {
    let rows = values.len() / width;
    let mut data = Vec::new();
    let origin = serde_json::Value::from(origin); // as a string of JSON within JSON
    let mut header = format!(r#"{{"__metadata__":{{"origin":{origin}}},"#);
    if let Some(labels) = labels {
        data.extend(labels.iter().flat_map(|label| label.to_le_bytes()));
        header.push_str(&format!(
            r#""labels":{{"dtype":"U32","shape":[{rows}],"data_offsets":[0,{}]}},"#,
            data.len()
        ));
    }
    let begin = data.len();
    data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    header.push_str(&format!(
        r#""features":{{"dtype":"F32","shape":[{rows},{width}],"data_offsets":[{begin},{}]}}}}"#,
        data.len()
    ));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}
