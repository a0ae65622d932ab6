//! Feature vectors against PyTorch: running and recalibrated statistics, maps that 4 divides and maps that it does not.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first surprise; sizes are small"
)]

use crate::support::{Within, golden_path};
use candle_core::{Device, Tensor};
use dcgan_base::Cancel;
use dcgan_data::{Dataset, ImageShape, OpenOptions};
use dcgan_features::experiment::{Subset, to_file};
use dcgan_features::extract::{self, ExtractError, Extractor};
use dcgan_features::features::Precision;
use dcgan_features::file;
use dcgan_model::{Model, ModelConfig};
use std::path::Path;

const COUNT: usize = 150;
/// Feature vectors in the golden.
const SHOWN: usize = 8;

/// The images of make.py, u8 (n, h, w, c).
fn images(side: usize, channels: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let index = |i: usize| {
        (i / (side * side * channels), i / (side * channels) % side, i / channels % side, i % channels)
    };
    (0..COUNT * side * side * channels)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (n, y, x, c) = index(i);
            let pattern = (n * 5 + y * 9 + x * 4 + c * 60) % 256;
            u8::try_from((usize::try_from(state >> 56).unwrap() + pattern) / 2).unwrap()
        })
        .collect()
}

/// The images as a file of a format that holds them: CIFAR-10's binary (planes after a label) or idx.
fn dataset(folder: &Path, side: usize, channels: usize) -> Dataset {
    let pixels = images(side, channels);
    let size = side * side * channels;
    let (name, bytes) = if channels == 3 {
        let record = |(i, image): (usize, &[u8])| {
            let planes = (0..3).flat_map(|c| image.iter().skip(c).step_by(3).copied().collect::<Vec<_>>());
            std::iter::once(u8::try_from(i % 10).unwrap()).chain(planes).collect::<Vec<_>>()
        };
        ("data_batch_1.bin", pixels.chunks(size).enumerate().flat_map(record).collect::<Vec<_>>())
    } else {
        let head = [2051_u32, COUNT as u32, side as u32, side as u32].map(u32::to_be_bytes).concat();
        ("train-images-idx3-ubyte", [head, pixels].concat())
    };
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    let shape = ImageShape { height: side, width: side, channels };
    Dataset::open(&path, &OpenOptions::new(shape)).unwrap()
}

#[test]
fn features_are_pytorchs() {
    for (case, side, channels) in [("fives", 32, 3), ("threes", 32, 3), ("digits", 28, 1)] {
        let config = std::fs::read_to_string(golden_path("features").join(format!("{case}.json"))).unwrap();
        let model = Model::new(serde_json::from_str::<ModelConfig>(&config).unwrap()).unwrap();
        let mut golden =
            crate::support::Golden::open_file(&format!("features/{case}.safetensors"), "features");
        let weights = golden.weights("d", &model.discriminator_tensors());
        let folder = tempfile::tempdir().unwrap();
        let data = dataset(folder.path(), side, channels);
        let within = Within::Relative(1e-5);
        let mut extractor = Extractor::new(&model, &weights, &Device::Cpu).unwrap();
        let first = |extractor: &mut Extractor| {
            let features = extractor.to_memory((&data, 0..SHOWN), Precision::F32, &mut |_| {}).unwrap();
            let rows = features.block(0..SHOWN, &mut Vec::new()).to_vec();
            Tensor::from_vec(rows, (SHOWN, features.width()), &Device::Cpu).unwrap()
        };
        assert_eq!(extractor.width(), extract::width(&model));
        golden.compare("stored", "stored", &first(&mut extractor), within);

        let stop = &mut |_| Err(ExtractError::Sink("stop".to_owned()));
        assert!(extractor.recalibrate((&data, 0..COUNT), stop).is_err());
        extractor.recalibrate((&data, 0..COUNT), &mut |_| Ok(())).unwrap();
        for (layer, statistics) in extractor.statistics().unwrap() {
            for (name, found) in [("running_mean", &statistics.mean), ("running_var", &statistics.var)] {
                golden.compare("statistics", &format!("statistics.{layer}.norm.{name}"), found, within);
            }
        }
        let recalibrated = first(&mut extractor);
        golden.compare("recalibrated", "recalibrated", &recalibrated, within);
        golden.finish(|_| true);

        // The file has the same values, and labels where the data has them.
        let path = folder.path().join("f.safetensors");
        let subset = Subset::whole(data);
        to_file(&mut extractor, &subset, Precision::F32, &path, "{}", &Cancel::new(), &mut |_| {}).unwrap();
        let read = file::open(&path).unwrap();
        assert_eq!(read.features.len(), COUNT);
        let expected: Vec<f32> = recalibrated.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(read.features.block(0..SHOWN, &mut Vec::new()), expected);
        let labels: Vec<u32> =
            if channels == 3 { (0..COUNT as u32).map(|i| i % 10).collect() } else { vec![] };
        assert_eq!(read.labels, labels);
    }
}
