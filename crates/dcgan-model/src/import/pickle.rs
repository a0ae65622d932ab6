//! The classes in pickles of weights: PyTorch's tensors and storages, numpy's arrays and joblib's.

use dcgan_base::pickle::{self, DataExtent, KnownClass, Limits};

pub(crate) use dcgan_base::pickle::{Class, Id};
pub use dcgan_base::pickle::{PickleError, PickleErrorKind};

use super::numpy;
use crate::weights::element::Element;

/// State dicts have thousands of objects, checkpoints with lists of losses have hundreds of thousands.
const LIMITS: Limits = Limits { objects: 1 << 22, classes: 1 << 12 };

/// One value of a pickle.
pub(crate) type Node<'a> = pickle::Node<'a, Global>;

/// The content of a pickle.
pub(crate) type Pickle<'a> = pickle::Pickle<'a, Global>;

/// Reads the pickle at the start of `bytes`.
///
/// # Errors
/// A pickle that is cut short, is damaged, or has more objects than any weights file.
pub(crate) fn read(bytes: &[u8]) -> Result<Pickle<'_>, PickleError> {
    Pickle::read(bytes, LIMITS)
}

/// What a user of weights learns from an error, besides its own message.
pub(super) fn hint(error: &PickleError) -> &'static str {
    match error.kind {
        PickleErrorKind::CutShort { .. } => "",
        PickleErrorKind::Opcode(_) | PickleErrorKind::Expected(_) => {
            ": the file is damaged or holds more than tensors"
        }
        PickleErrorKind::TooManyObjects(_) | PickleErrorKind::TooManyClasses { .. } => ": not a weights file",
    }
}

/// Sizes or strides, also in a `torch.Size`.
pub(crate) fn sizes(pickle: &Pickle<'_>, id: Id) -> Option<Vec<usize>> {
    match pickle.node(id) {
        Node::Object { class: Class::Known(Global::Size), arguments, .. } => {
            pickle.sizes(*pickle.items(*arguments)?.first()?)
        }
        _ => pickle.sizes(id),
    }
}

/// The supported globals. None is called: they only give the arguments a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    RebuildTensor,
    RebuildParameter,
    /// A tensor of a subclass of `torch.Tensor`: its function, its type, and the arguments of the function.
    RebuildFromType,
    /// A tensor in a numpy array.
    RebuildFromArray,
    /// A tensor of a kind that is not supported.
    RebuildOther(&'static str),
    Storage(Element),
    Size,
    NumpyReconstruct,
    NumpyArray,
    NumpyDtype,
    /// A numpy array in a separate file, named in `filename` (joblib before 0.10).
    ArrayInFile,
    /// A numpy array whose values follow in the same file (joblib since 0.10).
    ArrayInStream,
    /// Something that is ignored: a device, a type, a scalar.
    Inert,
}

impl KnownClass for Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::RebuildParameter
            }
            ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch._utils", "_rebuild_device_tensor_from_numpy") => Self::RebuildFromArray,
            ("torch._utils", "_rebuild_qtensor") => Self::RebuildOther("quantized"),
            ("torch._utils", "_rebuild_meta_tensor_no_storage") => Self::RebuildOther("of the device meta"),
            ("torch._utils", "_rebuild_nested_tensor") => Self::RebuildOther("nested"),
            ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
                Self::RebuildOther("sparse")
            }
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildOther("of a type without PyTorch storage"),
            ("torch.storage", "_load_from_bytes") => Self::RebuildOther("pickled without torch.save"),
            ("torch", "Size") => Self::Size,
            ("torch", "device" | "float64" | "float32" | "float16" | "bfloat16" | "int64") => Self::Inert,
            ("torch" | "torch.cuda", storage) => Self::Storage(storage_element(storage)?),
            ("torch.storage", "UntypedStorage") => Self::Storage(Element::U8),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Self::NumpyReconstruct,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::Inert,
            ("numpy", "ndarray") => Self::NumpyArray,
            ("numpy", "dtype") => Self::NumpyDtype,
            ("joblib.numpy_pickle" | "sklearn.externals.joblib.numpy_pickle", "NDArrayWrapper") => {
                Self::ArrayInFile
            }
            ("joblib.numpy_pickle" | "sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper") => {
                Self::ArrayInStream
            }
            _ => return None,
        })
    }

    fn data(self, pickle: &Pickle<'_>, state: Id) -> Result<Option<DataExtent>, &'static str> {
        if self != Self::ArrayInStream {
            return Ok(None);
        }
        let extent = numpy::array_extent(pickle, state);
        extent.map(Some).ok_or("the description of an array of numbers")
    }
}

fn storage_element(name: &str) -> Option<Element> {
    Some(match name {
        "DoubleStorage" => Element::F64,
        "FloatStorage" => Element::F32,
        "HalfStorage" => Element::F16,
        "BFloat16Storage" => Element::Bf16,
        "LongStorage" => Element::I64,
        "IntStorage" => Element::I32,
        "ShortStorage" => Element::I16,
        "CharStorage" => Element::I8,
        "ByteStorage" | "BoolStorage" | "UntypedStorage" => Element::U8,
        _ => return None,
    })
}
