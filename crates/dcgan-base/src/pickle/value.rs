//! The content of a pickle: a flat list of nodes that refer to each other by index.
//!
//! Indices are used instead of pointers because a hostile file can nest and share values at any depth, and neither
//! dropping nor copying a flat list recurses.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;

use super::error::PickleError;
use super::machine;

/// Maximum number of axes of an array in numpy.
const MAX_AXES: usize = 64;

/// Index of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub(super) usize);

/// One value of a pickle. Texts are slices of its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'a, K> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most eight bytes.
    Int(i64),
    /// An integer of more than eight bytes. Its value is not kept.
    LongInt,
    /// A floating-point number.
    Float(f64),
    /// A text. Escapes of protocol 0 stay as they are.
    Text(&'a str),
    /// A byte string, as a range of the bytes of the pickle: also a text of Python 2, or one that is not UTF-8.
    Bytes(Range<usize>),
    /// A byte string that is written as a text of letters below 256, as Python 3 does in protocols 0 to 2.
    Latin1(&'a str),
    /// A list or a set.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dict, with its pairs in the order in which they were set: of equal keys the last one counts.
    Dict(Vec<(Id, Id)>),
    /// A class or function. It is never called.
    Class(Class<K>),
    /// A recorded call.
    Object {
        /// What is called.
        class: Class<K>,
        /// A tuple of arguments.
        arguments: Id,
        /// The state that is set afterwards.
        state: Option<Id>,
        /// The bytes of the file that follow the object and belong to it, see [`KnownClass::data`]; or empty.
        data: Range<usize>,
    },
    /// A reference to data outside the pickle.
    Persistent(Id),
}

/// A class or function that a pickle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class<K> {
    /// `collections.OrderedDict`. Calls of it become [`Node::Dict`].
    OrderedDict,
    /// `_codecs.encode`. Calls of it with a text become [`Node::Latin1`].
    Encode,
    /// A class or function that the reader knows.
    Known(K),
    /// Any other; the position of its name in [`Pickle::classes`].
    Opaque(usize),
    /// A value: the result of another call, or a class in a [`Node::Persistent`].
    Computed(Id),
}

/// The classes and functions that a reader gives a meaning. None is called.
pub trait KnownClass: Copy + PartialEq + Debug {
    /// The class or function `module.name`; `None` if nothing but its name is needed.
    fn find(module: &str, name: &str) -> Option<Self>;

    /// The data of an object of this class that follow in the file once its `state` is set, as joblib writes arrays.
    ///
    /// # Errors
    /// What is expected instead of `state`.
    fn data(self, pickle: &Pickle<'_, Self>, state: Id) -> Result<Option<DataExtent>, &'static str> {
        let _ = (pickle, state);
        Ok(None)
    }
}

/// The extent of data that are not part of the pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataExtent {
    /// Length in bytes.
    pub bytes: usize,
    /// Whether they follow padding, whose length is in one byte before it.
    pub is_aligned: bool,
}

/// Bounds on the work of one pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of opcodes. Each adds a few words of memory at most, so this bounds both memory and time.
    pub objects: usize,
    /// Maximum number of classes and functions that are not [`KnownClass`]es: with 0, any of them is an error. A bound
    /// is needed because a pickle can combine a few long texts to any number of names.
    pub classes: usize,
}

/// The content of a pickle.
#[derive(Clone, Debug)]
pub struct Pickle<'a, K> {
    pub(super) file: &'a [u8],
    pub(super) nodes: Vec<Node<'a, K>>,
    pub(super) classes: Vec<String>,
    pub(super) root: Id,
    pub(super) length: usize,
}

impl<'a, K: KnownClass> Pickle<'a, K> {
    /// Reads the pickle at the start of `file`.
    ///
    /// # Errors
    /// A pickle that is cut short, is damaged, or exceeds `limits`.
    pub fn read(file: &'a [u8], limits: Limits) -> Result<Self, PickleError> {
        machine::read(file, limits)
    }

    /// Length of the pickle in bytes. The file can hold more data after it.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The outermost value.
    pub fn root(&self) -> Id {
        self.root
    }

    /// Every node, in the order of the file.
    pub fn nodes(&self) -> impl Iterator<Item = &Node<'a, K>> {
        self.nodes.iter()
    }

    /// The node at `id`.
    pub fn node(&self, id: Id) -> &Node<'a, K> {
        &self.nodes[id.0]
    }

    /// The names of all classes and functions that are not [`KnownClass`]es, each cut to 256 bytes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The name of an opaque class or function.
    pub fn class_name(&self, class: Class<K>) -> Option<&str> {
        match class {
            Class::Opaque(at) => self.classes.get(at).map(String::as_str),
            _ => None,
        }
    }

    /// The text at `id`, also if it is a byte string of Python 2, or one of ASCII.
    pub fn text(&self, id: Id) -> Option<&'a str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            Node::Latin1(text) if text.is_ascii() => Some(text),
            Node::Bytes(range) => str::from_utf8(self.file.get(range.clone())?).ok(),
            _ => None,
        }
    }

    /// The byte string at `id`.
    pub fn bytes(&self, id: Id) -> Option<Cow<'a, [u8]>> {
        match self.node(id) {
            Node::Bytes(range) => self.file.get(range.clone()).map(Cow::Borrowed),
            Node::Latin1(text) => {
                let bytes = text.chars().map(|letter| u8::try_from(u32::from(letter)).ok());
                bytes.collect::<Option<_>>().map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// The integer at `id`, also a bool.
    pub fn int(&self, id: Id) -> Option<i64> {
        match self.node(id) {
            Node::Int(value) => Some(*value),
            Node::Bool(value) => Some((*value).into()),
            _ => None,
        }
    }

    /// The integer at `id`, if it is not negative.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The items of a list or a tuple.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(items) | Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// Sizes or strides of at most 64 axes, numpy's limit.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.items(id).filter(|items| items.len() <= MAX_AXES)?.iter().map(|item| self.size(*item)).collect()
    }

    /// The value of a text key in a dict; the last one if it is set several times.
    pub fn entry(&self, id: Id, key: &str) -> Option<Id> {
        let Node::Dict(pairs) = self.node(id) else { return None };
        let (_, value) = pairs.iter().rev().find(|(name, _)| self.text(*name) == Some(key))?;
        Some(*value)
    }
}
