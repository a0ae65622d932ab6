//! Features and metrics against torch-fidelity, pytorch-fid, clean-fid and prdc (make.py).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the numbers of make.py are small"
)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use dcgan_metrics::{
    CLASSES, Convention, FEATURES, INPUT_LEN, Inception, InceptionWeights, RandomState, Reference, SPLITS,
    Statistics, inception_score, kernel_distance, neighbours,
};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

const IMAGES: [(usize, usize); 3] = [(32, 32), (64, 48), (512, 400)];

/// A value of an input in so many is stored.
const EVERY: usize = 997;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)).unwrap()
}

/// The numbers of make.py: f32 in [-1/2, 1/2).
fn uniform(name: &str, count: usize) -> Vec<f32> {
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |value, byte| {
        (value ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let number = |i: u64| {
        let mut z = start.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (1..=count as u64).map(number).collect()
}

fn image(height: usize, width: usize) -> Vec<u8> {
    let noise = uniform(&format!("image {height}x{width}"), height * width * 3);
    let pixel = |i: usize| {
        let (y, x) = ((i / 3 / width) as f64, (i / 3 % width) as f64);
        let wave = (x / 7.0).sin() * (y / 5.0).cos();
        let sign = if wave == 0.0 { 0.0 } else { wave.signum() };
        (128.0 + 80.0 * sign + 60.0 * f64::from(noise[i])).floor().clamp(0.0, 255.0) as u8
    };
    (0..height * width * 3).map(pixel).collect()
}

/// The names and shapes of torch-fidelity's state dict.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut found: Vec<(String, Vec<usize>)> = dcgan_metrics::convolution_shapes()
        .into_iter()
        .flat_map(|conv| {
            let channels = vec![conv.weight[0]];
            let norm = ["weight", "bias", "running_mean", "running_var"];
            let norm = norm.map(|name| (format!("{}.bn.{name}", conv.name), channels.clone()));
            [(format!("{}.conv.weight", conv.name), conv.weight.to_vec())].into_iter().chain(norm)
        })
        .collect();
    found.push(("fc.weight".to_owned(), vec![CLASSES, FEATURES]));
    found.push(("fc.bias".to_owned(), vec![CLASSES]));
    found
}

/// The weights of make.py.
fn weights() -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let mut values = uniform(&name, shape.iter().product());
        let change: Box<dyn Fn(f32) -> f32> = if name.ends_with("conv.weight") {
            let scale = (24.0 / shape[1..].iter().product::<usize>() as f64).sqrt() as f32;
            Box::new(move |u| u * scale)
        } else if name.ends_with("running_var") {
            Box::new(|u| u + 1.0)
        } else if name.ends_with("bn.weight") {
            Box::new(|u| u / 2.0 + 1.0)
        } else if name.ends_with("fc.weight") {
            Box::new(|u| u / 4.0)
        } else {
            Box::new(|u| u / 2.0)
        };
        values.iter_mut().for_each(|u| *u = change(*u));
        (name, (shape, values))
    };
    shapes().into_iter().map(tensor).collect()
}

fn save(path: &Path, tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views: HashMap<String, TensorView<'_>> = tensors
        .iter()
        .map(|(name, (shape, _))| {
            (name.clone(), TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap())
        })
        .collect();
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The weights under the names of TensorFlow's graph, without batch norm weights, which become 1.
fn graph_weights(
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let names = [
        ("conv.weight", "weight"),
        ("bn.bias", "beta"),
        ("bn.running_mean", "mean"),
        ("bn.running_var", "var"),
    ];
    let mut renamed = BTreeMap::new();
    for conv in dcgan_metrics::convolution_shapes() {
        for (name, graph_name) in names {
            let tensor = tensors[&format!("{}.{name}", conv.name)].clone();
            renamed.insert(format!("layers.{}.{graph_name}", conv.graph_name), tensor);
        }
    }
    renamed.insert("output.weight".to_owned(), tensors["fc.weight"].clone());
    renamed
}

fn values(file: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok()?;
    Some(tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Fails unless all values differ by at most `bound` of the largest.
fn assert_close(what: &str, found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let difference = found.iter().zip(expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(difference <= bound * largest, "{what}: off by {difference}, the largest is {largest}");
}

#[test]
fn features_are_those_of_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let tensors = weights();
    save(&path, &tensors);
    let read = InceptionWeights::read(&path).unwrap();
    assert_eq!(read.sha256().len(), 64);
    let mut inception = Inception::new(&read, dcgan_ops::Device::Cpu).unwrap();
    let bytes = golden("expected.safetensors");
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    for convention in Convention::ALL {
        let of_features = convention.of_features();
        let mut inputs = Vec::new();
        for (height, width) in IMAGES {
            let mut input = vec![0.0; INPUT_LEN];
            convention.prepare(&image(height, width), height, width, 3, &mut input);
            let name = format!("{of_features}/{height}x{width}/input");
            let found: Vec<f32> = input.iter().step_by(EVERY).copied().collect();
            // TensorFlow's resize is exact; the others differ in the order of their sums.
            let bound = if of_features == Convention::TorchFidelity { 0.0 } else { 2e-6 };
            assert_close(&name, &found, &values(&expected, &name).unwrap(), bound);
            inputs.extend(input);
        }
        if convention != of_features {
            continue;
        }
        let found = inception.features(inputs, IMAGES.len()).unwrap();
        for (index, (height, width)) in IMAGES.iter().enumerate() {
            let name = format!("{convention}/{height}x{width}");
            let features = &found.features[index * FEATURES..][..FEATURES];
            assert_close(&name, features, &values(&expected, &format!("{name}/features")).unwrap(), 1e-5);
            if let Some(logits) = values(&expected, &format!("{name}/logits")) {
                assert_close(&name, &found.logits[index * CLASSES..][..CLASSES], &logits, 1e-5);
            }
        }
    }
    // The names of TensorFlow's graph, as in NVIDIA's file.
    let plain = graph_weights(&tensors);
    let path = folder.path().join("graph.safetensors");
    save(&path, &plain);
    let mut of_graph =
        Inception::new(&InceptionWeights::read(&path).unwrap(), dcgan_ops::Device::Cpu).unwrap();
    let mut ones = tensors;
    for (name, (_, values)) in &mut ones {
        if name.ends_with("bn.weight") {
            values.fill(1.0);
        }
    }
    let path = folder.path().join("ones.safetensors");
    save(&path, &ones);
    let mut of_ones =
        Inception::new(&InceptionWeights::read(&path).unwrap(), dcgan_ops::Device::Cpu).unwrap();
    let input = vec![0.25; INPUT_LEN];
    assert_eq!(of_graph.features(input.clone(), 1).unwrap(), of_ones.features(input, 1).unwrap());
    faults(&folder.path().join("faults.safetensors"), ones);
}

/// Files that are not these weights.
fn faults(path: &Path, mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>) {
    tensors.remove("fc.weight");
    tensors.insert("Mixed_5b.branch1x1.bn.bias".to_owned(), (vec![1], vec![0.0]));
    save(path, &tensors);
    let message = InceptionWeights::read(path).unwrap_err().to_string();
    for part in [
        "faults.safetensors",
        "Mixed_5b_branch1x1_bn_bias has the shape [1], expected [64]",
        "fc_weight is missing",
    ] {
        assert!(message.contains(part), "{message}");
    }
    std::fs::write(path, b"not weights").unwrap();
    assert!(InceptionWeights::read(path).unwrap_err().to_string().contains("faults.safetensors"));
}

#[test]
fn metrics_are_those_of_other_programs() {
    const D: usize = 48;
    const N: usize = 700;
    let expected: Value = serde_json::from_slice(&golden("expected.json")).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let a: Vec<f32> = uniform("features a", N * D).iter().map(|u| u * 2.0).collect();
    let b: Vec<f32> = uniform("features b", N * D)
        .iter()
        .enumerate()
        // numpy.linspace(0.5, 1.2, D) in f32.
        .map(|(i, u)| u * 2.0 * ((0.7 / (D - 1) as f64) * (i % D) as f64 + 0.5) as f32 + 0.1)
        .collect();
    let sum: f64 = a.iter().map(|value| f64::from(*value)).sum();
    assert!((sum - number(&expected["sum_of_a"])).abs() < 1e-9, "other features");
    let close = |what: &str, found: f64, expected: &Value, bound: f64| {
        let expected = number(expected);
        assert!((found - expected).abs() <= bound * expected.abs(), "{what}: {found}, expected {expected}");
    };
    let (of_a, of_b) = (Statistics::of(&a, D, 1), Statistics::of(&b, D, 1));
    let reference = Reference::new(&of_b).unwrap();
    close("FID", reference.distance(&of_a).unwrap(), &expected["fid"], 1e-8);
    close(
        "FID, sides swapped",
        Reference::new(&of_a).unwrap().distance(&of_b).unwrap(),
        &expected["fid"],
        1e-8,
    );
    assert!(reference.distance(&of_b).unwrap().abs() < 1e-9, "the distance to itself");
    let found = kernel_distance(&a, &b, D, 20, 100, &mut RandomState::new(2020)).unwrap();
    close("KID", found.mean, &expected["kid"][0], 1e-8);
    close("KID, deviation", found.std, &expected["kid"][1], 1e-8);
    let logits: Vec<f32> = uniform("logits", 500 * 20).iter().map(|u| u * 8.0).collect();
    let found = inception_score(&logits, 20, SPLITS, &mut RandomState::new(2020)).unwrap();
    close("Inception score", found.mean, &expected["inception_score"][0], 1e-9);
    close("Inception score, deviation", found.std, &expected["inception_score"][1], 1e-9);
    let found = neighbours(&a, &b, D).unwrap();
    close("precision", found.precision, &expected["precision"], 1e-6);
    close("recall", found.recall, &expected["recall"], 1e-6);
    close("density", found.density, &expected["density"], 1e-12);
    close("coverage", found.coverage, &expected["coverage"], 1e-12);
    // The limit is below the distance to finitely many, and the same every time.
    let limit = || reference.distance_at_infinity(&a, 1, &mut RandomState::new(2020)).unwrap();
    assert!(limit() == limit() && limit() < number(&expected["fid"]));
    // Too few images.
    let message = kernel_distance(&a, &b, D, 1, N + 1, &mut RandomState::new(0)).unwrap_err().to_string();
    assert_eq!(message, "KID needs at least 701 images, found 700");
    assert!(neighbours(&a[..5 * D], &b, D).is_err());
    // A feature that is not finite.
    let broken = Statistics::of(&[f32::NAN; 3 * D], D, 1);
    assert!(reference.distance(&broken).is_err());
}
