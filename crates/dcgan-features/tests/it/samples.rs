//! `mnist-nn` with samples of a conditional model.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{TEN, bars, json, run};
use dcgan_data::ImageWriter;
use dcgan_data::image_file::ImageFileFormat;
use dcgan_data::image_grid::ImageGrid;
use dcgan_model::weights::Precision;
use dcgan_model::{Classes, Device, Generator, Model, ModelFiles, Preset};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A folder with an untrained conditional model of digits, and its first `n` samples in a folder for each class.
fn model_and_samples(folder: &Path, n: usize) {
    let mut config = Preset::named("mnist-cond").unwrap().model;
    (config.generator.dense, config.discriminator.dense) = (vec![8], vec![8]);
    config.generator.project_channels = 4;
    config.generator.blocks[0].channels = 4;
    config.discriminator.blocks.iter_mut().for_each(|block| block.channels = 4);
    let model = Model::new(config).unwrap();
    let weights = model.initial_generator(3, 0.5, 0.02);
    let mut generator = Generator::new(&model, &weights, Device::Cpu).unwrap();
    generator.ensure_statistics().unwrap();
    let shape = model.config().image_shape().into();
    let images = generator.draw_range(7, 0..n, Classes::InTurn).unwrap();
    let mut writer = ImageWriter::create(&folder.join("samples"), "a test").unwrap();
    for (i, image) in ImageGrid::split_batch(&images, shape).unwrap().iter().enumerate() {
        let png = ImageFileFormat::Png.encode(image.pixels(), image.shape()).unwrap();
        writer.write(Some(&(i % 10).to_string()), &png).unwrap();
    }
    writer.finish().unwrap();
    let discriminator = Some(model.initial_discriminator(3, 0.1, 0.02));
    let files = ModelFiles { generator: Some(generator.weights().unwrap()), discriminator, model };
    fs::create_dir(folder.join("model")).unwrap();
    files.write(&folder.join("model"), "", Precision::F32).unwrap();
}

#[test]
fn samples_drawn_on_the_way_are_those_of_image_files() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = bars(here, &TEN, 3, 6);
    let data = data.to_str().unwrap();
    model_and_samples(here, 1300);
    let line = ["mnist-nn", "--data", data];
    let model = ["--model", "model", "--seed", "7"];
    let found = |rest: &[&str]| json(here, &[&line[..], rest].concat());
    let files = found(&["--samples", "samples"]);
    let drawn = found(&[&model[..], &["--count", "1300"]].concat());
    for key in ["error_percent", "interval95", "nnd_score", "train", "test", "per_class_accuracy"] {
        assert_eq!(drawn[key], files[key], "{key}");
    }
    let counts = |found: &Value| -> Vec<u64> {
        found["scores"]
            .as_array()
            .unwrap()
            .iter()
            .map(|score| score["references"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(counts(&drawn), [1000, 1300]);
    fs::create_dir(here.join("cache")).unwrap();
    // Half of the images are done, the rest continues; any number of threads.
    let cached = [&model[..], &["--cache", "cache", "--threads", "1"]].concat();
    found(&[&cached[..], &["--count", "1000"]].concat());
    let continued = found(&[&cached[..], &["--count", "1300"]].concat());
    assert_eq!(
        (&continued["error_percent"], &continued["nnd_score"]),
        (&drawn["error_percent"], &drawn["nnd_score"])
    );
    // Statistics of minibatches give other samples; the first of them do not depend on the number.
    let minibatch = |count| found(&[&model[..], &["--statistics", "minibatch", "--count", count]].concat());
    let (short, long) = (minibatch("1000"), minibatch("1300"));
    assert_ne!(long["nnd_score"], drawn["nnd_score"]);
    assert_eq!(short["nnd_score"], long["scores"][0]["mean_distance"]);
}

#[test]
fn models_and_data_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = bars(here, &TEN, 3, 2);
    model_and_samples(here, 10);
    let mut config = fs::read_to_string(here.join("model/config.json")).unwrap();
    config = config.replace(
        "\"classes\": 10",
        "\"classes\": 10, \"class_names\": [\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"x\"]",
    );
    fs::write(here.join("model/config.json"), config).unwrap();
    let digits = ModelFiles::embedded_digits().unwrap();
    fs::create_dir(here.join("digits")).unwrap();
    digits.write(&here.join("digits"), "", Precision::F32).unwrap();
    let data = data.to_str().unwrap();
    for (arguments, part) in [
        (&["mnist-nn", "--model", "digits", "--data", data][..], "is not conditional"),
        (&["mnist-nn", "--model", "model", "--data", data], "the model has no class 9"),
        (&["mnist-nn", "--model", "model", "--samples", "samples", "--data", data], "cannot be used with"),
        (&["digits", "--model", "model", "--data", data], "the discriminator is conditional"),
    ] {
        let output = run(here, arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
}
