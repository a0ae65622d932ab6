//! What can go wrong with a file of another program.

use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;

use zip::result::ZipError;

use super::names::Side;
use super::numpy::ArrayFault;
use super::pickle::PickleError;
use crate::weights::{Fault, FaultList, Shape, WeightsError};

/// Why weights were not imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The operating system refused.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A safetensors file was not read or not written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// No form that is known.
    #[error(
        "{path}: neither safetensors, nor a PyTorch file (.pth, .pt), nor a joblib index (.jl) of uncompressed arrays",
        path = .path.display()
    )]
    UnknownForm {
        /// The file.
        path: PathBuf,
    },
    /// Larger than any DCGAN.
    #[error("{path}: {found} bytes, more than the {limit} of any file of weights", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// A pickle was refused or is damaged.
    #[error("{path}: {source}", path = .path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: PickleError,
    },
    /// A zip archive is damaged.
    #[error("{path}: {member} of the archive: {source}", path = .path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// The member of the archive.
        member: String,
        /// Why.
        source: ZipError,
    },
    /// A tensor of a PyTorch file is damaged.
    #[error("{path}: tensor {tensor:?}: {fault}", path = .path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor, with the keys of the dicts around it.
        tensor: String,
        /// What is wrong.
        fault: TensorFault,
    },
    /// A numpy array is damaged or holds something else.
    #[error("{path}: {fault}", path = .path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: ArrayFault,
    },
    /// An index of arrays names a file that is not beside it.
    #[error("{path}: names {name:?}; only files beside it are read", path = .path.display())]
    OutsideFolder {
        /// The index.
        path: PathBuf,
        /// What it names.
        name: String,
    },
    /// An index that does not hold a list of arrays.
    #[error("{path}: not a list of arrays", path = .path.display())]
    NotArrays {
        /// The index.
        path: PathBuf,
    },
    /// A folder without what is looked for.
    #[error(
        "{path}: no *gen_params*.jl and no *discrim_params*.jl in this folder; give one file of weights instead",
        path = .path.display()
    )]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A folder with more than one of them.
    #[error("{first} and {second} hold the same network; give one of them", first = .first.display(), second = .second.display())]
    Ambiguous {
        /// One index.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// No network in the file.
    #[error("{path}: no network found ({found}); save {{\"netG\": netG.state_dict(), \"netD\": netD.state_dict()}}",
        path = .path.display())]
    NoNetwork {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The tensors do not fit the network asked for.
    #[error("{path}: {place} does not fit the {side} asked for:{faults}{hint}", path = .path.display(),
        faults = FaultList(.faults), hint = Hint(.layers))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: String,
        /// The network that it resembles most.
        side: Side,
        /// Every missing, extra and misshapen tensor.
        faults: Vec<Fault>,
        /// Shapes of the linear layers that the file has.
        layers: Vec<Vec<usize>>,
    },
    /// A network that pytorch/examples' modules cannot express.
    #[error("{tensor} has batch-norm per unit, shape {shape}, which BatchNorm2d cannot hold: this network has no form in PyTorch's example",
        shape = Shape(.shape))]
    NotExpressible {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A network to export that is not named as ours are.
    #[error("{tensor} is not a tensor of a {side}")]
    NotOurs {
        /// The tensor.
        tensor: String,
        /// The network to export.
        side: Side,
    },
}

/// What is wrong with a tensor of a PyTorch file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorFault {
    /// Its description is not one.
    #[error("its description is damaged")]
    Malformed,
    /// Its values are not in the file.
    #[error("its storage {0:?} is not in the file")]
    NoStorage(String),
    /// Its storage is cut short.
    #[error("its storage holds {found} bytes, expected {expected}: the file is cut short or damaged")]
    CutShort {
        /// Bytes that the storage takes.
        expected: usize,
        /// Bytes in the file.
        found: usize,
    },
    /// Its shape and strides reach beyond its storage.
    #[error("its shape and strides reach beyond the {0} values of its storage")]
    OutOfStorage(usize),
    /// More values than any network has.
    #[error("with it the file has more than {0} values: not a file of weights")]
    TooLarge(usize),
}

/// How to go on after a mismatch.
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
