//! The program on a simulated GPU: training, exact resume, samples, and the comparison with the CPU.

use crate::defaults::write_images;
use crate::support::{TINY, assert_same_run, command, stats};
use dcgan_data::ImageShape;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[path = "../../../dcgan-ops/tests/simulated/mod.rs"]
mod simulated;

/// The driver and the cuDNN of dcgan-ops' tests.
pub(crate) fn libraries() -> &'static Path {
    static LIBRARIES: OnceLock<PathBuf> = OnceLock::new();
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dcgan-ops");
    LIBRARIES.get_or_init(|| simulated::libraries(&package))
}

/// Runs with these; returns standard output.
fn on_gpu(arguments: &[&str]) -> String {
    let output = command(arguments).env("LD_LIBRARY_PATH", libraries()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} ended with {}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn runs_on_a_gpu_resume_byte_for_byte_and_agree_with_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    write_images(&folder.path().join("data"), 12, ImageShape { height: 8, width: 8, channels: 1 });
    fs::write(path("tiny.toml"), TINY).unwrap();
    let train = |out: &str, device: &str, rest: &[&str]| {
        let (data, config) = (path("data"), path("tiny.toml"));
        let options = ["run", "--quiet", "--config", &config, "--data", &data, "--device", device];
        let length = ["--steps", "6", "--batch-size", "4", "--log-every", "2", "--sample-every", "3"];
        on_gpu(&[&options[..], &length, &["--checkpoint-every", "3", "--out", out], rest].concat());
    };
    // Steps are observed at 2, 3, 4 and 6; the work of a step is captured once each kind of step has run.
    for (dtype, order, ema) in [
        ("f32", "both", "0.9"),
        ("bf16", "both", "0"),
        ("f32", "alternate", "0"),
        ("bf16", "alternate", "0.5"),
    ] {
        let name = |what: &str| format!("{what}-{dtype}-{order}");
        let more = ["--dtype", dtype, "--order", order, "--ema", ema];
        let (whole, cut, cpu) = (path(&name("whole")), path(&name("cut")), path(&name("cpu")));
        train(&whole, "cuda:0", &more);
        train(&cut, "cuda:0", &more);
        // The state after a kill after the checkpoint of step 3.
        fs::remove_dir_all(Path::new(&cut).join("checkpoints/00000006")).unwrap();
        fs::remove_file(Path::new(&cut).join("result.json")).unwrap();
        on_gpu(&["resume", &cut, "--quiet"]);
        assert_same_run(Path::new(&whole), Path::new(&cut));
        train(&cpu, "cpu", &more);
        let losses = |run: &str| -> Vec<f64> {
            stats(Path::new(run), "step").iter().flat_map(|line| line["loss_d"].as_f64()).collect()
        };
        let tolerance = if dtype == "f32" { 1e-3 } else { 0.1 };
        let (on_gpu, on_cpu) = (losses(&whole), losses(&cpu));
        assert_eq!((on_gpu.len(), on_cpu.len()), (3, 3));
        let far = on_gpu.iter().zip(&on_cpu).find(|(a, b)| (*a - *b).abs() > tolerance);
        assert_eq!(far, None, "{dtype}, {order}: {on_gpu:?}, {on_cpu:?}");
    }
    let (model, image) = (path("whole-f32-both"), path("s.png"));
    on_gpu(&["sample", "--model", &model, "--n", "3", "--device", "cuda:0", "--out", &image]);
    assert!(fs::metadata(&image).unwrap().len() > 100);
}

#[test]
fn a_full_memory_names_a_batch_size_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    write_images(&folder.path().join("data"), 400, ImageShape { height: 8, width: 8, channels: 1 });
    fs::write(path("tiny.toml"), TINY).unwrap();
    let (data, config) = (path("data"), path("tiny.toml"));
    let run = |batch: &str, out: &str| {
        let options = ["run", "--quiet", "--config", &config, "--data", &data, "--device", "cuda:0"];
        let length = ["--steps", "4", "--batch-size", batch, "--out", out];
        let mut run = command(&[&options[..], &length].concat());
        let run = run.env("LD_LIBRARY_PATH", libraries()).env("SIMULATED_MEMORY", MEMORY).output().unwrap();
        (run.status.success(), String::from_utf8(run.stderr).unwrap())
    };
    let (_, message) = run("400", &path("large"));
    let hint = message.split_once("use --batch-size ").unwrap_or_else(|| panic!("{message}")).1;
    let batch_size = hint.split_once(" or less").unwrap().0;
    assert!((40..400).contains(&batch_size.parse::<usize>().unwrap()), "{message}");
    let (succeeds, message) = run(batch_size, &path("small"));
    assert!(succeeds, "{batch_size}: {message}");
}

/// Bytes of a simulated GPU that is too small for a batch of 400.
const MEMORY: &str = "2000000";

#[test]
fn a_gpu_is_compared_with_the_cpu() {
    let explained = on_gpu(&[
        "bench",
        "--explain",
        "--preset",
        "digits",
        "--batch-size",
        "2",
        "--steps",
        "1",
        "--device",
        "cuda:0",
    ]);
    for part in ["TFLOP/s", "weight gradient", "all convolutions, each once", "images/s"] {
        assert!(explained.contains(part), "{explained}");
    }
    let line =
        on_gpu(&["bench", "--verify", "--preset", "digits", "--batch-size", "2", "--device", "cuda:0"]);
    for part in
        ["digits on cuda:0 (simulated GPU) in f32", "generator ", "steps ", "repeated, they are equal"]
    {
        assert!(line.contains(part), "{line}");
    }
}
