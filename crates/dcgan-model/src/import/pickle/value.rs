//! What a pickle holds: a flat list of nodes that name each other by index.
//!
//! Indices instead of pointers: a hostile file may nest or share values without end, and neither dropping nor
//! copying a flat list recurses.

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
    /// A real number, or an integer of more than eight bytes: nothing here needs its value.
    Number,
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// A call that is written down, never made.
    Object {
        class: Global,
        /// A tuple.
        arguments: Id,
        state: Option<Id>,
        /// Where an array's values follow the object in the stream (joblib since 0.10).
        raw: Range<usize>,
    },
    /// A reference to data outside the pickle: PyTorch's storages.
    Persistent(Id),
}

/// The names that files of tensors may use. None is called: they only say what the arguments mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
    Size,
    NumpyReconstruct,
    NumpyArray,
    NumpyDtype,
    /// A numpy array in a file of its own, named in `filename` (joblib before 0.10).
    ArrayInFile,
    /// A numpy array that follows in the stream (joblib since 0.10).
    ArrayInStream,
    /// Bytes that Python 3 wrote for Python 2.
    Encode,
    /// Something beside the weights that says nothing about them: a device, a type, a loss.
    Inert,
}

impl Global {
    /// The meaning of `module.name`; `None` for everything else in Python.
    pub(crate) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "Size") => Self::Size,
            ("torch", "device" | "float64" | "float32" | "float16" | "bfloat16" | "int64") => Self::Inert,
            ("torch", storage) => Self::Storage(storage_element(storage)?),
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

/// A pickle that was read.
#[derive(Clone, Debug)]
pub(crate) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    /// Bytes of the pickle; others may follow it in the file.
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

    /// The text at `id`; bytes of Python 2 are text too.
    pub(crate) fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            Node::Bytes(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The integer at `id`, where it is a size or an offset.
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

    /// Sizes or strides, of no more axes than numpy allows.
    pub(crate) fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.items(id).filter(|items| items.len() <= 64)?.iter().map(|item| self.size(*item)).collect()
    }

    /// The value of a text key in a dict; the last one where it is set twice.
    pub(crate) fn entry(&self, id: Id, key: &str) -> Option<Id> {
        let Node::Dict(pairs) = self.node(id) else { return None };
        let (_, value) = pairs.iter().rev().find(|(name, _)| self.text(*name) == Some(key))?;
        Some(*value)
    }
}
