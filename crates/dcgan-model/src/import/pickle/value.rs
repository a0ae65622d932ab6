//! The content of a pickle: a flat list of nodes that refer to each other by index.
//!
//! Indices are used instead of pointers because a hostile file can nest and share values at any depth, and neither
//! dropping nor copying a flat list recurses.

use std::ops::Range;

use crate::weights::element::Element;

/// Index of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(super) usize);

/// One value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// A floating-point number, or an integer of more than eight bytes. Its value is not needed.
    Number,
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// A recorded call. It is never executed.
    Object {
        class: Global,
        /// A tuple of arguments.
        arguments: Id,
        state: Option<Id>,
        /// The range in the file of an array's values, which follow the object (joblib since 0.10).
        raw: Range<usize>,
    },
    /// A reference to data outside the pickle: a storage of PyTorch.
    Persistent(Id),
}

/// The supported globals. None is called: they only give the arguments a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
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
    /// Bytes as Python 3 writes them in protocol 2.
    Encode,
    /// Something that is ignored: a device, a type, a scalar.
    Inert,
    /// Any other class or function; the position of its name in [`Pickle::classes`].
    Opaque(usize),
}

impl Global {
    /// The global `module.name`; `None` if nothing but its name is known.
    pub(crate) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
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
            ("_codecs", "encode") => Self::Encode,
            _ => return None,
        })
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

/// The content of a pickle.
#[derive(Clone, Debug)]
pub(crate) struct Pickle {
    pub(super) nodes: Vec<Node>,
    /// Names of the classes and functions of [`Global::Opaque`].
    pub(super) classes: Vec<String>,
    pub(super) root: Id,
    /// Length of the pickle in bytes; the file can hold more data after it.
    pub(crate) length: usize,
}

impl Pickle {
    /// The outermost value.
    pub(crate) fn root(&self) -> Id {
        self.root
    }

    /// Every node, in the order of the file.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// The node at `id`.
    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0]
    }

    /// The names of all opaque classes and functions.
    pub(crate) fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The name of an opaque class or function.
    pub(crate) fn class_name(&self, class: Global) -> Option<&str> {
        match class {
            Global::Opaque(at) => self.classes.get(at).map(String::as_str),
            _ => None,
        }
    }

    /// The text at `id`, also if it is a byte string of Python 2.
    pub(crate) fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            Node::Bytes(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The integer at `id`, if it is not negative.
    pub(crate) fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The items of a list, a tuple or a `torch.Size`.
    pub(crate) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(items) | Node::Tuple(items) => Some(items),
            Node::Object { class: Global::Size, arguments, .. } => {
                let Node::Tuple(arguments) = self.node(*arguments) else { return None };
                match self.node(*arguments.first()?) {
                    Node::List(items) | Node::Tuple(items) => Some(items),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Sizes or strides of at most 64 axes, numpy's limit.
    pub(crate) fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.items(id).filter(|items| items.len() <= 64)?.iter().map(|item| self.size(*item)).collect()
    }

    /// The value of a text key in a dict; the last one if it is set several times.
    pub(crate) fn entry(&self, id: Id, key: &str) -> Option<Id> {
        let Node::Dict(pairs) = self.node(id) else { return None };
        let (_, value) = pairs.iter().rev().find(|(name, _)| self.text(*name) == Some(key))?;
        Some(*value)
    }
}
