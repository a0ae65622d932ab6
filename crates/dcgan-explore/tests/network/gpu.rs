//! Commands on a simulated GPU: their images are those of the CPU, but for rounding.

use crate::support::{digits, png, run, succeed};
use std::path::Path;
use std::process::Command;

#[path = "../../../dcgan-ops/tests/simulated/mod.rs"]
mod simulated;

#[test]
fn images_are_those_of_the_cpu() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dcgan-ops");
    let libraries = simulated::libraries(&package);
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    digits(here, 6);
    let rows: [&[&str]; 5] = [
        &["interpolate", "--rows", "1", "--steps", "3"],
        &["maxact", "--features", "2", "--top", "2", "--data", "digits"],
        &["guided", "--features", "1", "--top", "2", "--data", "digits"],
        &["invert", "--data", "digits", "--n", "1", "--steps", "5", "--restarts", "1"],
        &["neighbours", "--data", "digits", "--n", "2"],
    ];
    for row in rows {
        succeed(here, &[row, &["--out", "cpu.png", "--device", "cpu"]].concat());
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcgan-explore"));
        command.current_dir(here).args(row).args(["--out", "gpu.png", "--device", "cuda:0"]);
        let output = command.env("LD_LIBRARY_PATH", &libraries).output().unwrap();
        assert!(output.status.success(), "{row:?}: {}", String::from_utf8_lossy(&output.stderr));
        let ((on_cpu, width, height), on_gpu) = (png(&here.join("cpu.png")), png(&here.join("gpu.png")));
        assert_eq!((on_gpu.1, on_gpu.2), (width, height), "{row:?}");
        let differences = on_cpu.iter().zip(&on_gpu.0).map(|(a, b)| f64::from(a.abs_diff(*b)));
        let mean = differences.sum::<f64>() / on_cpu.len() as f64;
        assert!(mean < 0.5, "{row:?}: pixels differ by {mean} on average");
    }
    // Where there is no driver, the command says so.
    let output = run(here, &["interpolate", "--device", "cuda:0"]);
    assert!(output.stderr.contains("no NVIDIA driver"), "{}", output.stderr);
}
