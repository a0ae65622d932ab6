//! `dcgan-eval metrics`: models and datasets against images and statistics, with weights drawn at random.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{TEN, bars, json, run};
use dcgan_data::{Dataset, ImageShape, OpenOptions};
use dcgan_metrics::{CLASSES, FEATURES, convolution_shapes};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A weights file: convolutions that keep the size of features.
pub(crate) fn weights(folder: &Path) -> PathBuf {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut tensors: Vec<(String, Vec<usize>, f32, f32)> = Vec::new(); // name, shape, mean, spread
    for conv in convolution_shapes() {
        let fan_in: usize = conv.weight[1..].iter().product();
        let channels = vec![conv.weight[0]];
        tensors.push((
            format!("{}.conv.weight", conv.name),
            conv.weight.to_vec(),
            0.0,
            (6.0 / fan_in as f32).sqrt(),
        ));
        for (name, mean) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            tensors.push((format!("{}.bn.{name}", conv.name), channels.clone(), mean, 0.1));
        }
    }
    tensors.push(("fc.weight".to_owned(), vec![CLASSES, FEATURES], 0.0, 0.1));
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, mean, spread) in tensors {
        let start = data.len();
        for _ in 0..shape.iter().product() {
            data.extend((mean + spread * (rng.random::<f32>() * 2.0 - 1.0)).to_le_bytes());
        }
        let line = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name, line);
    }
    let header = Value::Object(header).to_string();
    let path = folder.join("inception.safetensors");
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&path, [&length[..], header.as_bytes(), &data].concat()).unwrap();
    path
}

#[test]
fn models_and_datasets_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let weights = weights(here);
    let data = bars(here, &TEN, 3, 2);
    let data = data.to_str().unwrap();
    let options = ["--inception", weights.to_str().unwrap(), "--cache", "features"];
    let metrics = |more: &[&str]| json(here, &[&["metrics"], more, &options[..]].concat());
    fs::create_dir(here.join("features")).unwrap();
    // Images against themselves.
    let same = metrics(&[data, data]);
    assert!(same["fid"].as_f64().unwrap().abs() < 1e-6, "{same}");
    let neighbours = ["precision", "recall", "coverage"];
    assert!(neighbours.iter().all(|name| same[name].as_f64() == Some(1.0)), "{same}");
    assert_eq!((&same["generated_images"], &same["kid"]), (&30.into(), &Value::Null), "KID needs 1,000");
    // Samples of a model; more of them continue with the features that are there.
    let few = metrics(&["digits", data, "--n", "10", "--save-statistics", "real.npz"]);
    assert_eq!(
        (&few["convention"], &few["generated"]["model"]),
        (&"torch-fidelity".into(), &"digits".into())
    );
    assert!(few["fid"].as_f64().unwrap() > 0.0, "{few}");
    let files = || fs::read_dir(here.join("features")).unwrap().count();
    assert_eq!(files(), 2);
    let more = metrics(&["digits", data, "--n", "12"]);
    assert_eq!(files(), 2);
    let again = metrics(&["digits", data, "--n", "10"]);
    for key in ["fid", "inception_score", "precision", "density"] {
        assert_eq!(again[key], few[key], "{key}");
    }
    assert_ne!(more["fid"], few["fid"]);
    // Without the cache, and on one thread.
    let fresh = [
        "metrics",
        "digits",
        data,
        "--n",
        "10",
        "--threads",
        "1",
        "--cache",
        "other",
        options[0],
        options[1],
    ];
    fs::create_dir(here.join("other")).unwrap();
    assert_eq!(json(here, &fresh)["fid"], few["fid"]);
    // Statistics in place of images.
    let statistics = metrics(&["digits", "real.npz", "--n", "10"]);
    let (found, expected) = (statistics["fid"].as_f64().unwrap(), few["fid"].as_f64().unwrap());
    assert!((found - expected).abs() < 1e-9 * expected, "{found}, expected {expected}");
    assert_eq!((&statistics["precision"], &statistics["reference_images"]), (&Value::Null, &Value::Null));
    // Another way to prepare images, other numbers.
    let clean = metrics(&["digits", data, "--n", "10", "--like", "clean"]);
    assert_ne!(clean["fid"], few["fid"]);
    assert_eq!(files(), 4);
    // Another seed, other samples.
    assert_ne!(metrics(&["digits", data, "--n", "10", "--seed", "1"])["fid"], few["fid"]);
    faults(here, data, &weights);
    statistics_beside_images(here, Path::new(data), &metrics, expected);
    features_belong_to_images(here, data, &metrics);
}

/// Batches of ADM: FID is that of their statistics, which are of more images.
fn statistics_beside_images(here: &Path, data: &Path, metrics: &dyn Fn(&[&str]) -> Value, fid: f64) {
    let images = Dataset::open(data, &OpenOptions::new(RGB)).unwrap();
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(b"{'descr': '|u1', 'fortran_order': False, 'shape': (12, 28, 28, 3), }");
    npy.resize(127, b' ');
    npy.push(b'\n');
    (0..12).for_each(|index| npy.extend(images.read_stored(index).unwrap().0));
    fs::copy(here.join("real.npz"), here.join("both.npz")).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(here.join("both.npz")).unwrap();
    let mut zip = zip::ZipWriter::new_append(file).unwrap();
    zip.start_file("arr_0.npy", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&npy).unwrap();
    zip.finish().unwrap();
    let both = metrics(&["digits", "both.npz", "--n", "10"]);
    let found = both["fid"].as_f64().unwrap();
    assert!((found - fid).abs() < 1e-9 * fid, "{found}, expected {fid}");
    assert_eq!((&both["fid_reference"], &both["reference_images"]), (&"statistics".into(), &12.into()));
    assert!(both["precision"].is_f64(), "{both}");
    let images = metrics(&["digits", "both.npz", "--n", "10", "--reference-n", "12"]);
    assert_ne!(images["fid"], both["fid"]);
    assert_eq!(images["fid_reference"], "images");
}

/// Features are not taken from images of the same names and sizes, nor from the original of a cache.
fn features_belong_to_images(here: &Path, data: &str, metrics: &dyn Fn(&[&str]) -> Value) {
    fs::create_dir(here.join("images")).unwrap();
    let write = |seed: usize| {
        for image in 0..4 {
            let pixels = (0..8 * 8 * 3).map(|at| (at * (seed + image) * 7 % 251).to_le_bytes()[0]);
            let bytes: Vec<u8> = b"P6 8 8 255\n".iter().copied().chain(pixels).collect();
            fs::write(here.join(format!("images/{image}.ppm")), bytes).unwrap();
        }
    };
    write(1);
    let first = metrics(&["images", data, "--reference-n", "10"]);
    assert_eq!((&first["inception_score"], &first["generated_images"]), (&Value::Null, &4.into()));
    write(5);
    assert_ne!(
        metrics(&["images", data, "--reference-n", "10"])["fid"],
        first["fid"],
        "the images have changed"
    );
    // Of a dataset, images are drawn: the first ones may be of one class.
    for (class, brightness) in [("dark", 40), ("light", 255)] {
        fs::create_dir_all(here.join("sorted").join(class)).unwrap();
        for image in 0..5_usize {
            let pixels = (0..8 * 8 * 3).map(|at| (at * (3 + image) * 7 % brightness).to_le_bytes()[0]);
            let bytes: Vec<u8> = b"P6 8 8 255\n".iter().copied().chain(pixels).collect();
            fs::write(here.join(format!("sorted/{class}/{image}.ppm")), bytes).unwrap();
        }
    }
    let part = metrics(&["sorted/dark", "sorted", "--reference-n", "5"]);
    assert!(part["fid"].as_f64().unwrap() > 1e-3, "{part}");
    let small = OpenOptions::new(ImageShape { height: 8, width: 8, channels: 1 });
    let any = OpenOptions::new(RGB);
    for (name, options) in [("small.cache", small), ("rgb.cache", any)] {
        dcgan_data::pack(&Dataset::open(Path::new(data), &options).unwrap(), &here.join(name), |_| ())
            .unwrap();
        let packed = metrics(&[name, data, "--n", "10", "--reference-n", "10"]);
        assert!(packed["fid"].as_f64().unwrap() > 1e-3, "{name}: its images are resized: {packed}");
    }
}

/// The shape in which `dcgan-eval metrics` opens datasets.
const RGB: ImageShape = ImageShape { height: 32, width: 32, channels: 3 };

fn faults(here: &Path, data: &str, weights: &Path) {
    let weights = weights.to_str().unwrap();
    fs::write(here.join("text.txt"), "not weights").unwrap();
    fs::write(here.join("empty.npz"), "not statistics").unwrap();
    fs::create_dir(here.join("one")).unwrap();
    fs::write(here.join("one/1.ppm"), b"P6 1 1 255\nabc").unwrap();
    // Images of STL-10 have the ending of weights.
    fs::write(here.join("unlabeled_X.bin"), vec![7; 2 * 96 * 96 * 3]).unwrap();
    let mut npy =
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 8, 8, 3), }"
            .to_vec();
    npy.resize(128 + 4 * 2 * 8 * 8 * 3, b' ');
    let mut zip = zip::ZipWriter::new(fs::File::create(here.join("float.npz")).unwrap());
    zip.start_file("images.npy", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&npy).unwrap();
    zip.finish().unwrap();
    let with = ["--inception", weights];
    let rows: &[(&[&str], &[&str])] = &[
        (&["digits", data], &["--inception", "DCGAN_INCEPTION", "pytorch-fid", "nnd"]),
        (&["digits", data, "--inception", "text.txt"], &["text.txt"]),
        (&["digits", data, "--inception", "missing.pth"], &["missing.pth"]),
        (&["digits", "missing", with[0], with[1]], &["missing"]),
        (&["missing", data, with[0], with[1]], &["missing"]),
        (&["digits", "empty.npz", with[0], with[1]], &["empty.npz", "mu", "sigma"]),
        (&["digits", "float.npz"], &["float.npz", "mu", "<f4", "astype(numpy.uint8)", "--inception"]),
        (&["digits", "one", "--split", "test", with[0], with[1]], &["one has no test images of its own"]),
        (&["digits", "real.npz", "--save-statistics", "s.npz", with[0], with[1]], &["--save-statistics"]),
        (&["digits", data, "--save-statistics", "s.txt", "--n", "1"], &[".npz", "--n is 1", "--inception"]),
        (
            &["digits", "r.npz", "--save-statistics", "r.npz"],
            &["the real images and --save-statistics are the"],
        ),
        (&["digits", data, "--reference-n", "31", with[0], with[1]], &["--reference-n is 31", "30 images"]),
        (&["digits", "real.npz", "--split", "test", with[0], with[1]], &["--split"]),
        (&[data, data, "--seed", "3", with[0], with[1]], &["--seed", "is a dataset"]),
        (&["one", data, with[0], with[1]], &["one", "expected 2 or more"]),
        (&["unlabeled_X.bin", data, with[0], with[1], "--n", "3"], &["--n is 3", "2 images"]),
        (&["digits", data, "--like", "fid", with[0], with[1]], &["torch-fidelity", "clean"]),
    ];
    for (arguments, parts) in rows {
        let output = run(here, &[&["metrics"], *arguments].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{arguments:?}: {message}");
    }
}
