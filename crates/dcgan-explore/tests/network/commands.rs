//! The commands on the embedded digits, end to end.

use crate::support::{damaged, digits, png, run, succeed};
use dcgan_explore::ablate::Filters;
use dcgan_explore::bounding_boxes::BoundingBoxes;
use dcgan_explore::latent::LatentSet;
use dcgan_model::{Classes, ModelFiles};
use std::fs;
use std::path::Path;

/// Runs a command with one thread and with all threads, which must write the same bytes to `out`; returns stdout.
fn on_any_threads(folder: &Path, args: &[&str], out: &str) -> String {
    succeed(folder, &[args, &["--threads", "1"]].concat());
    let first = fs::read(folder.join(out)).unwrap();
    let stdout = succeed(folder, args);
    assert!(
        first == fs::read(folder.join(out)).unwrap(),
        "{args:?}: the bytes depend on the number of threads"
    );
    stdout
}

#[test]
fn maxact_shows_images_and_crops() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let args = ["maxact", "--features", "2", "--top", "3", "--images", "200"];
    let stdout = on_any_threads(here, &args, "maxact.png");
    assert_eq!(stdout.lines().filter(|line| line.starts_with("feature ")).count(), 2, "{stdout}");
    let (pixels, width, height) = png(&here.join("maxact.png"));
    // A number of 17 pixels, three images of 28 with gaps, a space of 5, three crops.
    assert_eq!((width, height), (17 + 92 + 5 + 92, 64));
    let cell = |left: usize| (0..28).flat_map(|y| &pixels[(y + 2) * 206 + left..][..28]).collect::<Vec<_>>();
    assert!(cell(19).iter().any(|&&value| value > 128), "a digit");
    assert_ne!(cell(19), cell(17 + 92 + 5 + 2), "a crop is not the whole image");

    // Features of a lower block by index, and a dataset from a folder.
    digits(here, 60);
    let args =
        ["maxact", "--block", "0", "--feature", "31,4", "--top", "2", "--data", "digits", "--out", "low.png"];
    let stdout = succeed(here, &args);
    let shown: Vec<&str> = stdout.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(shown[..2], ["feature 31", "feature 4"]);
    assert!(stdout.contains("2 features of blocks.0") && stdout.contains("of 60"), "{stdout}");
}

#[test]
fn guided_compares_gradients_with_random_weights() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let args = ["guided", "--features", "2", "--top", "3", "--images", "150"];
    let stdout = on_any_threads(here, &args, "guided.png");
    let progress = run(here, &args).stderr;
    assert!(progress.matches("6/6 gradients").count() >= 2, "of both networks: {progress}");
    assert!(stdout.contains("2 features of blocks.1"), "{stdout}");
    let (pixels, width, height) = png(&here.join("guided.png"));
    assert_eq!((width, height), (2 * (17 + 92), 2 * 62));
    let cell = |top: usize, left: usize| -> Vec<u8> {
        (0..28).flat_map(|y| pixels[(top + y) * 218 + left..][..28].to_vec()).collect()
    };
    for left in [19, 109 + 19] {
        let gradient = cell(32, left);
        assert!(gradient.iter().any(|&v| v == 1 || v == 255), "the largest magnitude is black or white");
        assert!(
            gradient.iter().filter(|&&v| v == 128).count() > 28,
            "no gradient outside the receptive field"
        );
    }
    assert_ne!(cell(32, 19), cell(32, 109 + 19), "random weights have other gradients");
    succeed(here, &[&args[..], &["--crops", "--out", "crops.png"]].concat());
    let (crops, ..) = png(&here.join("crops.png"));
    assert_eq!(crops.len(), pixels.len());
    assert_ne!(crops, pixels);
    succeed(here, &[&args[..], &["--seed", "1", "--out", "other.png"]].concat());
    let (other, ..) = png(&here.join("other.png"));
    let half = |pixels: &[u8], right: usize| -> Vec<u8> {
        pixels.chunks(109).skip(right).step_by(2).flatten().copied().collect()
    };
    assert_eq!(half(&other, 0), half(&pixels, 0), "the seed affects the random weights only");
    assert_ne!(half(&other, 1), half(&pixels, 1));
}

#[test]
fn ablate_from_a_template_to_a_file_of_feature_maps() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let stdout = succeed(
        here,
        &["ablate", "--template", "boxes.json", "--grid", "grid.png", "--n", "4", "--seed", "5"],
    );
    assert!(stdout.contains("4 numbered samples of seed 5"), "{stdout}");
    // 28 pixels six times as large, a ruler, a number below, gaps.
    let (grid, width, height) = png(&here.join("grid.png"));
    assert_eq!((width, height), (2 * (168 + 13 + 2) + 2, 2 * (168 + 10 + 8 + 2) + 2));
    assert!(grid.iter().any(|&value| value > 128));

    // The template is a valid file: a box in the center of sample 0.
    let boxes = BoundingBoxes::read(&here.join("boxes.json")).unwrap();
    assert_eq!((boxes.seed, boxes.boxes.len()), (5, 1));
    let args =
        ["ablate", "--boxes", "boxes.json", "--n", "10", "--save", "maps.json", "--save-z", "z.safetensors"];
    let stdout = on_any_threads(here, &args, "ablate.png");
    let (pixels, width, height) = png(&here.join("ablate.png"));
    assert_eq!((width, height), (8 * 30 + 2, 2 * 62));
    let filters = Filters::read(&here.join("maps.json")).unwrap();
    assert_eq!(filters.block, "project");
    assert!((1..96).contains(&filters.maps.len()) && filters.maps.is_sorted(), "{:?}", filters.maps);
    assert!(stdout.contains(&format!("{} of 96 feature maps of project", filters.maps.len())), "{stdout}");
    let z = LatentSet::read(&here.join("z.safetensors")).unwrap();
    let config = ModelFiles::embedded_digits().unwrap().model.config().clone();
    assert_eq!(z, LatentSet::draw(5, 10, &config, Classes::InTurn).unwrap());

    // The saved file reproduces the image; the upper rows are the samples, the lower ones those of `sample --without`.
    succeed(here, &["ablate", "--filters", "maps.json", "--n", "10", "--seed", "5", "--out", "again.png"]);
    assert!(fs::read(here.join("again.png")).unwrap() == fs::read(here.join("ablate.png")).unwrap());
    let sample = ["sample", "--seed", "5", "--n", "8", "--grid", "1x8"];
    succeed(here, &[&sample[..], &["--out", "with.png"]].concat());
    succeed(here, &[&sample[..], &["--without", "maps.json", "--out", "without.png"]].concat());
    let row = |first: usize| &pixels[first * 242..(first + 28) * 242];
    for (name, first) in [("with.png", 2), ("without.png", 32)] {
        let (sample, ..) = png(&here.join(name));
        assert!(row(first) == &sample[2 * 242..30 * 242], "{name}");
    }
    assert_ne!(row(2), row(32), "the feature maps have an effect");

    // The K feature maps with the largest weights are among them.
    succeed(
        here,
        &["ablate", "--boxes", "boxes.json", "--top", "3", "--save", "three.json", "--out", "three.png"],
    );
    let three = Filters::read(&here.join("three.json")).unwrap();
    assert_eq!(three.maps.len(), 3);
    assert!(three.maps.iter().all(|map| filters.maps.contains(map)));
    succeed(
        here,
        &["ablate", "--boxes", "boxes.json", "--block", "0", "--save", "higher.json", "--out", "higher.png"],
    );
    assert_eq!(Filters::read(&here.join("higher.json")).unwrap().block, "blocks.0");
}

#[test]
fn unreadable_images_are_skipped_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let args = ["maxact", "--data", damaged(here), "--features", "1", "--top", "2", "--skip-bad"];
    let output = run(here, &args);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(
        output.stderr.contains("b.png") && output.stdout.contains("of 11"),
        "{}{}",
        output.stderr,
        output.stdout
    );
}

#[test]
fn a_single_image_has_no_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    let stdout = succeed(folder.path(), &["neighbours", "--among", "1", "--n", "2"]);
    let line = stdout.lines().find(|line| line.starts_with("mean of real images")).unwrap();
    assert!(line.ends_with('-') && !stdout.contains("NaN"), "{stdout}");
}

#[test]
fn concepts_of_few_z_cause_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["arithmetic", "--plus", "seed:1:0,1,2", "--plus", "seed:1:3", "--minus", "seed:1:4,5"];
    let output = run(folder.path(), &args);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(output.stderr.contains("--plus seed:1:3 has 1 z"), "{}", output.stderr);
    assert!(output.stderr.contains("--minus seed:1:4,5 has 2 z"), "{}", output.stderr);
    assert!(!output.stderr.contains("seed:1:0,1,2 has"), "{}", output.stderr);
}

#[test]
fn concept_finds_z_of_an_attribute() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    digits(here, 400);
    let args = [
        "concept",
        "--data",
        "digits",
        "--attributes",
        "attributes.txt",
        "--attribute",
        "Zero",
        "--candidates",
        "150",
        "--top",
        "4",
        "--save-z",
        "zero.safetensors",
        "--json",
    ];
    let stdout = on_any_threads(here, &args, "concept.png");
    let result: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let accuracy = result["accuracy_percent"].as_f64().unwrap();
    assert!(accuracy > result["baseline_percent"].as_f64().unwrap() && accuracy > 95.0, "{stdout}");
    let numbers: Vec<usize> =
        result["samples"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as usize).collect();
    let scores: Vec<f64> =
        result["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] > 0.0, "{scores:?}");
    let config = ModelFiles::embedded_digits().unwrap().model.config().clone();
    let z = LatentSet::read(&here.join("zero.safetensors")).unwrap();
    assert_eq!(z, LatentSet::draw_indices(0, numbers, &config, Classes::InTurn).unwrap());
    // Other commands read the file; the image of the mean is on the right.
    succeed(here, &["sample", "--z", "zero.safetensors", "--out", "zeros.png"]);
    LatentSet::new(z.mean(), z.size(), "a test").unwrap().write(&here.join("mean.safetensors")).unwrap();
    succeed(here, &["sample", "--z", "mean.safetensors", "--grid", "1x1", "--out", "mean.png"]);
    let (grid, width, height) = png(&here.join("concept.png"));
    assert_eq!((width, height), (62 + 5 + 32, 62));
    let square = |left: usize, top: usize, side: usize| -> Vec<u8> {
        (top..top + side).flat_map(|y| grid[y * 99 + left..][..side].to_vec()).collect()
    };
    assert!(square(0, 0, 62) == png(&here.join("zeros.png")).0);
    assert!(square(62 + 5, 15, 32) == png(&here.join("mean.png")).0);

    // A conjunction with a negated attribute, fewer candidates, another seed.
    let both = [
        "concept",
        "--data",
        "digits",
        "--attributes",
        "attributes.txt",
        "--attribute",
        "Even",
        "--attribute",
        "-Zero",
        "--candidates",
        "40",
        "--seed",
        "7",
        "--json",
        "--out",
        "both.png",
    ];
    let stdout = succeed(here, &[&both[..], &["--top", "3"]].concat());
    let text = fs::read_to_string(here.join("attributes.txt")).unwrap();
    let expected = text.lines().filter(|line| line.ends_with(" 1 -1 -1")).count();
    let result: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(result["positives"], expected);
    assert_eq!(result["negatives"], 400 - expected);
    let (_, width, height) = png(&here.join("both.png"));
    assert_eq!((width, height), (62 + 5 + 32, 62));
    // Not all of forty samples are even and not zero.
    let output = run(here, &[&both[..], &["--top", "40"]].concat());
    assert!(output.stderr.contains("of the 40 samples kept have scores below 0"), "{}", output.stderr);
}
