//! Conditional networks: training on class folders, resumed; samples by class; refusals.

use crate::defaults::write_images;
use crate::support::{TINY, assert_same_run, contents, run, succeed};
use dcgan_data::ImageShape;
use image::DynamicImage;
use std::fs;
use std::path::Path;

const SHAPE: ImageShape = ImageShape { height: 8, width: 8, channels: 1 };

/// Class folders `a`, `b` and `c` with five images each, and the tiny configuration.
fn prepare(folder: &Path) {
    for class in ["a", "b", "c"] {
        write_images(&folder.join("data").join(class), 5, SHAPE);
    }
    fs::write(folder.join("tiny.toml"), TINY).unwrap();
}

/// Pixels of the cell at `row` and `column` of a grid of 8 x 8 images.
fn cell(grid: &DynamicImage, row: u32, column: u32) -> Vec<u8> {
    grid.crop_imm(2 + column * 10, 2 + row * 10, 8, 8).to_luma8().into_raw()
}

#[test]
fn a_run_takes_the_classes_of_its_dataset_and_resumes_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let train = |out: &str, steps: &str, rest: &[&str]| {
        let (data, config) = (path("data"), path("tiny.toml"));
        let options =
            ["run", "--quiet", "--config", &config, "--data", &data, "--conditional", "--batch-size", "4"];
        let length = ["--steps", steps, "--out", out, "--checkpoint-every", "3", "--sample-every", "3"];
        succeed(&[&options[..], &length, &["--learning-rate-decay", "linear"], rest].concat());
    };
    let (whole, cut) = (path("whole"), path("cut"));
    train(&whole, "9", &[]);
    // The state after a kill after the checkpoint of step 6.
    train(&cut, "9", &[]);
    fs::remove_dir_all(Path::new(&cut).join("checkpoints/00000009")).unwrap();
    fs::remove_file(Path::new(&cut).join("result.json")).unwrap();
    succeed(&["resume", &cut, "--quiet"]);
    assert_same_run(Path::new(&whole), Path::new(&cut));
    // The same command finds the run of its options.
    train(&whole, "9", &["--resume-if-exists"]);
    let plan: toml::Table = fs::read_to_string(Path::new(&whole).join("plan.toml")).unwrap().parse().unwrap();
    assert_eq!(plan["model"]["classes"].as_integer(), Some(3));
    let names: Vec<&str> =
        plan["model"]["class_names"].as_array().unwrap().iter().flat_map(|n| n.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let card = fs::read_to_string(Path::new(&whole).join("checkpoints/00000009/README.md")).unwrap();
    assert!(card.contains("3 classes (a, b, c)"), "{card}");
    // A class folder with another name would change what labels mean.
    let (bird, owl) = (folder.path().join("data/a"), folder.path().join("data/d"));
    fs::rename(&bird, &owl).unwrap();
    let output = run(&["resume", &whole, "--quiet", "--steps", "12", "--accept-data-change"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("b, c, d") && error.contains("a, b, c"), "{error}");
    fs::rename(&owl, &bird).unwrap();
    // Labels matter: the same run without them has other weights.
    let generator =
        |run: &str| fs::read(Path::new(run).join("checkpoints/00000009/generator.safetensors")).unwrap();
    let without = path("without");
    train(&without, "9", &["--no-conditional"]);
    assert_ne!(generator(&whole).len(), generator(&without).len());
    // A row for each class in the grids of the run.
    let grid = image::open(Path::new(&whole).join("samples/00000036.png")).unwrap();
    assert_eq!((grid.width(), grid.height()), (21 * 10 + 2, 3 * 10 + 2));
}

#[test]
fn samples_are_drawn_by_class() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = path("run");
    let (data, config) = (path("data"), path("tiny.toml"));
    let options =
        ["run", "--quiet", "--config", &config, "--data", &data, "--conditional", "--batch-size", "4"];
    succeed(&[&options[..], &["--steps", "3", "--out", &model]].concat());
    let draw = |rest: &[&str]| {
        let output =
            succeed(&[&["sample", "--quiet", "--json", "--model", &model, "--seed", "3"][..], rest].concat());
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let open = |name: &str| image::open(folder.path().join(name)).unwrap();
    let line = draw(&["--per-class", "4", "--out", &path("rows.png")]);
    assert_eq!(line["labels"], serde_json::json!([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]));
    assert_eq!((&line["images"], &line["class_names"]), (&12.into(), &serde_json::json!(["a", "b", "c"])));
    let line = draw(&["--n", "12", "--out", &path("turns.png")]);
    assert_eq!(line["labels"], serde_json::json!([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]));
    // Sample i has class i mod 3: in the grid of rows it is in row i mod 3.
    let (rows, turns) = (open("rows.png"), open("turns.png"));
    assert_eq!((rows.width(), rows.height()), (4 * 10 + 2, 3 * 10 + 2));
    for i in 0..12 {
        assert!(cell(&rows, i % 3, i / 3) == cell(&turns, i / 4, i % 4), "{i}");
    }
    // The same z with another class is another image; a class by name or number.
    draw(&["--n", "12", "--class", "b", "--out", &path("b.png")]);
    draw(&["--n", "12", "--class", "1", "--out", &path("1.png")]);
    let b = open("b.png");
    assert!(fs::read(path("b.png")).unwrap() == fs::read(path("1.png")).unwrap());
    assert!(cell(&b, 0, 1) == cell(&turns, 0, 1) && cell(&b, 0, 0) != cell(&turns, 0, 0));
    // Single images in a folder for each class.
    let line = draw(&["--per-class", "4", "--each", &path("each")]);
    assert_eq!(line["folders"], serde_json::json!(["a", "b", "c"]));
    let files = contents(&folder.path().join("each"));
    assert_eq!(files.len(), 12);
    for i in 0..12_u32 {
        let name = format!("{}/{i:08}.png", ["a", "b", "c"][i as usize % 3]);
        let image = image::load_from_memory(&files[&name]).unwrap().to_luma8().into_raw();
        assert!(image == cell(&rows, i % 3, i / 3), "{name}");
    }
    // ONNX files take classes or label vectors.
    for (option, input) in
        [(&[][..], "the class of each image"), (&["--label-vectors"], "the label vector of")]
    {
        let onnx = path("g.onnx");
        succeed(&[&["export", &model, "--to", "onnx", "--out", &onnx], option].concat());
        let found = String::from_utf8_lossy(&fs::read(&onnx).unwrap()).into_owned();
        for text in ["the class of each image", "the label vector of"] {
            assert_eq!(found.contains(text), text == input, "{option:?}: {text}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    write_images(&folder.path().join("plain"), 5, SHAPE);
    write_images(&folder.path().join("one"), 5, SHAPE);
    let labels: Vec<_> = (0..5).map(|i| serde_json::json!([format!("{i:03}.png"), 0])).collect();
    fs::write(path("one/dataset.json"), serde_json::json!({ "labels": labels }).to_string()).unwrap();
    let (config, data, model) = (path("tiny.toml"), path("data"), path("run"));
    let tiny = ["run", "--quiet", "--config", &config, "--batch-size", "4", "--steps", "2"];
    succeed(&[&tiny[..], &["--data", &data, "--out", &model]].concat());
    let conditional = TINY.replace("[model]", "[model]\nclasses = 3");
    fs::write(path("classes.toml"), conditional).unwrap();
    let refused = |arguments: &[&str], parts: &[&str]| {
        let output = run(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        parts
            .iter()
            .for_each(|part| assert!(message.contains(part), "{arguments:?}: no {part:?} in {message}"));
    };
    let out = path("out");
    for (data, parts) in
        [("plain", ["no class labels", "--no-conditional"]), ("one", ["1 class", "--no-conditional"])]
    {
        let data = path(data);
        refused(&[&tiny[..], &["--conditional", "--data", &data, "--out", &out]].concat(), &parts);
    }
    let classes = path("classes.toml");
    refused(&["run", "--config", &classes, "--data", &data, "--out", &out], &["conditional = true"]);
    let labeled = path("labeled");
    succeed(&[&tiny[..], &["--data", &data, "--conditional", "--out", &labeled]].concat());
    let sample = ["sample", "--model", &model, "--out", &path("x.png")];
    refused(&[&sample[..], &["--class", "a"]].concat(), &["--class", "not conditional"]);
    refused(&[&sample[..], &["--per-class", "2"]].concat(), &["--per-class", "not conditional"]);
    assert!(!folder.path().join("out").exists() && !folder.path().join("x.png").exists());
    // Other classes than those of the weights to start from: allowed, for other images, but said.
    let start = [&tiny[..], &["--data", &data, "--conditional", "--init-from", &labeled, "--out"]].concat();
    let message = |out: &str| {
        let output = run(&[&start[..], &[&path(out)]].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{message}");
        message
    };
    assert_eq!(message("same"), "");
    fs::rename(path("data/a"), path("data/d")).unwrap();
    let message = message("other");
    assert!(message.contains("classes b, c, d start from those of a, b, c"), "{message}");
}
