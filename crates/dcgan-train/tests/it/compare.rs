//! `dcgan-train compare` and `animate`.

use crate::support::{TINY, run, stats, succeed};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

#[test]
fn runs_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config = path("tiny.toml");
    fs::write(&config, TINY).unwrap();
    for (name, options) in [
        ("runs/a", ["--seed", "1", "--learning-rate", "1e-3"]),
        ("runs/b", ["--seed", "2", "--learning-rate", "1e-3"]),
        ("runs/c", ["--seed", "1", "--learning-rate", "2e-3"]),
    ] {
        let common = ["--steps", "30", "--checkpoint-every", "10", "--log-every", "5"];
        let out = path(name);
        succeed(
            &[&["run", "--config", &config, "--out", &out, "--quiet"], &common[..], &options[..]].concat(),
        );
    }
    let (a, b, c, png) = (path("runs/a"), path("runs/b"), path("runs/c"), path("curves.png"));

    let output = succeed(&["compare", &a, &b, &c, "--json", "--out", &png]);
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let json: Value = serde_json::from_str(&stdout).unwrap();
    let runs = json["runs"].as_array().unwrap();
    for (summary, name) in runs.iter().zip([&a, &b, &c]) {
        let last = stats(Path::new(name), "step").pop().unwrap();
        let best =
            stats(Path::new(name), "checkpoint").into_iter().map(|line| line["frechet"].as_f64().unwrap());
        assert_eq!((&summary["run"], &summary["state"]), (&name.as_str().into(), &"finished".into()));
        assert_eq!((&summary["steps"], &summary["images"]), (&30.into(), &480.into()));
        assert_eq!((&summary["loss_d"], &summary["loss_g"]), (&last["loss_d"], &last["loss_g"]));
        assert_eq!(summary["best_frechet"].as_f64(), best.reduce(f64::min));
        assert!(summary["images_per_s"].as_f64() > Some(0.0) && summary["seconds"].as_f64() > Some(0.0));
    }
    assert_eq!(runs[2]["options"], serde_json::json!({ "training.learning_rate": "0.002" }));
    // a and b differ in their seed only. For two values t is 12.7062: the half-width is that of their difference / 2.
    let groups = json["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &groups[0]["seeds"]), (1, &serde_json::json!([1, 2])));
    let distances: Vec<f64> = runs[..2].iter().map(|run| run["best_frechet"].as_f64().unwrap()).collect();
    let half = 12.7062 * (distances[0] - distances[1]).abs() / 2.0;
    let found = &groups[0]["best_frechet"];
    assert!((found["interval95"].as_f64().unwrap() - half).abs() < 1e-9, "{found} {half}");
    assert!((found["mean"].as_f64().unwrap() - (distances[0] + distances[1]) / 2.0).abs() < 1e-12, "{found}");
    // The same seed is no second sample, and an unfinished run has no final value.
    let groups = |runs: &[&str]| {
        let output = succeed(&[&["compare", "--json"], runs].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        json["groups"].as_array().unwrap().iter().map(|group| group["runs"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(groups(&[&a, &a]), [] as [Value; 0]);
    assert_eq!(groups(&[&a, &b, &a]), [serde_json::json!([a, b])]);
    // b was extended after its result, and stopped.
    let result = fs::read_to_string(path("runs/b/result.json")).unwrap();
    fs::write(path("runs/b/result.json"), result.replace("\"steps\": 30", "\"steps\": 20")).unwrap();
    assert_eq!(groups(&[&a, &b]), [] as [Value; 0]);
    fs::write(path("runs/b/result.json"), result).unwrap();
    // The curves: lines in the colors of three runs, and text.
    let image = dcgan_data::gif::read_frame(png.as_ref()).unwrap();
    assert_eq!(image.shape(), (960, 1000, 3));
    let colors: std::collections::BTreeSet<&[u8]> = image.pixels().chunks_exact(3).collect();
    for color in [[0, 114, 178], [213, 94, 0], [0, 158, 115]] {
        assert!(colors.contains(&color[..]), "no curve in {color:?}");
    }
    let is_dark = |pixel: &&[u8]| pixel.iter().all(|&value| value < 100);
    assert!(image.pixels().chunks_exact(3).filter(is_dark).count() > 2000, "no text");

    // A folder of runs; one that was stopped within a line, one without a readable plan.
    let stats = path("runs/c/stats.jsonl");
    let lines = fs::read_to_string(&stats).unwrap();
    fs::write(&stats, format!("{}broken\n{{\"event\":\"st", &lines[..lines.len() / 2])).unwrap();
    fs::remove_file(path("runs/c/result.json")).unwrap();
    fs::create_dir(path("runs/d")).unwrap();
    fs::write(path("runs/d/plan.toml"), "seed = [").unwrap();
    let output = succeed(&["compare", &path("runs")]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    for part in [
        "best Fréchet",
        "options that differ",
        "finished",
        "stopped",
        "learning_rate=0.002",
        "2 seeds of",
        "mean +- 95 % interval",
        "runs/c: 1 damaged line(s)",
    ] {
        assert!(stdout.contains(part), "no {part:?} in {stdout}");
    }
    assert!(stderr.contains("left out") && stderr.contains("runs/d/plan.toml"), "{stderr}");

    for (arguments, part) in [
        (vec!["compare", "absent"], "absent is not a folder"),
        (vec!["compare", folder.path().to_str().unwrap()], "is not a run folder"),
        (vec!["compare", &a, "--out", "a.tiff"], ".tiff is not written"),
        (vec!["compare"], "<RUN>"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {}", text(&output.stderr));
    }

    // The sample grids as an animation.
    let gif = path("a.gif");
    let output = succeed(&["animate", &a, "--out", &gif, "--scale", "2", "--fps", "10"]);
    assert!(text(&output.stdout).starts_with("2 frames in"), "{}", text(&output.stdout)); // after 16 and 30 steps
    let bytes = fs::read(&gif).unwrap();
    let grid = dcgan_data::gif::read_frame(&Path::new(&a).join("samples/00000480.png")).unwrap();
    let side = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    assert_eq!((&bytes[..6], side(6), side(8)), (&b"GIF89a"[..], 2 * grid.shape().1, 2 * grid.shape().0));
    for (arguments, part) in [
        (["animate", &a, "--out", "a.png"], "expected .gif"),
        (["animate", "absent", "--out", &gif], "absent"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_run_for_each_seed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, out) = (path("tiny.toml"), path("tiny"));
    fs::write(&config, TINY).unwrap();
    let common = ["run", "--config", &config, "--out", &out, "--quiet", "--threads", "1"];
    let seeds = |steps: &str, more: &[&str]| run(&[&common[..], &["--steps", steps], more].concat());
    let output = seeds("4", &["--seeds", "3,1", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((stdout.lines().count(), &json["groups"][0]["seeds"]), (1, &serde_json::json!([3, 1])));
    // The same as a run of its own; repeated, it continues: here to more steps, with a third seed.
    let own = path("own");
    let single = ["run", "--config", &config, "--out", &own, "--quiet", "--seed", "1", "--steps", "6"];
    succeed(&single);
    let output = seeds("6", &["--seed", "1", "--repeat", "3"]);
    let stdout = text(&output.stdout);
    assert!(stdout.contains("3 seeds of") && stdout.contains("6  "), "{stdout}");
    for file in ["generator.safetensors", "state.safetensors"] {
        let read = |run: &str| fs::read(Path::new(run).join("checkpoints/00000006").join(file)).unwrap();
        assert!(read(&own) == read(&path("tiny-s1")), "{file} differs");
    }
    // `resume` can change skip_bad.
    let images = path("images");
    fs::create_dir(&images).unwrap();
    let shape = dcgan_data::ImageShape { height: 8, width: 8, channels: 1 };
    for i in 0..16_u8 {
        let image = dcgan_data::image_grid::ImageGrid::square(&[i * 9; 64], shape).unwrap();
        image.save(&Path::new(&images).join(format!("{i}.png"))).unwrap();
    }
    for option in ["--no-skip-bad", "--skip-bad"] {
        let output = seeds("2", &["--seeds", "9", "--data", &images, option]);
        assert!(output.status.success(), "{option}: {}", text(&output.stderr));
    }
    for (more, part) in [
        (vec!["--seeds", "1,1"], "a seed twice"),
        (vec!["--seeds", "1,-2"], "'-2' for '--seeds"),
        (vec!["--repeat", "0"], "--repeat is 0, expected 1 to 1000"),
        (
            vec!["--repeat", "2", "--batch-size", "8", "--seed", "1"],
            "tiny-s1: the run there has training.batch_size = 16, this command 8",
        ),
        (vec!["--repeat", "2", "--batch-size", "8", "--seed", "1"], "choose another --out"),
    ] {
        let output = seeds("6", &more);
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(text(&output.stderr).contains(part), "{more:?}: {}", text(&output.stderr));
    }
}
