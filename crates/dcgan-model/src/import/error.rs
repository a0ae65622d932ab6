//! Errors of imports and exports.

use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;

use zip::result::ZipError;

use super::names::NetworkKind;
use super::numpy::ArrayError;
use super::pickle::PickleError;
use crate::weights::{MismatchList, Shape, TensorMismatch, WeightsError};

/// Why weights were not imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// An operation of the operating system failed.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Reading or writing a safetensors file failed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The content is in no supported format.
    #[error("{path}: unknown format; expected safetensors, a PyTorch file (.pth, .pt) or a joblib index (.jl) of \
        uncompressed arrays", path = .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than any file of DCGAN weights.
    #[error("{path}: expected a file of weights of at most {limit} bytes, found {found} bytes", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The largest size that is read, in bytes.
        limit: u64,
    },
    /// A pickle is damaged, or it refers to something other than tensors.
    #[error("{path}: {source}", path = .path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The cause and its position.
        source: PickleError,
    },
    /// A zip archive is damaged.
    #[error("{path}: zip member {member:?}: {source}; copy or save the file again", path = .path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// The member of the archive.
        member: String,
        /// The cause.
        source: ZipError,
    },
    /// A tensor of a PyTorch file is damaged.
    #[error("{path}: tensor {tensor:?}: {source}", path = .path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor, with the keys of the enclosing dicts.
        tensor: String,
        /// The cause.
        source: TensorError,
    },
    /// A `.npy` file is damaged or does not hold weights.
    #[error("{path}: {source}", path = .path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ArrayError,
    },
    /// An array inside a joblib index is damaged or does not hold weights.
    #[error("{path}: array {number}: {source}", path = .path.display())]
    IndexArray {
        /// The index.
        path: PathBuf,
        /// The number of the array in the index, from 1.
        number: usize,
        /// The cause.
        source: ArrayError,
    },
    /// A joblib index refers to a file outside its folder.
    #[error("{path}: expected the names of files in the same folder, found {name:?}", path = .path.display())]
    OutsideFolder {
        /// The index.
        path: PathBuf,
        /// The name that it refers to.
        name: String,
    },
    /// A joblib index does not hold a list of arrays.
    #[error("{path}: not a list of arrays; save the parameters with joblib.dump([array, ...])", path = .path.display())]
    NotArrays {
        /// The index.
        path: PathBuf,
    },
    /// A folder has no parameter files of the authors.
    #[error("{path}: no *gen_params*.jl and no *discrim_params*.jl in this folder; name one file of weights instead",
        path = .path.display())]
    NoParameterFiles {
        /// The folder.
        path: PathBuf,
    },
    /// A folder has several parameter files of one network.
    #[error("{first} and {second} hold the same network; name one of them", first = .first.display(),
        second = .second.display())]
    Ambiguous {
        /// One index.
        first: PathBuf,
        /// Another index.
        second: PathBuf,
    },
    /// The file holds no network.
    #[error("{path}: no network found ({found}); save {{\"netG\": netG.state_dict(), \"netD\": netD.state_dict()}}",
        path = .path.display())]
    NoNetwork {
        /// The file.
        path: PathBuf,
        /// What the file holds.
        found: String,
    },
    /// The tensors do not match the model.
    #[error("{path}: {location} does not match the {network} of the model:{mismatches}{hint}", path = .path.display(),
        mismatches = MismatchList(.mismatches), hint = Hint(.layers))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The location of the network in the file.
        location: String,
        /// The network of the model that it resembles more.
        network: NetworkKind,
        /// Every missing tensor, unexpected tensor and unexpected shape.
        mismatches: Vec<TensorMismatch>,
        /// Weight shapes of the linear layers in the file.
        layers: Vec<Vec<usize>>,
    },
    /// The modules of pytorch/examples have no per-activation batch norm.
    #[error("{tensor}: expected per-channel batch norm of shape (c), found per-activation batch norm of shape {shape}, \
        which BatchNorm2d does not support; use the safetensors files of the model folder instead",
        shape = Shape(.shape))]
    PerActivationNorm {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The network has no tensor of this name.
    #[error("{tensor} is not a tensor of a {network}")]
    UnknownTensor {
        /// The tensor.
        tensor: String,
        /// The network to export.
        network: NetworkKind,
    },
}

/// Why a tensor of a PyTorch file was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// Its description is damaged.
    #[error("invalid description: the file is damaged; copy or save it again")]
    Malformed,
    /// Its storage is not in the file.
    #[error("its storage {0:?} is not in the file; copy or save the file again")]
    MissingStorage(String),
    /// Its storage is cut short.
    #[error("expected a storage of {expected} bytes, found {found}: the file is cut short or damaged")]
    CutShort {
        /// Size of the storage in bytes.
        expected: usize,
        /// Bytes in the file.
        found: usize,
    },
    /// Its shape and strides reach beyond its storage.
    #[error("its offset, shape and strides reach beyond the {0} values of its storage: the file is damaged")]
    OutOfStorage(usize),
    /// The file holds more values than any DCGAN.
    #[error(
        "expected at most {0} values in all tensors up to this one, found more: not a file of DCGAN weights"
    )]
    TooLarge(usize),
}

/// The last line of a mismatch: how to find the right model.
struct Hint<'a>(&'a [Vec<usize>]);

impl Display for Hint<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> = self.0.iter().map(|shape| Shape(shape).to_string()).collect();
        let shapes = shapes.join(", ");
        write!(
            out,
            "\nthe file's linear layers are {shapes}: choose the preset or configuration with these layers"
        )
    }
}
