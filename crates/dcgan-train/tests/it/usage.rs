//! Wrong usage: a message with the fix, exit code 2, nothing written.

use crate::support::{TINY, assert_same_run, run, succeed};
use std::fs;

/// Runs with exit code 2; stderr contains every part.
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{arguments:?}: no {part:?} in {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn bad_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        path(name)
    };
    let tiny = write("tiny.toml", TINY);
    let unknown_field = write("unknown.toml", &TINY.replace("[training]", "[training]\nwarmup = 3"));
    let wrong_sizes = write(
        "sizes.toml",
        &TINY.replace("height = 8", "height = 9").replace("channels = 1\n", "channels = 2\n"),
    );
    let not_toml = write("not.toml", "{\"a\": 1}");
    let full = path("full");
    fs::create_dir(&full).unwrap();
    fs::write(folder.path().join("full/precious.txt"), "mine").unwrap();
    let (absent, out, empty) = (path("absent"), path("out"), path("empty"));
    fs::create_dir(&empty).unwrap();
    let text = write("notes.txt", "no image");

    refused(&["run", "--preset", "pytorch46", "--out", &out], &["pytorch46", "pytorch64", "imagenet32"]);
    refused(&["run", "--config", &absent, "--out", &out], &["absent", "No such file"]);
    refused(&["run", "--config", &not_toml, "--out", &out], &["not.toml", "line 1"]);
    refused(&["run", "--config", &unknown_field, "--out", &out], &["unknown field", "warmup"]);
    refused(&["run", "--config", &wrong_sizes, "--out", &out], &["channels is 2"]);
    refused(
        &["run", "--config", &tiny, "--size", "4096", "--batch-size", "65536", "--out", &out],
        &["GB of memory at least", "use a smaller --batch-size"],
    );
    // Every fault at once.
    refused(
        &[
            "run",
            "--batch-size",
            "1",
            "--learning-rate",
            "7",
            "--checkpoint-every",
            "0",
            "--out",
            &full,
            "--ema",
            "1.5",
        ],
        &[
            "--batch-size is 1",
            "--learning-rate is 7",
            "--checkpoint-every is 0",
            "is not empty",
            "--ema is 1.5",
        ],
    );
    // Numbers below zero, beside other faults, and numbers that are none.
    refused(
        &["run", "--seed", "-1", "--keep", "-7", "--learning-rate", "-1", "--ema", "2", "--out", &out],
        &[
            "--seed is -1, expected at least 0",
            "--keep is -7, expected at least 1",
            "--learning-rate is -1, expected above 0",
            "--ema is 2",
        ],
    );
    refused(&["run", "--threads=-1", "--out", &out], &["--threads is -1, expected 1 to 4096"]);
    refused(&["run", "--seed", "1.5", "--out", &out], &["'1.5'", "--seed", "at least 0"]);
    refused(&["run", "--seed", "99999999999999999999", "--out", &out], &["--seed", "an integer, at least 0"]);
    refused(&["run", "--steps", "-5", "--out", &out], &["--steps is -5, expected at least 1"]);
    refused(&["run", "--channels", "2", "--out", &out], &["--channels is 2, expected 1, 3 or 4"]);
    refused(&["run", "--channels", "-1", "--out", &out], &["--channels is -1, expected 1, 3 or 4"]);
    refused(&["bench", "--steps", "-1"], &["'-1' for '--steps", "from 1 to 1000000"]);
    refused(
        &["sample", "--model", &empty, "--seed", "-1", "--out", &out],
        &["'-1' for '--seed", "at least 0"],
    );
    refused(&["resume", &empty, "--steps", "-1"], &["not a run folder"]);
    refused(&["run", "--size", "30", "--out", &out], &["30 x 30", "multiples", "4"]);
    refused(&["run", "--size", "0x28", "--out", &out], &["height is 0"]);
    refused(&["run", "--size", "abc", "--out", &out], &["abc"]);
    refused(&["run", "--size", "-4", "--out", &out], &["'-4' for '--size", "expected N or HxW"]);
    refused(&["run", "--steps", "5", "--epochs", "2", "--out", &out], &["--steps", "--epochs"]);
    refused(&["run", "--device", "tpu", "--out", &out], &["tpu", "cuda:N"]);
    let reason = if cfg!(feature = "cuda") { "no NVIDIA driver" } else { "without cuda" };
    if !fs::exists("/dev/nvidia0").unwrap() {
        refused(&["run", "--device", "cuda:0", "--out", &out], &[reason, "--device cpu"]);
    }
    refused(&["run", "--threads", "0", "--out", &out], &["--threads is 0"]);
    refused(
        &["run", "--crop", "20", "--skip-bad", "--background", "white", "--exclude", "x", "--out", &out],
        &["--crop needs --data", "--skip-bad needs", "--background needs", "--exclude needs --data"],
    );
    let expected = "--background is \"red\", expected black, white or #rrggbb";
    refused(&["run", "--data", &empty, "--background", "red", "--out", &out], &[expected]);
    let named = write("named.toml", &TINY.replace("name = \"tiny\"", "name = \"../tiny\""));
    refused(&["run", "--config", &named, "--out", &out], &["name is", "../tiny"]);
    refused(&["bench", "--threads", "1000000"], &["--threads is 1000000"]);
    let nowhere = path("nowhere/x.png");
    refused(&["sample", "--model", &empty, "--out", &nowhere], &["nowhere", "does not exist"]);
    refused(
        &["run", "--config", &tiny, "--batch-size", "20000", "--out", &out],
        &["10000 images", "20000", "--batch-size"],
    );
    refused(
        &["run", "--config", &tiny, "--shards", "3", "--processes", "4", "--out", &out],
        &[
            "--shards is 3, expected a power of two that divides the batch size, 16",
            "--processes is 4, expected a power of two that is at most --shards, 3",
        ],
    );
    #[cfg(not(feature = "mpi"))]
    refused(
        &["run", "--config", &tiny, "--shards", "2", "--processes", "2", "--out", &out],
        &["--processes is 2; this program was built without MPI", "use --processes 1"],
    );
    refused(&["run", "--config", &tiny, "--data", &absent, "--out", &out], &["absent"]);
    refused(&["run", "--config", &tiny, "--data", &empty, "--out", &out], &["empty", "0 images"]);
    refused(&["run", "--config", &tiny, "--data", &text, "--out", &out], &["notes.txt"]);
    refused(&["run", "--config", &tiny, "--init-from", &absent, "--out", &out], &["absent"]);
    refused(&["resume", &absent], &["absent"]);
    refused(&["resume", &empty], &["not a run folder", "plan.toml"]);
    refused(&["sample", "--model", &absent, "--out", &out], &["absent"]);
    refused(&["sample", "--model", &text, "--out", &out], &["notes.txt", "unknown format"]);
    refused(&["sample", "--model", &empty, "--n", "0", "--out", &out], &["--n is 0"]);
    refused(&["import", &text, "--preset", "digits", "--out", &out], &["notes.txt"]);
    refused(&["import", &text, "--preset", "nothing", "--out", &out], &["nothing", "digits"]);
    refused(&["export", &empty, "--to", "pytorch", "--out", &out], &["empty"]);
    let onnx = path("out.onnx");
    refused(&["export", &empty, "--to", "onnx", "--out", &onnx], &["empty"]);
    refused(
        &["export", &empty, "--to", "onnx", "--out", &text, "--features"],
        &[".onnx", "--network discriminator"],
    );
    refused(
        &[
            "export",
            &empty,
            "--to",
            "pytorch",
            "--out",
            &out,
            "--bytes",
            "--label-vectors",
            "--license",
            "MIT",
        ],
        &[
            "--bytes needs --to onnx",
            "--label-vectors needs --to onnx",
            "--license needs --to onnx, --to web or --to hub",
        ],
    );
    refused(
        &[
            "export",
            &empty,
            "--to",
            "onnx",
            "--out",
            &onnx,
            "--network",
            "discriminator",
            "--bytes",
            "--label-vectors",
        ],
        &["--bytes needs --network generator", "--label-vectors needs --network generator"],
    );
    refused(
        &["export", &empty, "--to", "web", "--out", &full, "--runtime", &text, "--network", "discriminator"],
        &["--out", "--network needs --to onnx"],
    );
    refused(
        &["export", &empty, "--to", "onnx", "--out", &onnx, "--runtime", &text],
        &["--runtime needs --to web"],
    );
    refused(&["export", &empty, "--to", "hub", "--out", &full], &["--out", "--to hub needs --license"]);
    refused(&["bench", "--preset", "nothing"], &["nothing", "digits"]);
    refused(&["bench", "--steps", "0", "--batch-size", "1"], &["--steps is 0", "--batch-size is 1"]);
    refused(&["presets", "nothing"], &["nothing"]);
    refused(&["frobnicate"], &["frobnicate"]);
    assert!(!folder.path().join("out").exists(), "a refused command wrote something");
    assert_eq!(fs::read_to_string(folder.path().join("full/precious.txt")).unwrap(), "mine");
}

#[test]
fn a_run_from_start_to_samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, out, png, more) = (path("tiny.toml"), path("run"), path("s.png"), path("more"));
    fs::write(&config, TINY).unwrap();
    let output = succeed(&[
        "run",
        "--config",
        &config,
        "--out",
        &out,
        "--steps",
        "20",
        "--checkpoint-every",
        "10",
        "--json",
    ]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["steps"], &last["images"]), (&20.into(), &320.into()));
    for file in [
        "plan.toml",
        "stats.jsonl",
        "log.txt",
        "reals.png",
        "result.json",
        "samples/00000320.png",
        "best/README.md",
    ] {
        assert!(folder.path().join("run").join(file).exists(), "{file}");
    }
    // The run and its best checkpoint are models; equal seeds draw equal images.
    succeed(&["sample", "--model", &out, "--n", "5", "--out", &png]);
    let first = fs::read(&png).unwrap();
    let best = path("run/best");
    succeed(&["sample", "--model", &best, "--n", "5", "--out", &png]);
    assert_eq!(fs::read(&png).unwrap(), first);
    succeed(&["sample", "--model", &best, "--n", "5", "--seed", "1", "--out", &png]);
    assert_ne!(fs::read(&png).unwrap(), first);
    // Another run can start from it, with networks of the same shape only.
    succeed(&["run", "--config", &config, "--out", &more, "--steps", "2", "--init-from", &best]);
    assert!(folder.path().join("more/samples/00000000.png").exists());
    let wide = path("wide.toml");
    fs::write(&wide, TINY.replace("project_channels = 8", "project_channels = 16")).unwrap();
    let other = path("other");
    refused(
        &["run", "--config", &wide, "--out", &other, "--steps", "2", "--init-from", &best],
        &["project.conv.weight", "--init-from"],
    );
    // Exported under PyTorch's names and imported again by a configuration file: the same images.
    let (exported, imported) = (path("exported"), path("imported"));
    let flat = path("flat.toml");
    fs::write(&flat, TINY.replace("per-activation", "per-channel")).unwrap();
    let (flat_run, net_g) = (path("flat"), path("exported/netG.safetensors"));
    // Batch norm per activation needs the definitions of the networks beside the weights.
    let defined = path("defined");
    succeed(&["export", &best, "--to", "pytorch", "--out", &defined]);
    assert!(
        fs::read_to_string(folder.path().join("defined/networks.py")).unwrap().contains("def load(path)")
    );
    succeed(&["run", "--config", &flat, "--out", &flat_run, "--steps", "4"]);
    // What the files compute is checked in onnxruntime (tests/golden/onnx).
    let onnx = path("network.onnx");
    for options in [&["--bytes"][..], &["--network", "discriminator", "--features", "--license", "CC0-1.0"]] {
        succeed(&[&["export", &best, "--to", "onnx", "--out", &onnx], options].concat());
        let found = String::from_utf8_lossy(&fs::read(&onnx).unwrap()).into_owned();
        assert!(
            found.contains("dcgan-rs") && found.contains("CC0-1.0") == (options.len() > 1),
            "{options:?}"
        );
    }
    refused(
        &["export", &best, "--to", "onnx", "--out", &path("labels.onnx"), "--label-vectors"],
        &["--label-vectors needs a conditional model"],
    );
    let output = succeed(&["export", &best, "--to", "onnx", "--out", "-"]);
    succeed(&["export", &best, "--to", "onnx", "--out", &onnx]);
    assert_eq!(output.stdout, fs::read(&onnx).unwrap(), "standard output has the file and nothing else");
    succeed(&["export", &flat_run, "--to", "pytorch", "--out", &exported]);
    succeed(&["import", &net_g, "--config", &flat, "--out", &imported]);
    succeed(&["sample", "--model", &flat_run, "--n", "5", "--out", &png]);
    let first = fs::read(&png).unwrap();
    succeed(&["sample", "--model", &imported, "--n", "5", "--out", &png]);
    assert_eq!(fs::read(&png).unwrap(), first);
    succeed(&["sample", "--model", &net_g, "--config", &flat, "--n", "5", "--out", &png]);
    assert_eq!(fs::read(&png).unwrap(), first);
    // A folder for the Hub is a model folder, also after a second export.
    let (hub, hub_again, result) = (path("hub"), path("hub_again"), path("flat/result.json"));
    succeed(&["export", &flat_run, "--to", "hub", "--out", &hub, "--license", "mit", "--results", &result]);
    succeed(&["export", &hub, "--to", "hub", "--out", &hub_again, "--license", "cc0-1.0", "--dtype", "bf16"]);
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let (card, again) = (read("hub/README.md"), read("hub_again/README.md"));
    assert!(
        card.starts_with("---\nlicense: mit\n") && card.contains("type: random-feature-frechet-distance")
    );
    assert!(again.starts_with("---\nlicense: cc0-1.0\n") && !again.contains("frechet-distance"));
    assert_eq!(again.split_once("\n# ").unwrap().1, card.split_once("\n# ").unwrap().1);
    assert_eq!(card.matches("## In PyTorch").count(), 1);
    assert!(read("hub/config.json").contains("_class_name"));
    succeed(&["sample", "--model", &hub, "--n", "5", "--out", &png]);
    assert_eq!(fs::read(&png).unwrap(), first);
    // The folder of an export comes back as the same model, without a configuration.
    for (model, exported, returned) in
        [("flat/best", "exported", "returned"), ("run/best", "defined", "redefined")]
    {
        succeed(&["import", &path(exported), "--out", &path(returned)]);
        for file in ["config.json", "generator.safetensors", "discriminator.safetensors"] {
            let read = |name: &str| fs::read(folder.path().join(name).join(file)).unwrap();
            assert_eq!(read(returned), read(model), "{file}");
        }
    }
    // One network alone.
    let alone = path("alone");
    succeed(&["import", &flat_run, "--network", "discriminator", "--dtype", "bf16", "--out", &alone]);
    let names = fs::read_dir(&alone).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["README.md", "config.json", "discriminator.safetensors"]);
    let again = path("again");
    refused(&["import", &alone, "--network", "generator", "--out", &again], &["--network", "alone"]);
    refused(
        &["import", &net_g, "--size", "16", "--preset", "digits", "--out", &again],
        &["--size", "--preset"],
    );
    refused(&["import", &net_g, &flat_run, "--out", &again], &["flat", "name it alone"]);
    refused(&["import", &net_g, "--preset", "digits", "--out", &again], &["project.conv.weight"]);
    // Weights that are NaN are refused. Weights that overflow fail the first step.
    let damaged = folder.path().join("spoilt");
    fs::create_dir(&damaged).unwrap();
    let (spoilt, nan) = (path("spoilt"), path("nan"));
    let arguments = ["run", "--config", &config, "--out", &nan, "--steps", "2", "--init-from", &spoilt];
    for (count, value) in [(1, f32::NAN), (64, f32::MAX)] {
        for file in ["config.json", "generator.safetensors", "discriminator.safetensors"] {
            let mut bytes = fs::read(folder.path().join("run/best").join(file)).unwrap();
            let end = bytes.len();
            if file == "discriminator.safetensors" {
                bytes[end - 4 * count..].copy_from_slice(&value.to_le_bytes().repeat(count)); // of head.conv.weight
            }
            fs::write(damaged.join(file), bytes).unwrap();
        }
        if value.is_nan() {
            let parts = ["spoilt", "the discriminator contains NaN", "head.conv.weight"];
            refused(&arguments, &parts);
            refused(&["sample", "--model", &spoilt, "--out", &path("spoilt.png")], &parts);
            refused(&["import", &spoilt, "--out", &nan], &parts);
            succeed(&["import", &spoilt, "--allow-non-finite", "--out", &path("as_it_is")]);
        }
    }
    let output = run(&arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for part in ["step 1", "not finite", "no checkpoint had been written"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    // The plan has the resolved options.
    let plan = fs::read_to_string(folder.path().join("run/plan.toml")).unwrap();
    assert!(plan.contains("checkpoint_every = 10") && plan.contains("steps = 20"), "{plan}");
}

#[test]
fn a_plan_repeats_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, first, again, changed) = (path("tiny.toml"), path("first"), path("again"), path("changed"));
    fs::write(&config, TINY).unwrap();
    let options = ["--steps", "20", "--seed", "5", "--checkpoint-every", "10", "--ema", "0.9", "--mirror"];
    succeed(&[&["run", "--config", &config, "--out", &first, "--quiet"], &options[..]].concat());
    let plan = path("first/plan.toml");
    let read = |run: &str| fs::read_to_string(folder.path().join(run).join("plan.toml")).unwrap();
    succeed(&["run", "--config", &plan, "--out", &again, "--quiet"]);
    assert_same_run(&folder.path().join("first"), &folder.path().join("again"));
    assert_eq!(read("again"), read("first"));
    // Options override it.
    let options = ["--epochs", "1", "--batch-size", "5000", "--seed", "6", "--no-mirror", "--keep", "1"];
    succeed(&[&["run", "--config", &plan, "--out", &changed, "--quiet"], &options[..]].concat());
    let mut expected = read("first").replace("seed = 5", "seed = 6").replace("keep = 3", "keep = 1");
    expected = expected.replace("steps = 20", "epochs = 1").replace("mirror = true", "mirror = false");
    assert_eq!(read("changed"), expected.replace("batch_size = 16", "batch_size = 5000"));
}

#[test]
fn version_and_completions() {
    let version = String::from_utf8(succeed(&["--version"]).stdout).unwrap();
    assert_eq!(version.trim(), concat!("dcgan-train ", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(succeed(&["completions", shell]).stdout).unwrap();
        for word in ["dcgan-train", "resume", "checkpoint-every"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    refused(&["completions", "cmd"], &["cmd", "bash"]);
}
