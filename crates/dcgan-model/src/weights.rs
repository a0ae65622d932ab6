//! The weights of a network in host memory, and their safetensors files.
//!
//! Names are fixed: `LAYER.conv.{weight,bias}`, `LAYER.label.weight` (with label maps) and
//! `LAYER.norm.{weight,bias,running_mean,running_var}`, where LAYER is `dense.N`, `project`, `blocks.N` or `head`;
//! layouts are PyTorch's. [`check`] compares a file's tensors with what a network expects, [`upgrade_names`] reads the
//! names of version 1.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use dcgan_base::Precision;
use dcgan_base::files::write_atomic;
use dcgan_ops::Role;
use safetensors::tensor::{SafeTensorError, SafeTensors, View};

pub(crate) mod element;

use element::{ByteOrder, Element};

/// A tensor in host memory: its shape and its values as row-major `f32`. It belongs to no device and no tensor library,
/// so files and networks exchange weights in this type.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Sizes of the axes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The values; their number is the product of the sizes.
    pub data: Vec<f32>,
}

/// The weights of one network: its tensors by name, with batch norm statistics if there are any. The order of the names
/// makes the bytes of a file reproducible.
pub type Weights = BTreeMap<String, HostTensor>;

/// The name and shape of a tensor that a network expects. A network lists its tensors in the order of its layers, and
/// [`check`] compares weights with the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full name, such as `blocks.0.conv.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether the tensor can be missing; batch norm statistics can, all of them together.
    pub optional: bool,
}

/// Why weights were not read or written, or do not match a network.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// An operation of the operating system failed.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is cut short, damaged, or in another format.
    #[error("{path}: not a complete safetensors file: {source}; copy or save it again", path = .path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        source: SafeTensorError,
    },
    /// A tensor is not of a floating-point type.
    #[error("{path}: tensor {tensor:?}: expected F32, F16, BF16 or F64, found {found}", path = .path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type as written in the file.
        found: String,
    },
    /// The number of values of a tensor to write does not match its shape.
    #[error("{path}: tensor {tensor:?}: expected as many values as shape {shape} has, found {values}",
        path = .path.display(), shape = Shape(.shape))]
    ValueCount {
        /// The file to write.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The number of its values.
        values: usize,
    },
    /// The configuration to write beside the tensors has no form in JSON.
    #[error("{path}: {source}", path = .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The tensors do not match the network.
    #[error("{path}: the weights do not match the network:{list}", path = .path.display(),
        list = MismatchList(.mismatches))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Every missing tensor, unexpected tensor and unexpected shape.
        mismatches: Vec<TensorMismatch>,
    },
}

/// A tensor that does not match the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorMismatch {
    /// An expected tensor is missing.
    #[error("missing {name} {}", Shape(.expected))]
    Missing {
        /// The tensor.
        name: String,
        /// The expected shape.
        expected: Vec<usize>,
    },
    /// A tensor is not expected.
    #[error("unexpected {name} {}", Shape(.found))]
    Unexpected {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor has another shape or, with the expected shape, another number of values.
    #[error("{name}: expected {}, found {}", Shape(.expected), Shape(.found))]
    Shape {
        /// The tensor.
        name: String,
        /// The expected shape.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
    },
}

/// Compares weights with the tensors that a network expects: names and shapes must be the same.
///
/// Optional tensors are present all or none: if some are, the others count as missing.
///
/// # Errors
/// [`WeightsError::Mismatch`] with every mismatch at once, in the order of `expected`, unexpected tensors last; `path`
/// is for the message.
pub fn check(path: &Path, weights: &Weights, expected: &[TensorSpec]) -> Result<(), WeightsError> {
    let mismatches = mismatches(weights, expected);
    if mismatches.is_empty() {
        Ok(())
    } else {
        Err(WeightsError::Mismatch { path: path.to_owned(), mismatches })
    }
}

/// The mismatches that [`check`] reports.
pub(crate) fn mismatches(weights: &Weights, expected: &[TensorSpec]) -> Vec<TensorMismatch> {
    let has_optional = expected.iter().any(|spec| spec.optional && weights.contains_key(&spec.name));
    let mut mismatches = Vec::new();
    for TensorSpec { name, shape, optional } in expected {
        match weights.get(name) {
            None if *optional && !has_optional => {}
            None => {
                mismatches.push(TensorMismatch::Missing { name: name.clone(), expected: shape.clone() });
            }
            Some(tensor) if tensor.shape != *shape || value_count(shape) != Some(tensor.data.len()) => {
                mismatches.push(TensorMismatch::Shape {
                    name: name.clone(),
                    expected: shape.clone(),
                    found: tensor.shape.clone(),
                });
            }
            Some(_) => {}
        }
    }
    for (name, tensor) in weights {
        if !expected.iter().any(|spec| spec.name == *name) {
            mismatches.push(TensorMismatch::Unexpected { name: name.clone(), found: tensor.shape.clone() });
        }
    }
    mismatches
}

/// The first tensor, in the order of the names, that contains NaN or infinity.
pub fn first_non_finite(weights: &Weights) -> Option<&str> {
    let (name, _) = weights.iter().find(|(_, tensor)| tensor.data.iter().any(|value| !value.is_finite()))?;
    Some(name)
}

/// The tensors that contain NaN or infinity, in the order of the names, and the number of these values in each.
pub fn non_finite(weights: &Weights) -> Vec<(&str, usize)> {
    let count = |tensor: &HostTensor| tensor.data.iter().filter(|value| !value.is_finite()).count();
    let counts = weights.iter().map(|(name, tensor)| (name.as_str(), count(tensor)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Reads every tensor of a safetensors file as `f32`, from F32, F16, BF16 or F64.
///
/// An integer tensor of one value (PyTorch's `num_batches_tracked`) is read as well. NaN and infinity are read as they
/// are; see [`first_non_finite`].
///
/// # Errors
/// [`WeightsError::Io`], [`WeightsError::NotSafetensors`] for a cut-short or damaged file, [`WeightsError::Dtype`] for
/// other types.
pub fn read_safetensors(path: &Path) -> Result<Weights, WeightsError> {
    let bytes = fs::read(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
    parse_safetensors(path, &bytes)
}

/// [`read_safetensors`] for the content of a file; `path` is for error messages.
pub(crate) fn parse_safetensors(path: &Path, bytes: &[u8]) -> Result<Weights, WeightsError> {
    let (weights, others) = parse_floats(path, bytes)?;
    match others.into_iter().next() {
        None => Ok(weights),
        Some((tensor, found)) => {
            Err(WeightsError::Dtype { path: path.to_owned(), tensor, found: found.to_string() })
        }
    }
}

/// Tensors that are not weights: their names and types.
type Others = Vec<(String, safetensors::Dtype)>;

/// The weights in the content of a file, and the tensors of other types.
pub(crate) fn parse_floats(path: &Path, bytes: &[u8]) -> Result<(Weights, Others), WeightsError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|source| WeightsError::NotSafetensors { path: path.to_owned(), source })?;
    let (mut weights, mut others) = (Weights::new(), Others::new());
    for (name, view) in file.iter() {
        let element = Element::from_safetensors(view.dtype());
        let is_scalar = value_count(view.shape()) == Some(1);
        let Some(element) = element.filter(|element| element.is_float() || is_scalar) else {
            others.push((name.to_owned(), view.dtype()));
            continue;
        };
        let data = element.decode(view.data(), ByteOrder::Little);
        weights.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), data });
    }
    Ok((weights, others))
}

/// The name in version 2 of a tensor with a name of version 1: `blocks.0.gain` becomes `blocks.0.norm.weight`. Other
/// names stay.
pub fn upgrade_name(name: &str) -> String {
    let upgraded = name.rsplit_once('.').and_then(|(layer, suffix)| {
        let is_layer = layer == "project"
            || layer == "head"
            || layer.rsplit_once('.').is_some_and(|(list, index)| {
                (list == "blocks" || list.ends_with(".blocks")) && index.bytes().all(|c| c.is_ascii_digit())
            });
        let is_layer = is_layer || layer.ends_with(".project") || layer.ends_with(".head");
        let role =
            Role::ALL.into_iter().find(|role| role.suffix_v1() == Some(suffix)).filter(|_| is_layer)?;
        Some(format!("{layer}.{}", role.suffix()))
    });
    upgraded.unwrap_or_else(|| name.to_owned())
}

/// The name in version 1 of a tensor with a name of version 2, for hashes that stay equal over versions. Names without
/// one stay.
pub fn earlier_name(name: &str) -> String {
    let split = |role: Role| Some((name.strip_suffix(role.suffix())?, role.suffix_v1()?));
    let found = Role::ALL.into_iter().find_map(split);
    found.map_or_else(|| name.to_owned(), |(layer, suffix)| format!("{layer}{suffix}"))
}

/// Weights or a checkpoint's tensors with the names of version 1, under those of version 2.
pub fn upgrade_names(weights: Weights) -> Weights {
    weights.into_iter().map(|(name, tensor)| (upgrade_name(&name), tensor)).collect()
}

/// Writes tensors as one safetensors file without metadata. The same tensors give the same bytes.
///
/// The file is written with [`write_atomic`]: `path` never holds an incomplete file.
///
/// # Errors
/// [`WeightsError::Io`]; [`WeightsError::ValueCount`] if the values of a tensor do not match its shape.
pub fn write_safetensors(path: &Path, weights: &Weights, dtype: Precision) -> Result<(), WeightsError> {
    write_raw(path, views(path, weights, dtype)?, None)
}

/// The bytes that [`write_safetensors`] writes.
///
/// # Errors
/// [`WeightsError::ValueCount`] if the values of a tensor do not match its shape.
pub fn to_safetensors(weights: &Weights, dtype: Precision) -> Result<Vec<u8>, WeightsError> {
    let path = Path::new("the tensors");
    let views = views(path, weights, dtype)?;
    safetensors::serialize(views, None)
        .map_err(|source| WeightsError::NotSafetensors { path: path.to_owned(), source })
}

/// The tensors in the bytes of `dtype`; `path` is for error messages.
fn views<'a>(
    path: &Path,
    weights: &'a Weights,
    dtype: Precision,
) -> Result<Vec<(&'a str, RawTensor)>, WeightsError> {
    let view =
        |(name, tensor): (&'a String, _)| Ok((name.as_str(), RawTensor::new(path, name, tensor, dtype)?));
    weights.iter().map(view).collect()
}

/// Writes tensors of mixed types, and metadata; see [`write_safetensors`].
pub(crate) fn write_raw(
    path: &Path,
    tensors: Vec<(&str, RawTensor)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<(), WeightsError> {
    let bytes = safetensors::serialize(tensors, metadata)
        .map_err(|source| WeightsError::NotSafetensors { path: path.to_owned(), source })?;
    write_atomic(path, &bytes).map_err(|source| WeightsError::Io { path: path.to_owned(), source })
}

/// A tensor in the bytes of its safetensors type.
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
        dtype: Precision,
    ) -> Result<Self, WeightsError> {
        let HostTensor { shape, data } = tensor;
        if value_count(shape) != Some(data.len()) {
            return Err(WeightsError::ValueCount {
                path: path.to_owned(),
                tensor: name.to_owned(),
                shape: shape.clone(),
                values: data.len(),
            });
        }
        let (dtype, bytes) = match dtype {
            Precision::F32 => {
                (safetensors::Dtype::F32, data.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Precision::Bf16 => (
                safetensors::Dtype::BF16,
                data.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
            ),
        };
        Ok(Self { dtype, shape: shape.clone(), bytes })
    }

    /// An I64 scalar, such as PyTorch's `num_batches_tracked`.
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

/// The number of values of a tensor of this shape; `None` if it overflows.
pub(crate) fn value_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
}

/// Displays a shape as `(64, 3, 4, 4)`.
pub(crate) struct Shape<'a>(pub(crate) &'a [usize]);

impl Display for Shape<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.0.iter().map(usize::to_string).collect();
        write!(out, "({})", sizes.join(", "))
    }
}

/// Displays mismatches, each on its own line.
pub(crate) struct MismatchList<'a>(pub(crate) &'a [TensorMismatch]);

impl Display for MismatchList<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mismatch| write!(out, "\n  {mismatch}"))
    }
}

#[cfg(test)]
mod tests;
