//! Tensors of a network on the host, and their safetensors files.
//!
//! Names are fixed: `project.{weight,gain,shift,mean,variance}`, `blocks.N.{weight,gain,shift,mean,variance}`
//! and `head.weight`; layouts are PyTorch's. [`check`] compares a file's tensors with what a network expects.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{SafeTensorError, SafeTensors, View};

pub(crate) mod element;

use element::{ByteOrder, Element};

/// A tensor on the host: row-major `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The values, as many as the product of the sizes.
    pub data: Vec<f32>,
}

/// Tensors of one network by name.
pub type Weights = BTreeMap<String, HostTensor>;

/// One tensor that a network expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full name, `blocks.0.weight` say.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it may be missing (batch-norm statistics may, all of them together).
    pub optional: bool,
}

/// The type of values in a file that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// Four bytes, exact.
    F32,
    /// Two bytes, rounded to nearest even.
    Bf16,
}

/// What can go wrong with a file of weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system refused.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Cut short, damaged, or another format.
    #[error("{path}: not a whole safetensors file: {source}", path = .path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        source: SafeTensorError,
    },
    /// A tensor of integers or of a type that networks do not hold.
    #[error("{path}: tensor {tensor:?} is {found}; weights are F32, F16, BF16 or F64", path = .path.display())]
    UnknownDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type as the file says it.
        found: String,
    },
    /// A tensor to write has not as many values as its shape says.
    #[error("{path}: tensor {tensor:?} of shape {shape} holds {values} values", path = .path.display(), shape = Shape(.shape))]
    Inconsistent {
        /// The file to write.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many values it holds.
        values: usize,
    },
    /// The tensors do not fit the network.
    #[error("{path}: the weights do not fit the network:{list}", path = .path.display(), list = FaultList(.faults))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Every missing, extra and misshapen tensor.
        faults: Vec<Fault>,
    },
}

/// One tensor that does not fit the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Expected and not there.
    #[error("missing {name} {}", Shape(.expected))]
    Missing {
        /// The tensor.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// There and not expected.
    #[error("extra {name} {}", Shape(.found))]
    Extra {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// There with another shape (or, with equal shapes, another number of values).
    #[error("{name}: expected {}, found {}", Shape(.expected), Shape(.found))]
    Misshapen {
        /// The tensor.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
}

/// Compares weights with what a network expects: nothing missing, nothing extra, every shape right.
///
/// Optional tensors come all or none: where some are there, the others count as missing.
///
/// # Errors
/// [`WeightsError::Mismatch`] with every fault at once, in the order expected, extra ones last; `path` is named in it.
pub fn check(path: &Path, weights: &Weights, expected: &[TensorSpec]) -> Result<(), WeightsError> {
    let faults = faults(weights, expected);
    if faults.is_empty() { Ok(()) } else { Err(WeightsError::Mismatch { path: path.to_owned(), faults }) }
}

/// The faults that [`check`] reports.
pub(crate) fn faults(weights: &Weights, expected: &[TensorSpec]) -> Vec<Fault> {
    let some_optional = expected.iter().any(|spec| spec.optional && weights.contains_key(&spec.name));
    let mut faults = Vec::new();
    for TensorSpec { name, shape, optional } in expected {
        match weights.get(name) {
            None if *optional && !some_optional => {}
            None => faults.push(Fault::Missing { name: name.clone(), expected: shape.clone() }),
            Some(tensor) if tensor.shape != *shape || value_count(shape) != Some(tensor.data.len()) => faults
                .push(Fault::Misshapen {
                    name: name.clone(),
                    expected: shape.clone(),
                    found: tensor.shape.clone(),
                }),
            Some(_) => {}
        }
    }
    for (name, tensor) in weights {
        if !expected.iter().any(|spec| spec.name == *name) {
            faults.push(Fault::Extra { name: name.clone(), found: tensor.shape.clone() });
        }
    }
    faults
}

/// The first tensor, in order of names, that holds a NaN or an infinity.
pub fn first_non_finite(weights: &Weights) -> Option<&str> {
    let (name, _) = weights.iter().find(|(_, tensor)| tensor.data.iter().any(|value| !value.is_finite()))?;
    Some(name)
}

/// Reads every tensor of a safetensors file as `f32`, from F32, F16, BF16 or F64.
///
/// A single integer (PyTorch's `num_batches_tracked`) is read as a scalar. Values are not judged: see [`first_non_finite`].
///
/// # Errors
/// [`WeightsError::Io`], [`WeightsError::NotSafetensors`] for a cut-short or damaged file, [`WeightsError::UnknownDtype`].
pub fn read_safetensors(path: &Path) -> Result<Weights, WeightsError> {
    let bytes = fs::read(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
    parse_safetensors(path, &bytes)
}

/// [`read_safetensors`] of bytes already read; `path` is for the errors.
pub(crate) fn parse_safetensors(path: &Path, bytes: &[u8]) -> Result<Weights, WeightsError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|source| WeightsError::NotSafetensors { path: path.to_owned(), source })?;
    let mut weights = Weights::new();
    for (name, view) in file.iter() {
        let element = Element::from_safetensors(view.dtype());
        let is_single = value_count(view.shape()) == Some(1);
        let Some(element) = element.filter(|element| element.is_float() || is_single) else {
            return Err(WeightsError::UnknownDtype {
                path: path.to_owned(),
                tensor: name.to_owned(),
                found: view.dtype().to_string(),
            });
        };
        let data = element.decode(view.data(), ByteOrder::Little);
        weights.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), data });
    }
    Ok(weights)
}

/// Writes tensors as one safetensors file: the same tensors always give the same bytes, without metadata.
///
/// The file is written beside `path`, synced and renamed, so that `path` never holds half a file.
///
/// # Errors
/// [`WeightsError::Io`], [`WeightsError::Inconsistent`] where a shape does not match its data.
pub fn write_safetensors(path: &Path, weights: &Weights, dtype: Dtype) -> Result<(), WeightsError> {
    write_raw(path, views(path, weights, dtype)?)
}

/// The bytes that [`write_safetensors`] writes.
///
/// # Errors
/// [`WeightsError::Inconsistent`] where a shape does not match its data.
pub fn to_safetensors(weights: &Weights, dtype: Dtype) -> Result<Vec<u8>, WeightsError> {
    let path = Path::new("the tensors");
    let views = views(path, weights, dtype)?;
    safetensors::serialize(views, None)
        .map_err(|source| WeightsError::NotSafetensors { path: path.to_owned(), source })
}

/// The tensors as they stand in a file at `path`.
fn views<'a>(
    path: &Path,
    weights: &'a Weights,
    dtype: Dtype,
) -> Result<Vec<(&'a str, RawTensor)>, WeightsError> {
    let view =
        |(name, tensor): (&'a String, _)| Ok((name.as_str(), RawTensor::new(path, name, tensor, dtype)?));
    weights.iter().map(view).collect()
}

/// Writes tensors of mixed types; see [`write_safetensors`].
pub(crate) fn write_raw(path: &Path, tensors: Vec<(&str, RawTensor)>) -> Result<(), WeightsError> {
    let bytes = safetensors::serialize(tensors, None)
        .map_err(|source| WeightsError::NotSafetensors { path: path.to_owned(), source })?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let beside = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| {
        // A full disk is no fuller for what was half written.
        let _ = fs::remove_file(&beside);
        WeightsError::Io { path: path.to_owned(), source }
    })
}

/// One tensor as it stands in a file.
pub(crate) struct RawTensor {
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl RawTensor {
    /// `tensor` in the bytes of `dtype`.
    pub(crate) fn new(
        path: &Path,
        name: &str,
        tensor: &HostTensor,
        dtype: Dtype,
    ) -> Result<Self, WeightsError> {
        let HostTensor { shape, data } = tensor;
        if value_count(shape) != Some(data.len()) {
            return Err(WeightsError::Inconsistent {
                path: path.to_owned(),
                tensor: name.to_owned(),
                shape: shape.clone(),
                values: data.len(),
            });
        }
        let (dtype, bytes) = match dtype {
            Dtype::F32 => {
                (safetensors::Dtype::F32, data.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Dtype::Bf16 => (
                safetensors::Dtype::BF16,
                data.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
            ),
        };
        Ok(Self { dtype, shape: shape.clone(), bytes })
    }

    /// An I64 scalar: PyTorch's `num_batches_tracked`.
    pub(crate) fn counter(value: i64) -> Self {
        Self { dtype: safetensors::Dtype::I64, shape: Vec::new(), bytes: value.to_le_bytes().to_vec() }
    }
}

impl View for RawTensor {
    fn dtype(&self) -> safetensors::Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Product of sizes; `None` where it overflows.
pub(crate) fn value_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
}

/// A shape as `(64, 3, 4, 4)`.
pub(crate) struct Shape<'a>(pub(crate) &'a [usize]);

impl Display for Shape<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.0.iter().map(usize::to_string).collect();
        write!(out, "({})", sizes.join(", "))
    }
}

/// Faults, each on its own line.
pub(crate) struct FaultList<'a>(pub(crate) &'a [Fault]);

impl Display for FaultList<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|fault| write!(out, "\n  {fault}"))
    }
}

impl Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl std::str::FromStr for Dtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("unknown dtype {text:?}, expected f32 or bf16")),
        }
    }
}

#[cfg(test)]
mod tests;
