//! FID and KID while a run trains, with Inception weights drawn at random.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dcgan_data::ImageShape;
use dcgan_metrics::{CLASSES, FEATURES, convolution_shapes};
use dcgan_model::random::{Purpose, normal, stream};
use dcgan_model::weights::{HostTensor, Precision, Weights, write_safetensors};
use serde_json::Value;

use crate::defaults::write_images;
use crate::support::{TINY, command, run};

/// A weights file: convolutions that keep the size of features.
fn write_weights(folder: &Path) -> PathBuf {
    let mut rng = stream(0, Purpose::FrechetWeights, 0);
    let mut weights = Weights::new();
    let mut add = |name: String, shape: &[usize], mean: f32, std: f32| {
        let count = shape.iter().product();
        let data = normal(&mut rng, count, 0.0, std).iter().map(|value| mean + value).collect();
        weights.insert(name, HostTensor { shape: shape.to_vec(), data });
    };
    for conv in convolution_shapes() {
        let fan_in: usize = conv.weight[1..].iter().product();
        add(format!("{}.conv.weight", conv.name), &conv.weight, 0.0, (2.0 / fan_in as f32).sqrt());
        for (name, mean) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            add(format!("{}.bn.{name}", conv.name), &conv.weight[..1], mean, 0.01);
        }
    }
    add("fc.weight".to_owned(), &[CLASSES, FEATURES], 0.0, 0.1);
    let path = folder.join("inception.safetensors");
    write_safetensors(&path, &weights, Precision::F32).unwrap();
    path
}

/// Lines of stats.jsonl with the event `name`, without their time.
fn events(run: &Path, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(run.join("stats.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found: Vec<Value> = lines.filter(|line| line["event"] == name).collect();
    found.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("time")));
    found
}

#[test]
fn fid_is_measured_while_a_run_trains() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let weights = write_weights(folder.path());
    let config = path("tiny.toml");
    fs::write(&config, TINY).unwrap();
    let cache = path("caches");
    let train = |more: &[&str]| {
        let output =
            command(more).env("DCGAN_CACHE", &cache).env("DCGAN_INCEPTION", &weights).output().unwrap();
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let options = ["--checkpoint-every", "2", "--metrics-every", "4", "--metrics-images", "6"];
    let start = |name: &str, steps: &str| {
        let run = path(name);
        let first = ["run", "--config", &config, "--out", &run, "--steps", steps, "--best-by", "fid"];
        train(&[&first[..], &options].concat())
    };
    assert!(start("whole", "8").contains("FID"));
    let whole = folder.path().join("whole");
    let measured = events(&whole, "metrics");
    let steps: Vec<u64> = measured.iter().map(|event| event["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [4, 8]);
    for event in &measured {
        assert_eq!((&event["samples"], &event["convention"]), (&6.into(), &"torch-fidelity".into()));
        assert!(event["fid"].as_f64().unwrap() > 0.0 && event["kid"].is_null(), "{event}");
        assert_eq!(event["inception_sha256"].as_str().unwrap().len(), 64);
    }
    // The best checkpoint is one of those that were measured.
    let fid = |event: &Value| event["fid"].as_f64().unwrap();
    let best = if fid(&measured[0]) <= fid(&measured[1]) { 0 } else { 1 };
    let result: Value =
        serde_json::from_str(&fs::read_to_string(whole.join("result.json")).unwrap()).unwrap();
    assert_eq!(result["best_step"], steps[best]);
    assert_eq!(result["best_metric"].as_f64().unwrap(), fid(&measured[best]));
    let is_best: Vec<bool> =
        events(&whole, "checkpoint").iter().map(|event| event["best"].as_bool().unwrap()).collect();
    assert_eq!(is_best, [false, true, false, best == 1]);
    // A run that is resumed measures the same.
    start("parts", "4");
    train(&["resume", &path("parts"), "--steps", "8"]);
    assert_eq!(events(&folder.path().join("parts"), "metrics"), measured);
    // FID of fewer images is larger: what was the best is not compared with it. Paths do not depend on the folder.
    let mut resume = command(&["resume", "parts", "--steps", "12", "--metrics-images", "5"]);
    resume.args(["--inception", "inception.safetensors"]).current_dir(&folder).env("DCGAN_CACHE", &cache);
    assert!(resume.status().unwrap().success());
    let parts = folder.path().join("parts");
    assert_eq!(events(&parts, "checkpoint").last().unwrap()["best"], true);
    let plan = fs::read_to_string(parts.join("plan.toml")).unwrap();
    assert!(plan.contains(weights.to_str().unwrap()), "{plan}");
    // Measuring changes nothing else.
    let without = path("without");
    train(&["run", "--config", &config, "--out", &without, "--steps", "8", "--checkpoint-every", "2"]);
    let network =
        |run: &str| fs::read(folder.path().join(run).join("checkpoints/00000008/generator.safetensors"));
    assert_eq!(network("whole").unwrap(), network("without").unwrap());
}

/// A signal stops a measurement at the last step as well; the resumed run measures.
#[cfg(unix)]
#[test]
fn a_signal_stops_a_measurement() {
    let folder = tempfile::tempdir().unwrap();
    write_weights(folder.path());
    fs::write(folder.path().join("tiny.toml"), TINY).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.current_dir(&folder).env("DCGAN_CACHE", folder.path().join("caches"));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let start = ["run", "--config", "tiny.toml", "--out", "run", "--steps", "4", "--checkpoint-every", "4"];
    let metrics =
        ["--metrics-every", "4", "--metrics-images", "2000", "--inception", "inception.safetensors"];
    let mut child = run(&[&start[..], &metrics].concat()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("measuring FID")), "nothing was measured");
    let kill = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(folder.path().join("run/checkpoints/00000004").is_dir());
    assert_eq!(events(&folder.path().join("run"), "metrics").len(), 0);
    assert!(run(&["resume", "run", "--metrics-images", "4"]).status().unwrap().success());
    assert_eq!(events(&folder.path().join("run"), "metrics").len(), 1);
    assert!(folder.path().join("run/result.json").is_file());
}

#[test]
fn options_of_metrics_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").to_str().unwrap().to_owned();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "no weights").unwrap();
    let text = text.to_str().unwrap();
    let few = folder.path().join("few");
    write_images(&few, 20, ImageShape { height: 28, width: 28, channels: 1 });
    let few = few.to_str().unwrap();
    let kid = ["--metrics-every", "500", "--best-by", "kid", "--data", few, "--batch-size", "4"];
    let rows: [(&[&str], &[&str]); 6] = [
        (&kid, &["--best-by kid", "1000 images", "has 20"]),
        (&["--metrics-every", "750", "--inception", text], &["750", "multiple of --checkpoint-every, 500"]),
        (&["--best-by", "fid"], &["--best-by", "--metrics-every"]),
        (
            &["--metrics-every", "500", "--best-by", "kid", "--metrics-images", "999"],
            &["--metrics-images is 999", "1000"],
        ),
        (&["--metrics-every", "500"], &["--inception", "DCGAN_INCEPTION", "pt_inception-2015-12-05"]),
        (&["--metrics-every", "500", "--inception", text], &["--inception", "notes.txt"]),
    ];
    for (options, words) in rows {
        let output = run(&[&["run", "--preset", "digits", "--out", &out], options].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {error}");
        for word in words {
            assert!(error.contains(word), "{options:?}: {word} is not in {error}");
        }
        assert!(!Path::new(&out).exists(), "{options:?} wrote something");
    }
}
