//! What the tests against PyTorch share: a golden file, what was compared with it, and how far off that was.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops at the first surprise, and tells its errors where they are asked for"
)]

use candle_core::{DType, Device, Tensor};
use dcgan_model::weights::{HostTensor, TensorSpec, Weights};
use dcgan_ops::Maps;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Of a tensor that is not stored whole, the values 0, 11, 22, ... are.
const EVERY: usize = 11;

/// How far a tensor may be from the golden one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Within {
    /// `max|a - b| / max|b|`
    Relative(f64),
    /// `max|a - b|`
    Absolute(f64),
    /// The root of the mean of `(a - b)^2`.
    Rms(f64),
}

/// One `case.safetensors`. Differences are collected, so that a failure shows all of them at once.
#[derive(Debug)]
pub(crate) struct Golden {
    title: String,
    tensors: BTreeMap<String, Tensor>,
    met: BTreeSet<String>,
    worst: BTreeMap<&'static str, (f64, String)>,
    faults: Vec<String>,
    /// No limit is below this.
    least_limit: f64,
}

/// A file or folder under `tests/golden`.
pub(crate) fn golden_path(name: &str) -> PathBuf {
    // On a machine without this source tree, such as one with a GPU, the folder is elsewhere.
    let folder = std::env::var_os("DCGAN_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("golden"), PathBuf::from);
    folder.join(name)
}

impl Golden {
    /// The golden file of `case`, for a check of `what`.
    pub(crate) fn open(case: &str, what: &str) -> Self {
        Self::open_file(&format!("{case}/case.safetensors"), what)
    }

    /// A golden file below `tests/golden`, for a check of `what`.
    pub(crate) fn open_file(file: &str, what: &str) -> Self {
        let tensors = candle_core::safetensors::load(golden_path(file), &Device::Cpu).unwrap();
        let (met, worst, faults) = Default::default();
        let case = file.trim_end_matches("/case.safetensors");
        let (title, tensors) = (format!("{case}, {what}"), tensors.into_iter().collect());
        Self { title, tensors, met, worst, faults, least_limit: 0.0 }
    }

    /// From now on no limit is below this one.
    pub(crate) fn set_least_limit(&mut self, least_limit: f64) {
        self.least_limit = least_limit;
    }

    /// An input, as it is stored.
    pub(crate) fn input(&mut self, key: &str) -> Tensor {
        self.met.insert(key.to_owned());
        self.tensors.get(key).unwrap_or_else(|| panic!("{}: there is no {key}", self.title)).clone()
    }

    /// An input that not every row has.
    pub(crate) fn optional_input(&mut self, key: &str) -> Option<Tensor> {
        self.tensors.contains_key(key).then(|| self.input(key))
    }

    /// The tensors that `specs` name, under `prefix`.
    pub(crate) fn weights(&mut self, prefix: &str, specs: &[TensorSpec]) -> Weights {
        let mut host = |spec: &TensorSpec| {
            let tensor = self.input(&format!("{prefix}.{}", spec.name));
            (spec.name.clone(), HostTensor { shape: tensor.dims().to_vec(), data: values(&tensor) })
        };
        specs.iter().map(&mut host).collect()
    }

    /// Compares a result with the golden tensor `key`; `group` is where its error is counted.
    pub(crate) fn compare(&mut self, group: &'static str, key: &str, found: &Tensor, within: Within) {
        let sampled = format!("{key}.every{EVERY}");
        let (name, step) = if self.tensors.contains_key(key) { (key, 1) } else { (&*sampled, EVERY) };
        let expected = self.input(name);
        // numpy may store a scalar as one value in a row.
        let dims = |tensor: &Tensor| if tensor.rank() == 0 { vec![1] } else { tensor.dims().to_vec() };
        let shape_fits = match step {
            1 => dims(&expected) == dims(found),
            _ => expected.elem_count() == found.elem_count().div_ceil(step),
        };
        if !shape_fits {
            let (found, expected) = (found.dims(), expected.dims());
            return self.faults.push(format!("{name}: found shape {found:?}, expected {expected:?}"));
        }
        let found: Vec<f32> = values(found).into_iter().step_by(step).collect();
        let expected = values(&expected);
        let differences = || found.iter().zip(&expected).map(|(a, b)| f64::from(*a) - f64::from(*b));
        let (error, limit) = match within {
            Within::Relative(limit) => {
                // Where all of it is 0, so must the result be.
                let scale = largest(expected.iter().map(|b| f64::from(*b))).max(f64::from(f32::MIN_POSITIVE));
                (largest(differences()) / scale, limit)
            }
            Within::Absolute(limit) => (largest(differences()), limit),
            Within::Rms(limit) => {
                let squares: f64 = differences().map(|d| d * d).sum();
                ((squares / found.len().max(1) as f64).sqrt(), limit)
            }
        };
        if error.is_nan() || error > limit.max(self.least_limit) {
            let limit = limit.max(self.least_limit);
            self.faults.push(format!("{name}: off by {error:.1e}, expected {within:?} (limit {limit:.0e})"));
        }
        let worst = self.worst.entry(group).or_insert((0.0, String::new()));
        if error.is_nan() || error > worst.0 {
            *worst = (error, name.to_owned());
        }
    }

    /// The same for maps.
    pub(crate) fn compare_maps(&mut self, group: &'static str, key: &str, found: &Maps, within: Within) {
        self.compare(group, key, &found.to_tensor().unwrap(), within);
    }

    /// Prints the largest error of each group (seen with `--nocapture`) and fails on any fault, and on any golden
    /// tensor that `concerns` and that nothing was compared with.
    pub(crate) fn finish(mut self, concerns: impl Fn(&str) -> bool) {
        println!("{}", self.title);
        for (group, (error, key)) in &self.worst {
            println!("  {group:24} {error:.1e}  {key}");
        }
        let unmet = self.tensors.keys().filter(|key| concerns(key) && !self.met.contains(*key));
        self.faults.extend(unmet.map(|key| format!("{key} was not compared with anything")));
        assert!(self.faults.is_empty(), "{}:\n  {}", self.title, self.faults.join("\n  "));
    }
}

/// The largest magnitude; NaN where there is one.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, |most, value| if value <= most { most } else { value })
}

/// The values of a tensor of f32 in row-major order.
pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.dtype(), DType::F32);
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}
