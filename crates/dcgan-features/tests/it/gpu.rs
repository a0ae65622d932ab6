//! Features and scores on a simulated GPU: those of the CPU, but for rounding.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{TEN, bars, json};
use safetensors::SafeTensors;
use std::fs;
use std::path::Path;
use std::process::Command;

#[path = "../../../dcgan-ops/tests/simulated/mod.rs"]
mod simulated;

fn features(file: &Path) -> Vec<f32> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor("features").unwrap().data().to_vec();
    data.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
}

#[test]
fn features_are_those_of_the_cpu() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dcgan-ops");
    let libraries = simulated::libraries(&package);
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = bars(here, &TEN, 1, 1);
    for statistics in ["stored", "recalibrate"] {
        let line =
            ["features", "--data", data.to_str().unwrap(), "--statistics", statistics, "--dtype", "f32"];
        let outputs = ["cpu", "gpu"].map(|device| format!("{device}-{statistics}.safetensors"));
        json(here, &[&line[..], &["--device", "cpu", "--out", &outputs[0]]].concat());
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcgan-eval"));
        command.current_dir(here).args(line).args(["--device", "cuda:0", "--out", &outputs[1]]);
        let output = command.env("LD_LIBRARY_PATH", &libraries).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let [on_cpu, on_gpu] = outputs.map(|output| features(&here.join(output)));
        assert!(on_cpu.len() > 1000 && on_cpu.len() == on_gpu.len());
        let largest = on_cpu.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let far = on_cpu.iter().zip(&on_gpu).find(|(a, b)| (*a - *b).abs() > 1e-4 * largest);
        assert_eq!(far, None, "{statistics}");
    }
}
