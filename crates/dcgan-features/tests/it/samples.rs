//! `mnist-nn` with samples of a conditional model.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::classes::images;
use crate::support::{TEN, bars, json, run};
use dcgan_data::image_file::ImageFileFormat;
use dcgan_data::image_grid::ImageGrid;
use dcgan_data::{Dataset, ImageShape, ImageWriter, OpenOptions};
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
    let output = run(here, &[&line[..], &model, &["--count", "1300"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().next().unwrap().ends_with("seconds"), "{text}");
    let row = text.lines().find(|row| row.contains("1,300")).unwrap();
    assert!(row.split(' ').next_back().unwrap().parse::<f64>().is_ok(), "{text}");
    fs::create_dir(here.join("cache")).unwrap();
    // A longer search continues from a shorter one; any number of threads.
    let cached = [&model[..], &["--cache", "cache", "--threads", "1"]].concat();
    found(&[&cached[..], &["--count", "1000"]].concat());
    let continued = found(&[&cached[..], &["--count", "1300"]].concat());
    assert_eq!(
        (&continued["error_percent"], &continued["nnd_score"]),
        (&drawn["error_percent"], &drawn["nnd_score"])
    );
    let stored = fs::read_dir(here.join("cache")).unwrap().count();
    assert_eq!(stored, 2, "a search of samples and one of real images");
    // Statistics of minibatches give other samples; the first of them do not depend on the number.
    let minibatch = |count| found(&[&model[..], &["--statistics", "minibatch", "--count", count]].concat());
    let (short, long) = (minibatch("1000"), minibatch("1300"));
    assert_ne!(long["nnd_score"], drawn["nnd_score"]);
    assert_eq!(short["nnd_score"], long["scores"][0]["mean_distance"]);
}

#[test]
fn a_part_of_images_sorted_by_class_has_all_classes() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = bars(here, &TEN, 150, 3);
    let shape = ImageShape { height: 28, width: 28, channels: 1 };
    let train = Dataset::open(&data, &OpenOptions::new(shape)).unwrap();
    let mut writer = ImageWriter::create(&here.join("sorted"), "a test").unwrap();
    let mut pixels = vec![0; shape.bytes()];
    for (i, label) in train.labels().unwrap().iter().enumerate() {
        train.read(i, &mut pixels).unwrap();
        writer
            .write(Some(&label.to_string()), &ImageFileFormat::Png.encode(&pixels, (28, 28, 1)).unwrap())
            .unwrap();
    }
    writer.finish().unwrap();
    let found = json(here, &["mnist-nn", "--data", data.to_str().unwrap(), "--samples", "sorted"]);
    let errors: Vec<&Value> = (0..2).map(|i| &found["scores"][i]["error_percent"]).collect();
    assert_eq!((&found["scores"][0]["references"], errors), (&1000.into(), vec![&0.0.into(), &0.0.into()]));
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

#[test]
fn the_shipped_model_is_not_tested_on_its_training_images() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    model_and_samples(here, 10);
    fs::create_dir(here.join("models")).unwrap();
    fs::rename(here.join("model"), here.join("models/mnist-cond")).unwrap();
    let data = bars(here, &TEN, 3, 2);
    // The embedded digits are training images of MNIST, as the model's are.
    assert_eq!(json(here, &["mnist-nn"])["train"], 8000);
    for option in [&["--count", "1000"][..], &["--seed", "1"], &["--statistics", "minibatch"]] {
        let output = run(here, &[&["mnist-nn"][..], option].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option:?}: {message}");
        assert!(message.contains("name MNIST's test images with --data"), "{option:?}: {message}");
    }
    let found = json(here, &["mnist-nn", "--data", data.to_str().unwrap(), "--count", "100"]);
    assert_eq!((&found["train"], &found["test"]), (&100.into(), &20.into()));
}

#[test]
fn real_images_of_separately_numbered_splits_are_matched_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    model_and_samples(here, 10);
    let classes: Vec<(String, u32)> = (0..8).map(|i| (i.to_string(), i)).collect();
    let mut classes: Vec<(&str, u32)> = classes.iter().map(|(name, at)| (name.as_str(), *at)).collect();
    fs::create_dir(here.join("data")).unwrap();
    for (split, each) in [("test", 2), ("train", 3)] {
        images(here, split, &classes, each);
        fs::write(here.join(format!("data/x-{split}-000000.tar")), tar_of(here, split, &classes)).unwrap();
        classes.insert(0, ("-", 8));
    }
    let found = json(here, &["mnist-nn", "--model", "model", "--data", "data", "--count", "100"]);
    assert_eq!(found["real"][0]["error_percent"], 0.0);
}

/// An archive of the images of a folder of classes.
fn tar_of(folder: &Path, name: &str, classes: &[(&str, u32)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (class, _) in classes {
        for entry in fs::read_dir(folder.join(name).join(class)).unwrap() {
            let path = entry.unwrap().path();
            let (name, bytes) = (path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap());
            let mut header = [0; 512];
            let mut put =
                |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
            put(0, &format!("{class}/{name}"));
            put(124, &format!("{:011o}", bytes.len()));
            put(148, "        "); // the checksum counts as spaces
            put(156, "0");
            put(257, "ustar\x0000");
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            tar.extend(header);
            tar.extend(&bytes);
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}
