//! The commands on z, end to end: their images, pixel by pixel, and their errors.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod conditional;
mod outputs;
mod usage;

use candle_core::{Device, Tensor};
use dcgan_data::ImageShape;
use dcgan_data::image_grid::ImageGrid;
use dcgan_explore::invert::{InversionConfig, errors, gradient, invert};
use dcgan_explore::latent::{LatentError, LatentSet};
use dcgan_model::random::{self, Purpose};
use dcgan_model::weights::Precision;
use dcgan_model::{
    Classes, Distribution, Generator, LatentConfig, Model, ModelFiles, NetworkError, Preset, pixels,
};
use dcgan_ops::BufferPool;
use image::AnimationDecoder;
use image::codecs::gif::GifDecoder;
use serde_json::Value;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the binary in `folder`, quietly.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dcgan-explore"));
    command.current_dir(folder).arg("-q").args(arguments).env_remove("RUST_LOG");
    command.output().unwrap()
}

/// Runs a command line, which must succeed; returns stdout.
fn succeed(folder: &Path, line: &str) -> String {
    let output = run(folder, &line.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Grey pixels of a PNG, with height and width.
fn grey(path: &Path) -> (Vec<u8>, usize, usize) {
    let image = image::open(path).unwrap().to_luma8();
    let (width, height) = image.dimensions();
    (image.into_raw(), height as usize, width as usize)
}

/// The 28 x 28 pixels of a cell of an image grid of digits. One image alone has no frame.
fn cell(grid: &(Vec<u8>, usize, usize), row: usize, column: usize) -> Vec<u8> {
    let gap = if (grid.1, grid.2) == (28, 28) { 0 } else { 2 };
    let (top, left) = (gap + row * 30, gap + column * 30);
    (top..top + 28).flat_map(|y| grid.0[y * grid.2 + left..][..28].to_vec()).collect()
}

fn digits() -> (Model, Generator) {
    let files = ModelFiles::embedded_digits().unwrap();
    let generator = Generator::new(&files.model, &files.generator.unwrap(), &Device::Cpu).unwrap();
    (files.model, generator)
}

/// A folder with a small untrained model of 28 x 28 grey images with normal z of size 10, with or without D.
fn small_model(folder: &Path, name: &str, discriminator: bool) -> PathBuf {
    let mut config = Preset::named("digits").unwrap().model;
    config.latent = LatentConfig { size: 10, distribution: Distribution::Normal };
    config.generator.project_channels = 8;
    config.generator.blocks[0].channels = 4;
    config.discriminator.blocks.iter_mut().for_each(|block| block.channels = 4);
    let model = Model::new(config).unwrap();
    let files = ModelFiles {
        generator: Some(model.initial_generator(3, 0.3, 0.02)),
        discriminator: discriminator.then(|| model.initial_discriminator(3, 0.1, 0.02)),
        model,
    };
    let path = folder.join(name);
    fs::create_dir(&path).unwrap();
    files.write(&path, "", Precision::F32).unwrap();
    path
}

/// A folder of PNGs: the first `n` samples of seed 5 of the embedded model.
fn sample_images(folder: &Path, n: usize) -> Vec<u8> {
    let (model, mut generator) = digits();
    let shape = model.config().image_shape().into();
    let bytes = generator.draw(5, n).unwrap();
    let path = folder.join("images");
    fs::create_dir(&path).unwrap();
    for (i, image) in ImageGrid::split_batch(&bytes, shape).unwrap().iter().enumerate() {
        image.save(&path.join(format!("{i:03}.png"))).unwrap();
    }
    bytes
}

/// The commands of the README: in the repository the default model is its faces.
#[test]
fn the_default_model_in_the_repository_is_faces64() {
    let (repository, folder) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), tempfile::tempdir().unwrap());
    let out = |name: &str| folder.path().join(name).display().to_string();
    succeed(&repository, &format!("sample --n 2 --sort-by-score --out {}", out("faces.png")));
    let faces = image::open(out("faces.png")).unwrap().to_rgb8();
    assert_eq!(faces.dimensions(), (2 * 66 + 2, 66 + 2));
    let colors: std::collections::BTreeSet<[u8; 3]> = faces.pixels().map(|pixel| pixel.0).collect();
    assert!(colors.len() > 1000, "{} colors", colors.len());
    let ablate = "ablate --boxes models/faces64/eyes.json --block blocks.0 --top 60 --n 1 --out";
    assert!(
        succeed(&repository, &format!("{ablate} {}", out("ablate.png"))).contains("60 of 256 feature maps")
    );
}

#[test]
fn samples_are_those_of_the_seed_in_any_layout() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (model, mut generator) = digits();
    let shape: ImageShape = model.config().image_shape().into();
    let bytes = generator.draw(7, 70).unwrap();
    let expected = |n: usize| {
        ImageGrid::square(&bytes[..n * 784], shape).unwrap().save(&here.join("expected.png")).unwrap();
        fs::read(here.join("expected.png")).unwrap()
    };
    // The same bytes as `dcgan-train sample`, for several batches and for less than one.
    succeed(here, "sample --n 70 --seed 7");
    assert!(fs::read(here.join("sample.png")).unwrap() == expected(70));
    succeed(here, "sample --n 5 --seed 7 --out five.png --save-z z.safetensors --threads 1");
    assert!(fs::read(here.join("five.png")).unwrap() == expected(5));
    succeed(here, "sample --z z.safetensors --out again.png");
    assert!(fs::read(here.join("again.png")).unwrap() == expected(5));
    succeed(here, "sample --grid 2x4 --seed 7 --out wide.png");
    let wide = grey(&here.join("wide.png"));
    assert_eq!((wide.1, wide.2), (2 * 30 + 2, 4 * 30 + 2));
    // By index, from a file and from the seed, in the order given; remaining cells are black.
    succeed(
        here,
        "sample --z z.safetensors:4,0 --z seed:7:6,4 --grid 2x3 --numbers --save-z p.safetensors --out picked.png",
    );
    let picked = grey(&here.join("picked.png"));
    let strip = 8; // for the indices
    assert_eq!((picked.1, picked.2), (2 * (30 + strip) + 2, 3 * 30 + 2));
    for (at, sample) in [4, 0, 6, 4].into_iter().enumerate() {
        let (top, left) = (2 + at / 3 * (30 + strip), 2 + at % 3 * 30);
        let found: Vec<u8> =
            (top..top + 28).flat_map(|y| picked.0[y * picked.2 + left..][..28].to_vec()).collect();
        assert!(found == bytes[sample * 784..][..784], "cell {at} is not sample {sample}");
        assert!(wide.0.len() > 784 && cell(&wide, sample / 4, sample % 4) == found);
        let below =
            (top + 28..top + 28 + strip).any(|y| picked.0[y * picked.2 + left..][..28].contains(&255));
        assert!(below, "cell {at} has no index");
    }
}

#[test]
fn samples_are_sorted_by_score() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    succeed(here, "sample --n 9 --seed 2 --save-z drawn.safetensors");
    let text =
        succeed(here, "sample --n 9 --seed 2 --sort-by-score --save-z sorted.safetensors --out sorted.png");
    let (drawn, sorted) = (
        LatentSet::read(&here.join("drawn.safetensors")).unwrap(),
        LatentSet::read(&here.join("sorted.safetensors")).unwrap(),
    );
    let files = ModelFiles::embedded_digits().unwrap();
    let (model, mut generator) = digits();
    let mut discriminator =
        dcgan_model::Discriminator::new(&model, &files.discriminator.unwrap(), &Device::Cpu).unwrap();
    let mut logits = |z: &LatentSet| {
        let bytes = z.images(&mut generator, &mut |_| ()).unwrap();
        let x = pixels::to_maps(&bytes, model.config(), &BufferPool::new()).unwrap();
        discriminator.score(&x).unwrap()
    };
    let (before, after) = (logits(&drawn), logits(&sorted));
    assert!(after.is_sorted_by(|a, b| a >= b) && !before.is_sorted_by(|a, b| a >= b), "{before:?} {after:?}");
    let best = drawn.rows().position(|z| Some(z) == sorted.rows().next()).unwrap();
    assert!(
        text.contains(&format!(
            "highest score: image {best} in the order of generation, logit {:.3}",
            after[0]
        )),
        "{text}"
    );
}

/// The index below an image is valid in a spec of another command.
#[test]
fn printed_indices_are_those_of_specs() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let line = "sample --n 6 --grid 1x6 --seed 2 --sort-by-score --numbers";
    let by_seed = succeed(here, &format!("{line} --out seed.png"));
    let by_row = succeed(here, &format!("{line} --save-z z.safetensors --out row.png"));
    assert!(by_seed.contains("numbered as samples of seed 2"), "{by_seed}");
    assert!(by_row.contains("numbered as rows of z.safetensors"), "{by_row}");
    for (grid, spec) in [("seed.png", "seed:2"), ("row.png", "z.safetensors")] {
        let (grid, mut seen) = (grey(&here.join(grid)), Vec::new());
        for number in 0..6 {
            succeed(here, &format!("sample --z {spec}:{number} --out one.png"));
            let image = cell(&grey(&here.join("one.png")), 0, 0);
            let column = (0..6).find(|&column| cell(&grid, 0, column) == image).unwrap();
            let strip = |grid: &(Vec<u8>, usize, usize), left: usize| -> Vec<u8> {
                (30..38).flat_map(|y| grid.0[y * grid.2 + left..][..28].to_vec()).collect()
            };
            let caption = ImageGrid::black(28, 28, 1).captioned(&number.to_string());
            assert!(strip(&grid, 2 + column * 30) == caption.pixels()[28 * 28..], "{spec}:{number}");
            seen.push(column);
        }
        assert_eq!(seen.is_sorted(), spec == "z.safetensors", "{seen:?}");
    }
}

/// The recalibrated statistics of D do not depend on the samples to score.
#[test]
fn a_score_does_not_depend_on_other_samples() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    small_model(here, "small", true);
    let many = succeed(here, "sample --model small --n 70 --sort-by-score");
    let line = many.lines().find(|line| line.starts_with("highest score")).unwrap();
    let (_, rest) = line.split_once("image ").unwrap();
    let (number, logit) = (rest.split(' ').next().unwrap(), rest.rsplit(' ').next().unwrap());
    for z in [format!("seed:0:{number}"), format!("seed:0:{number},{number},1")] {
        let few = succeed(here, &format!("sample --model small --z {z} --sort-by-score"));
        let highest = few.lines().find(|line| line.starts_with("highest score")).unwrap();
        assert!(highest.ends_with(&format!("logit {logit}")), "{z}: {highest}, among many {line}");
    }
}

#[test]
fn an_image_does_not_depend_on_others_of_the_batch() {
    // Sizes at which matrix products of one row and of many rows are summed in different orders.
    let model = Preset::named("pytorch32").unwrap().model().unwrap();
    let mut generator =
        Generator::new(&model, &model.initial_generator(1, 0.02, 0.02), &Device::Cpu).unwrap();
    generator.ensure_statistics().unwrap();
    let all = generator.draw(3, 70).unwrap();
    let z = LatentSet::draw(3, 70, model.config(), Classes::InTurn).unwrap();
    // A changed last bit changes few bytes: compare many images.
    for rows in (0..70).step_by(2).map(|row| vec![row, row + 1]) {
        let some = z.select(&rows, "a test").unwrap().images(&mut generator, &mut |_| ()).unwrap();
        for (image, row) in some.chunks(3072).zip(rows) {
            assert!(image == &all[row * 3072..][..3072], "sample {row}");
        }
    }
}

#[test]
fn z_of_another_length_are_refused() {
    let (_, mut generator) = digits();
    let short = LatentSet::new(vec![0.5; 640], 10, "a test").unwrap();
    let found = short.images(&mut generator, &mut |_| ());
    assert!(matches!(found, Err(LatentError::Size { expected: 64, found: 10, .. })), "{found:?}");
    let found = dcgan_model::Latents::new(vec![0.5; 65], 64);
    assert!(matches!(found, Err(NetworkError::Latents { len: 65, size: 64 })), "{found:?}");
}

#[test]
fn truncated_z_are_within_the_bound_and_others_unchanged() {
    let mut config = Preset::named("digits").unwrap().model;
    config.latent = LatentConfig { size: 50, distribution: Distribution::Normal };
    let free = LatentSet::draw(4, 20, &config, Classes::InTurn).unwrap();
    let bound = LatentSet::draw_truncated(4, 20, 0.8, &config, Classes::InTurn).unwrap();
    let mut redrawn = 0;
    for (free, bound) in free.values().iter().zip(bound.values()) {
        assert!(bound.abs() <= 0.8 && (free.abs() > 0.8 || free == bound), "{free} {bound}");
        redrawn += usize::from(free != bound);
    }
    // 42 % of a normal distribution are beyond 0.8.
    assert!((350..500).contains(&redrawn), "{redrawn} of 1000");
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), "small", false);
    let line = format!("sample --model {} --n 3 --truncate 0.5 --save-z z.safetensors", model.display());
    succeed(folder.path(), &line);
    let z = LatentSet::read(&folder.path().join("z.safetensors")).unwrap();
    assert_eq!((z.len(), z.size()), (3, 10));
    assert!(
        z.values().iter().all(|value| value.abs() <= 0.5) && z.values().iter().any(|value| value.abs() > 0.3)
    );
}

#[test]
fn walks_start_and_end_at_the_samples() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    succeed(here, "sample --grid 1x4 --seed 3");
    let samples = grey(&here.join("sample.png"));
    for way in ["", " --linear", " --spherical"] {
        succeed(
            here,
            &format!("interpolate --rows 3 --steps 5 --seed 3{way} --gif walk.gif --save-z walk.safetensors"),
        );
        let walk = grey(&here.join("interpolate.png"));
        assert_eq!((walk.1, walk.2), (3 * 30 + 2, 5 * 30 + 2));
        for row in 0..3 {
            assert!(cell(&walk, row, 0) == cell(&samples, 0, row), "start of row {row}{way}");
            assert!(cell(&walk, row, 4) == cell(&samples, 0, row + 1), "end of row {row}{way}");
            assert!(cell(&walk, row, 2) != cell(&walk, row, 0) && cell(&walk, row, 2) != cell(&walk, row, 4));
        }
        let z = LatentSet::read(&here.join("walk.safetensors")).unwrap();
        assert_eq!(z.len(), 15);
        // A closed walk through four z, 5 steps each, whose last is the first of the next; enlarged 5 times.
        let gif = fs::read(here.join("walk.gif")).unwrap();
        let frames =
            GifDecoder::new(Cursor::new(gif.as_slice())).unwrap().into_frames().collect_frames().unwrap();
        assert_eq!(frames.len(), 16);
        for (frame, sample) in [(0, 0), (4, 1), (8, 2), (12, 3)] {
            let expected = cell(&samples, 0, sample);
            let frame = frames[frame].buffer();
            assert_eq!(frame.dimensions(), (140, 140));
            let found: Vec<u8> =
                (0..784).map(|i| frame.get_pixel(i % 28 * 5 + 2, i / 28 * 5 + 2).0[0]).collect();
            assert!(found == expected, "frame of sample {sample}{way}");
        }
    }
    // Given z, including rows of the walk.
    succeed(here, "interpolate --z walk.safetensors:0,4 --z seed:3:2 --steps 2 --out given.png");
    let given = grey(&here.join("given.png"));
    assert_eq!((given.1, given.2), (2 * 30 + 2, 2 * 30 + 2));
    assert!(cell(&given, 0, 0) == cell(&samples, 0, 0) && cell(&given, 1, 1) == cell(&samples, 0, 2));
}

#[test]
fn arithmetic_and_turns_are_sums_of_means() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    succeed(
        here,
        "arithmetic --plus seed:1:0,1,2 --minus seed:1:3,4,5 --plus seed:1:6,7,8 --save-z sum.safetensors",
    );
    let (z, sum) = (
        LatentSet::draw(1, 9, digits().0.config(), Classes::InTurn).unwrap(),
        LatentSet::read(&here.join("sum.safetensors")).unwrap(),
    );
    assert_eq!(sum.len(), 9);
    let sign = |i: usize| if (3..6).contains(&i) { -1.0 } else { 1.0 };
    for (column, found) in sum.rows().next().unwrap().iter().enumerate() {
        let expected: f32 = z.rows().enumerate().map(|(i, z)| sign(i) * z[column] / 3.0).sum();
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        assert!(sum.rows().all(|z| (z[column] - found).abs() <= 0.25001));
    }
    // Three concepts of three z: the block of nine is on the right, the result in its center.
    let figure = grey(&here.join("arithmetic.png"));
    succeed(here, "sample --z sum.safetensors:0 --out result.png");
    let result = cell(&grey(&here.join("result.png")), 0, 0);
    // On its left the concepts, each three images above that of the mean: 92 and 32 pixels.
    let (top, left) = ((92 + 32 - 92) / 2 + 2 + 30, figure.2 - 92 + 2 + 30);
    let middle = (top..top + 28).flat_map(|y| figure.0[y * figure.2 + left..][..28].to_vec());
    assert!(middle.eq(result), "the center is not the result");

    succeed(
        here,
        "turn --left seed:1:0,1 --right seed:1:2,3 --apply seed:1:5,6 --steps 3 --strength 0.5 --save-z \
         turn.safetensors",
    );
    succeed(here, "sample --z seed:1:5,6 --grid 1x2 --out turned.png");
    let (turn, samples) = (grey(&here.join("turn.png")), grey(&here.join("turned.png")));
    let turned = LatentSet::read(&here.join("turn.safetensors")).unwrap();
    for row in 0..2 {
        assert!(cell(&turn, row, 1) == cell(&samples, 0, row), "the middle of row {row}");
        assert!(cell(&turn, row, 0) != cell(&turn, row, 2));
    }
    let row = |i: usize| z.rows().nth(i).unwrap();
    for (column, found) in turned.rows().next().unwrap().iter().enumerate() {
        let axis = (row(0)[column] + row(1)[column] - row(2)[column] - row(3)[column]) / 2.0;
        assert!((found - row(5)[column] - 0.5 * axis).abs() < 1e-6);
    }
}

fn json(folder: &Path, line: &str) -> Value {
    serde_json::from_str(&succeed(folder, &format!("{line} --json"))).unwrap()
}

#[test]
fn a_sample_in_the_dataset_is_its_own_nearest_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let bytes = sample_images(here, 150);
    let line = "neighbours --data images --z seed:5:140,3 --nearest 2";
    let found = json(here, line);
    for what in ["pixels_rms_levels", "features_distance"] {
        for (query, expected) in [140, 3].into_iter().enumerate() {
            let near = &found[what][query];
            assert_eq!(
                (&near[0][0], near[0][1].as_f64().unwrap() < 0.5),
                (&Value::from(expected), true),
                "{near}"
            );
            assert!(near[1][1].as_f64().unwrap() > 1.0 && near[1][0] != near[0][0], "{near}");
        }
    }
    // Real images are not their own neighbours.
    assert!(
        found["real_pixels_rms_levels"]
            .as_array()
            .unwrap()
            .iter()
            .all(|near| near[0][1].as_f64().unwrap() > 1.0)
    );
    // The distance is computed from bytes.
    let other = usize::try_from(found["pixels_rms_levels"][1][1][0].as_u64().unwrap()).unwrap();
    let squares = bytes[3 * 784..][..784].iter().zip(&bytes[other * 784..][..784]);
    let rms = (squares.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>() / 784.0).sqrt();
    assert!((found["pixels_rms_levels"][1][1][1].as_f64().unwrap() - rms).abs() < 0.01);
    // A sample, two neighbours in pixels, two in features; a strip for indices.
    let grid = image::image_dimensions(here.join("neighbours.png")).unwrap();
    assert_eq!(grid, (32 + 8 + 62 + 8 + 62, 2 * 38 + 2));
    let few = json(here, &format!("{line} --among 100"));
    assert!(
        few["pixels_rms_levels"][0][0][1].as_f64().unwrap() > 1.0 && few["pixels_rms_levels"][1][0][0] == 3
    );
}

#[test]
fn inversion_finds_the_z_of_samples() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    sample_images(here, 20);
    let line = "invert --data images --images 2,7,11 --restarts 3 --steps 120 --save-z z.safetensors";
    let found = json(here, line);
    let errors: Vec<f64> =
        found["mean_squared_error"].as_array().unwrap().iter().map(|e| e.as_f64().unwrap()).collect();
    let before = json(here, "invert --data images --images 2,7,11 --restarts 3 --steps 1 --out one.png");
    for (i, error) in errors.iter().enumerate() {
        let start = before["mean_squared_error"][i].as_f64().unwrap();
        assert!(*error < 0.03 && *error < start / 5.0, "image {i}: {error} after 120 steps, {start} after 1");
        let ends = found["ends"][i].as_array().unwrap();
        assert!(ends.len() == 3 && ends.iter().all(|end| end.as_f64().unwrap() >= *error));
    }
    // Uniform z stay in [-1, 1]; the result does not depend on the number of threads.
    let z = LatentSet::read(&here.join("z.safetensors")).unwrap();
    assert!(z.values().iter().all(|value| value.abs() <= 1.0));
    succeed(here, &line.replace("z.saf", "again.saf").replace("invert", "invert --threads 1"));
    assert_eq!(LatentSet::read(&here.join("again.safetensors")).unwrap(), z);
}

#[test]
fn inversion_does_not_depend_on_other_images() {
    // Sizes at which matrix products of one row and of many rows are summed in different orders.
    let model = Preset::named("pytorch32").unwrap().model().unwrap();
    let mut generator =
        Generator::new(&model, &model.initial_generator(1, 0.02, 0.02), &Device::Cpu).unwrap();
    generator.ensure_statistics().unwrap();
    let images = generator.draw(3, 16).unwrap();
    let config = InversionConfig { restarts: 2, steps: 1, learning_rate: 0.2, seed: 0 };
    let all = invert(&mut generator, &model, &images, &config, &mut |_| ()).unwrap();
    let last = invert(&mut generator, &model, &images[15 * 3072..], &config, &mut |_| ()).unwrap();
    assert_eq!(last.z.rows().next(), all.z.rows().nth(15));
    assert_eq!(last.restart_errors, all.restart_errors[30..]);
}

#[test]
fn the_gradient_matches_finite_differences() {
    let (model, mut generator) = digits();
    let latent = &model.config().latent;
    let targets = Tensor::from_vec(vec![0.3_f32; 2 * 784], (2, 1, 28, 28), &Device::Cpu).unwrap();
    let z = random::latent_each(9, Purpose::SampleLatent, 2, latent);
    let gradients = gradient(&mut generator, latent.size, &z, &targets).unwrap();
    let mut error =
        |z: &[f32], row: usize| f64::from(errors(&mut generator, latent.size, z, &targets).unwrap()[row]);
    for at in [0, 5, 40, 64, 100, 127] {
        let perturbed = |by: f32| {
            let mut z = z.clone();
            z[at] += by;
            z
        };
        let step = 2e-3;
        let expected =
            (error(&perturbed(step), at / 64) - error(&perturbed(-step), at / 64)) / f64::from(2.0 * step);
        let scale = gradients.iter().map(|s| f64::from(s.abs())).fold(0.0, f64::max);
        assert!(
            (f64::from(gradients[at]) - expected).abs() < 0.03 * scale,
            "value {at}: {} {expected}",
            gradients[at]
        );
        // A z has no effect on the error of the other row.
        assert!((error(&perturbed(0.5), 1 - at / 64) - error(&z, 1 - at / 64)).abs() < 1e-6);
    }
}
