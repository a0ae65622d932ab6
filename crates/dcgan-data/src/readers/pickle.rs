//! Arrays, integers and names in the pickles of CIFAR. Nothing in a pickle is executed, see [`dcgan_base::pickle`], and
//! one that names other classes than those of numpy's arrays is refused.

use std::ops::Range;
use std::sync::Arc;

use crate::readers::array::integers;
use dcgan_base::pickle::{self, Class, Id, KnownClass, Limits, Node, PickleError, PickleErrorKind};

/// CIFAR-100 has about five objects per image.
const LIMITS: Limits = Limits { objects: 1 << 20, classes: 0 };

/// Maximum length of the type of an array, such as `|u1`.
const MAX_DESCR_BYTES: usize = 16;

/// Maximum bytes of the name of a class of images.
const MAX_NAME_BYTES: usize = 256;

/// Maximum bytes of an integer.
const MAX_INTEGER_BYTES: usize = 8;

/// The end of messages about other pickles.
const NOT_CIFAR: &str = "not a batch of CIFAR (python version), and no code in a pickle is executed";

/// Bytes in the file, or in memory where they are stored in another encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Buffer {
    File(Range<usize>),
    Memory(Arc<Vec<u8>>),
}

/// An array. `data` has the values in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) descr: String,
    pub(crate) sizes: Vec<usize>,
    pub(crate) is_fortran: bool,
    pub(crate) data: Buffer,
}

/// The classes and functions of numpy's arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numpy {
    Reconstruct,
    FromBuffer,
    Scalar,
    Ndarray,
    Dtype,
}

impl KnownClass for Numpy {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Self::Reconstruct,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Self::FromBuffer,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::Scalar,
            ("numpy", "ndarray") => Self::Ndarray,
            ("numpy", "dtype") => Self::Dtype,
            _ => return None,
        })
    }
}

/// The dict in a pickle.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    file: &'a [u8],
    content: pickle::Pickle<'a, Numpy>,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `file`.
    ///
    /// # Errors
    ///
    /// A message without the file's name, which the caller adds.
    pub(crate) fn read(file: &'a [u8]) -> Result<Self, String> {
        let content = pickle::Pickle::read(file, LIMITS).map_err(|error| message(file, error))?;
        Ok(Self { file, content })
    }

    /// The value of `key` in the outermost dict.
    fn get(&self, key: &str) -> Option<Id> {
        self.content.entry(self.content.root(), key)
    }

    /// The array `key`.
    pub(crate) fn array(&self, key: &str) -> Option<Array> {
        self.array_at(self.get(key)?)
    }

    /// The integers of `key`: a list or an array.
    pub(crate) fn integers(&self, key: &str) -> Option<Vec<i64>> {
        let id = self.get(key)?;
        if let Some(items) = self.content.items(id) {
            return items.iter().map(|id| self.integer(*id)).collect();
        }
        let array = self.array_at(id)?;
        let bytes = self.slice(&array.data)?;
        (bytes.len() <= LIMITS.objects * MAX_INTEGER_BYTES).then(|| integers(&array.descr, bytes))?
    }

    /// The list of `count` short texts `key`.
    pub(crate) fn texts(&self, key: &str, count: usize) -> Option<Vec<String>> {
        let items = self.content.items(self.get(key)?).filter(|items| items.len() == count)?;
        let text = |id: &Id| self.content.text(*id).filter(|text| text.len() <= MAX_NAME_BYTES);
        items.iter().map(|id| text(id).map(str::to_owned)).collect()
    }

    /// The integer at `id`, also a scalar of numpy.
    fn integer(&self, id: Id) -> Option<i64> {
        let Node::Object { class: Class::Known(Numpy::Scalar), arguments, .. } = self.content.node(id) else {
            return self.content.int(id);
        };
        let [dtype, value] = self.content.items(*arguments)? else { return None };
        let value = self.buffer(*value, MAX_INTEGER_BYTES)?;
        integers(&self.dtype(*dtype)?, self.slice(&value)?)?.first().copied()
    }

    fn array_at(&self, id: Id) -> Option<Array> {
        let Node::Object { class: Class::Known(class), arguments, state, .. } = self.content.node(id) else {
            return None;
        };
        let (sizes, dtype, data, is_fortran) = match class {
            Numpy::Reconstruct => {
                let [_version, sizes, dtype, order, data, ..] = self.content.items((*state)?)? else {
                    return None;
                };
                (*sizes, *dtype, *data, self.content.int(*order) == Some(1))
            }
            Numpy::FromBuffer => {
                let [data, dtype, sizes, order, ..] = self.content.items(*arguments)? else { return None };
                (*sizes, *dtype, *data, self.content.text(*order) == Some("F"))
            }
            _ => return None,
        };
        let (sizes, descr) = (self.content.sizes(sizes)?, self.dtype(dtype)?);
        Some(Array { descr, sizes, is_fortran, data: self.buffer(data, self.file.len())? })
    }

    /// The type of an array: `numpy.dtype('u1', ...)` with the state `(3, '<', ...)`.
    fn dtype(&self, id: Id) -> Option<String> {
        let Node::Object { class: Class::Known(Numpy::Dtype), arguments, state, .. } = self.content.node(id)
        else {
            return None;
        };
        let short = |id: Id| self.content.text(id).filter(|text| text.len() <= MAX_DESCR_BYTES);
        let descr = short(*self.content.items(*arguments)?.first()?)?;
        let Some(state) = state else { return Some(descr.to_owned()) };
        let order = short(*self.content.items(*state)?.get(1)?)?;
        Some(format!("{order}{}", descr.trim_start_matches(['|', '<', '>', '='])))
    }

    /// The bytes at `id`, at most `limit`.
    fn buffer(&self, id: Id, limit: usize) -> Option<Buffer> {
        match self.content.node(id) {
            Node::Bytes(range) => Some(Buffer::File(range.clone())).filter(|_| range.len() <= limit),
            // A letter takes at most two bytes of UTF-8.
            Node::Latin1(text) if text.len() / 2 <= limit => {
                Some(Buffer::Memory(Arc::new(self.content.bytes(id)?.into_owned())))
            }
            _ => None,
        }
    }

    fn slice<'b>(&'b self, buffer: &'b Buffer) -> Option<&'b [u8]> {
        match buffer {
            Buffer::File(range) => self.file.get(range.clone()),
            Buffer::Memory(bytes) => Some(bytes),
        }
    }
}

/// What is wrong with the pickle in `file`.
fn message(file: &[u8], PickleError { offset, kind }: PickleError) -> String {
    match kind {
        PickleErrorKind::CutShort { .. } => {
            format!("is truncated: the pickle does not end within {} bytes", file.len())
        }
        PickleErrorKind::TooManyObjects(limit) => format!("has more than {limit} objects: {NOT_CIFAR}"),
        PickleErrorKind::TooManyClasses { name, .. } => format!("refers to {name}: {NOT_CIFAR}"),
        PickleErrorKind::Opcode(_) | PickleErrorKind::Expected(_) => {
            format!("is damaged or not a batch of CIFAR, at byte {offset}")
        }
    }
}
