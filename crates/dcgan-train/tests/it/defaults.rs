//! What a run does where no option says it.

use crate::support::{TINY, command, stats, succeed};
use dcgan_data::ImageShape;
use dcgan_data::image_grid::ImageGrid;
use std::fs;
use std::path::Path;

/// `n` images of one shape in a folder; those of three channels are in color.
pub(crate) fn write_images(folder: &Path, n: usize, shape: ImageShape) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..n {
        let value = |at: usize| u8::try_from((i * 7 + at * 31) % 256).unwrap();
        let bytes: Vec<u8> = (0..shape.bytes()).map(value).collect();
        let image = ImageGrid::split_batch(&bytes, shape).unwrap().remove(0);
        image.save(&folder.join(format!("{i:03}.png"))).unwrap();
    }
}

#[test]
fn the_preset_is_chosen_by_the_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let shape = |height, width, channels| ImageShape { height, width, channels };
    // images, more options -> name, height, width and channels of the networks, parts of the log
    type Row<'a> = (ImageShape, &'a [&'a str], (&'a str, u64, u64, u64), &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (shape(28, 28, 1), &[], ("digits", 28, 28, 1), &["28x28, grey: preset digits at 28x28, grey"]),
        (shape(40, 36, 3), &[], ("pytorch32", 32, 32, 3), &["40x36, color: preset pytorch32"]),
        (shape(40, 36, 1), &[], ("pytorch32", 32, 32, 1), &["40x36, grey: preset pytorch32 at 32x32, grey"]),
        (shape(90, 80, 3), &["--size", "32"], ("pytorch32", 32, 32, 3), &["preset pytorch32"]),
        (shape(40, 36, 3), &["--preset", "digits"], ("digits", 28, 28, 1), &["WARN", "colors are discarded"]),
        (
            shape(40, 36, 3),
            &["--preset", "digits", "--channels", "3"],
            ("digits", 28, 28, 3),
            &["(28x28, color) on"],
        ),
        (shape(12, 12, 1), &["--preset", "digits"], ("digits", 28, 28, 1), &["WARN", "enlarged by 2.3"]),
        (shape(200, 200, 1), &["--preset", "digits"], ("digits", 28, 28, 1), &["WARN", "reduced by 7"]),
    ];
    for (i, (shape, options, (name, height, width, channels), parts)) in rows.iter().enumerate() {
        let (data, out) = (path(&format!("data-{i}")), path(&format!("run-{i}")));
        write_images(data.as_ref(), 4, *shape);
        let run =
            ["run", "--data", &data, "--out", &out, "--batch-size", "2", "--steps", "1", "--threads", "1"];
        succeed(&[&run[..], options].concat());
        let plan: toml::Table =
            fs::read_to_string(Path::new(&out).join("plan.toml")).unwrap().parse().unwrap();
        let model = |key: &str| plan["model"][key].as_integer().unwrap();
        assert_eq!(plan["model"]["name"].as_str(), Some(*name), "{shape}");
        let found = [model("height"), model("width"), model("channels")];
        assert_eq!(found.map(|n| u64::try_from(n).unwrap()), [*height, *width, *channels], "{shape}");
        // The log file has the lines from before the run folder existed.
        let log = fs::read_to_string(Path::new(&out).join("log.txt")).unwrap();
        for part in *parts {
            assert!(log.contains(part), "{shape}: no {part:?} in {log}");
        }
        assert_eq!(log.contains("WARN"), parts.contains(&"WARN"), "{log}");
    }
}

#[test]
fn the_first_samples_come_early_and_distances_have_a_scale() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, early, plain) = (path("tiny.toml"), path("early"), path("plain"));
    fs::write(&config, TINY).unwrap();
    let run = |out: &str, sample_every: &str| {
        let options =
            ["--steps", "80", "--checkpoint-every", "20", "--ema", "0.9", "--sample-every", sample_every];
        succeed(&[&["run", "--config", &config, "--out", out], &options[..]].concat())
    };
    let output = run(&early, "70");
    let steps = |run: &str| -> Vec<u64> {
        stats(run.as_ref(), "sample").iter().map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps(&early), [16, 64, 70, 80]);
    // They change nothing else: the checkpoints of a run without them.
    run(&plain, "10");
    assert_eq!(steps(&plain), [10, 20, 30, 40, 50, 60, 70, 80]);
    for file in ["generator.safetensors", "discriminator.safetensors", "state.safetensors", "README.md"] {
        let read = |run: &str| fs::read(Path::new(run).join("checkpoints/00000080").join(file)).unwrap();
        assert!(read(&early) == read(&plain), "{file} differs");
    }

    // Times, and paths below the run folder.
    for kind in ["step", "sample", "checkpoint"] {
        for line in stats(early.as_ref(), kind) {
            let time = line["time"].as_str().unwrap();
            assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{line}");
            if kind != "step" {
                let path = line["path"].as_str().unwrap();
                assert!(path.starts_with(&format!("{kind}s/0000")), "{line}");
                assert!(kind == "checkpoint" || Path::new(&early).join(path).exists(), "{line}");
            }
        }
    }
    // The distance between real images, everywhere that of samples is.
    let real = stats(early.as_ref(), "checkpoint")[0]["real_frechet"].as_f64().unwrap();
    let result = fs::read_to_string(Path::new(&early).join("result.json")).unwrap();
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    assert!(real > 0.0 && result["real_frechet"].as_f64() == Some(real), "{result}");
    assert!(["falling", "flat", "rising"].contains(&result["frechet_trend"].as_str().unwrap()), "{result}");
    let card = fs::read_to_string(Path::new(&early).join("best/README.md")).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    for (name, text) in [("card", &card), ("stdout", &stdout), ("stderr", &stderr)] {
        assert!(text.contains(&format!("{real:.4}")), "{name}: no {real:.4} in {text}");
    }
    // The log names files that can be opened.
    assert!(stderr.contains(&format!("{early}/samples/00000256.png")), "{stderr}");
    // Whole lines, each with its time.
    for line in stderr.lines() {
        assert!(
            line.is_char_boundary(8) && line[..8].split(':').all(|part| part.parse::<u8>().is_ok()),
            "{line}"
        );
    }
}

#[test]
fn lines_of_earlier_versions_are_read() {
    use dcgan_train::event::{Event, EventLine};
    for (line, path) in [
        (
            r#"{"event":"sample","step":3,"images":48,"path":"/runs/a/samples/00000048.png","diversity":1.0}"#,
            "/runs/a",
        ),
        (
            r#"{"event":"checkpoint","step":3,"path":"runs/a/checkpoints/00000003","frechet":null,"best":false}"#,
            "runs/a",
        ),
    ] {
        let EventLine { event, time } = serde_json::from_str(line).unwrap();
        assert_eq!((event.step(), time), (3, None));
        let (Event::Sample { path: found, .. } | Event::Checkpoint { path: found, .. }) = event else {
            panic!("{line}")
        };
        assert!(found.starts_with(path), "{found:?}");
    }
}

#[test]
fn a_run_with_relative_paths_is_resumed_from_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("tiny.toml"), TINY).unwrap();
    write_images(&here.join("images"), 32, ImageShape { height: 8, width: 8, channels: 1 });
    let start = ["run", "--config", "tiny.toml", "--data", "images", "--out", "first", "--steps", "2"];
    let start = command(&start).current_dir(here).output().unwrap();
    assert!(start.status.success(), "{}", String::from_utf8_lossy(&start.stderr));
    let first = here.join("first");
    succeed(&["resume", first.to_str().unwrap(), "--steps", "3"]);
    let plan: toml::Table = fs::read_to_string(first.join("plan.toml")).unwrap().parse().unwrap();
    assert_eq!(plan["run"]["data"].as_str(), here.join("images").to_str());
}
