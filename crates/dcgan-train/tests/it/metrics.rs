//! FID and KID while a run trains, with Inception weights drawn at random.

use std::fs;
use std::path::{Path, PathBuf};

use dcgan_metrics::{CLASSES, FEATURES, convolution_shapes};
use dcgan_model::random::{Purpose, normal, stream};
use dcgan_model::weights::{HostTensor, Precision, Weights, write_safetensors};
use serde_json::Value;

use crate::support::{TINY, command, run};

/// A file of weights: convolutions that keep the size of features.
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
    // A run that goes on measures the same.
    start("parts", "4");
    train(&["resume", &path("parts"), "--steps", "8"]);
    assert_eq!(events(&folder.path().join("parts"), "metrics"), measured);
    // Measuring changes nothing else.
    let without = path("without");
    train(&["run", "--config", &config, "--out", &without, "--steps", "8", "--checkpoint-every", "2"]);
    let network =
        |run: &str| fs::read(folder.path().join(run).join("checkpoints/00000008/generator.safetensors"));
    assert_eq!(network("whole").unwrap(), network("without").unwrap());
}

#[test]
fn options_of_metrics_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").to_str().unwrap().to_owned();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "no weights").unwrap();
    let text = text.to_str().unwrap();
    let rows: [(&[&str], &[&str]); 5] = [
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
