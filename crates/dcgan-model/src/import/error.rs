//! Errors of imports and exports.

use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;

use zip::result::ZipError;

use super::names::NetworkKind;
use super::numpy::ArrayError;
use super::pickle::{PickleError, hint};
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
    #[error("{path}: expected a weights file of at most {limit} bytes, found {found} bytes", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The largest size that is read, in bytes.
        limit: u64,
    },
    /// A pickle is damaged, or it refers to something other than tensors.
    #[error("{path}: {source}{hint}", path = .path.display(), hint = hint(.source))]
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
    /// A folder has no weights files.
    #[error("{path}: no weights file in this folder (.pth, .pt, .ckpt, .safetensors, or the authors' \
        *gen_params*.jl and *discrim_params*.jl); name the files instead", path = .path.display())]
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
    /// A folder has too many weights files.
    #[error("{path}: {found} weights files with different names; name those of one generator and one discriminator",
        path = .path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
        /// The number of files.
        found: usize,
    },
    /// Two files hold the same network.
    #[error("{first} and {second} both hold a {network}; name one of them, or one file of a generator and one of a \
        discriminator", first = .first.display(), second = .second.display())]
    SameNetwork {
        /// The network.
        network: NetworkKind,
        /// One file.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
    },
    /// The tensors do not decide what networks they belong to.
    #[error("{path}: the networks cannot be inferred from the tensors: {problem}", path = .path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is open, and the fix.
        problem: String,
    },
    /// The file holds arrays without names, which do not decide what networks they belong to.
    #[error("{path}: the arrays have no names; describe their networks with a preset or a configuration",
        path = .path.display())]
    NeedsModel {
        /// The file.
        path: PathBuf,
    },
    /// A weight that the file stores in another form cannot be computed.
    #[error("{path}: {tensor}: {problem}", path = .path.display())]
    Reparametrized {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// Tensors contain NaN or infinity.
    #[error("{path}: the {network} contains NaN or infinity: {list}; take an earlier checkpoint, or import it as it \
        is with --allow-non-finite", path = .path.display(), list = CountList(.tensors))]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The network.
        network: NetworkKind,
        /// Tensors, and the number of such values in each.
        tensors: Vec<(String, usize)>,
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
    #[error("{path}: {location} {problem}:{mismatches}{hint}", path = .path.display(),
        problem = if .layers.is_empty() { format!("is not a whole {network}") } else {
            format!("does not match the {network} of the model") },
        mismatches = MismatchList(.mismatches), hint = Hint(.layers, .mismatches))]
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
    /// It is of a kind that is not supported.
    #[error("its values are {0}: save net.float().state_dict() of the plain network with torch.save")]
    Kind(String),
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

/// Displays the first tensors with NaN or infinity, and the number of these values.
struct CountList<'a>(&'a [(String, usize)]);

impl Display for CountList<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().take(5).map(|(name, n)| format!("{n} in {name}")).collect();
        out.write_str(&shown.join(", "))?;
        if self.0.len() > 5 { write!(out, " and more in {} tensors", self.0.len() - 5) } else { Ok(()) }
    }
}

/// The last lines of a mismatch: how to find the right model. Empty if the model comes from the file itself.
struct Hint<'a>(&'a [Vec<usize>], &'a [TensorMismatch]);

impl Display for Hint<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_matrix = |mismatch: &TensorMismatch| match mismatch {
            TensorMismatch::Shape { expected, found, .. } => expected.len() == 4 && found.len() == 2,
            _ => false,
        };
        if self.1.iter().any(is_matrix) {
            out.write_str(
                "\na weight of two axes is a dense layer (nn.Linear), which these networks do not have",
            )?;
        }
        if self.0.is_empty() {
            return Ok(());
        }
        let shapes: Vec<String> = self.0.iter().map(|shape| Shape(shape).to_string()).collect();
        let shapes = shapes.join(", ");
        write!(
            out,
            "\nthe file's linear layers are {shapes}: choose the preset or configuration with these layers, or leave \
             both out to infer them"
        )
    }
}
