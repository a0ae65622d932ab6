//! Numpy arrays in `.npy` files and in pickles.

use std::path::Path;

use dcgan_base::pickle::DataExtent;

use super::error::ImportError;
use super::pickle::{Class, Global, Id, Node, Pickle, sizes};
use super::strides::{column_major, to_contiguous};
use crate::weights::element::{ByteOrder, Element};
use crate::weights::{HostTensor, value_count};

/// Why an array was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArrayError {
    /// The header is not that of a `.npy` file.
    #[error("invalid header: expected a .npy file of version 1, 2 or 3")]
    Header,
    /// The values are not floating-point numbers.
    #[error("expected values of type f2, f4 or f8, found {0}; save the array with astype('float32')")]
    Dtype(String),
    /// The number of bytes does not match the shape.
    #[error("expected {expected} bytes of values, found {found}: the file is cut short or damaged")]
    Length {
        /// Bytes that the shape takes.
        expected: usize,
        /// Bytes in the file.
        found: usize,
    },
    /// The number of values overflows.
    #[error("invalid shape: the number of values overflows; the file is damaged")]
    Shape,
    /// The index holds more values than any DCGAN.
    #[error(
        "expected at most {0} values in all arrays up to this one, found more: not a file of DCGAN weights"
    )]
    TooLarge(usize),
}

/// The layout of an array's values in bytes.
struct Layout {
    shape: Vec<usize>,
    element: Element,
    order: ByteOrder,
    is_fortran: bool,
}

impl Layout {
    fn byte_count(&self) -> Option<usize> {
        value_count(&self.shape)?.checked_mul(self.element.size())
    }

    /// The array with the values in `bytes`.
    fn read(self, bytes: &[u8]) -> Result<HostTensor, ArrayError> {
        let expected = self.byte_count().ok_or(ArrayError::Shape)?;
        if bytes.len() != expected {
            return Err(ArrayError::Length { expected, found: bytes.len() });
        }
        let mut data = self.element.decode(bytes, self.order);
        if self.is_fortran {
            data = to_contiguous(&data, 0, &self.shape, &column_major(&self.shape))
                .map_err(|_| ArrayError::Shape)?;
        }
        Ok(HostTensor { shape: self.shape, data })
    }
}

/// Reads the content of a `.npy` file; `path` is for error messages.
///
/// # Errors
/// [`ImportError::Array`].
pub(crate) fn read_npy(path: &Path, bytes: &[u8]) -> Result<HostTensor, ImportError> {
    parse_npy(bytes).map_err(|source| ImportError::Array { path: path.to_owned(), source })
}

fn parse_npy(bytes: &[u8]) -> Result<HostTensor, ArrayError> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or(ArrayError::Header)?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (u32::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]), rest),
        _ => return Err(ArrayError::Header),
    };
    let length = usize::try_from(length).map_err(|_| ArrayError::Header)?;
    let (header, values) = rest.split_at_checked(length).ok_or(ArrayError::Header)?;
    let header = str::from_utf8(header).map_err(|_| ArrayError::Header)?;
    parse_header(header)?.read(values)
}

/// The layout in a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (64, 3), }`.
fn parse_header(header: &str) -> Result<Layout, ArrayError> {
    let after = |key: &str| {
        let (_, rest) = header.split_once(&format!("'{key}':")).ok_or(ArrayError::Header)?;
        Ok(rest.trim_start())
    };
    let quoted = after("descr")?.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    let Some((descr, _)) = quoted else { return Err(ArrayError::Dtype("a structured type".into())) };
    let unknown = || ArrayError::Dtype(descr.to_owned());
    let (order, name) = match descr.split_at_checked(1) {
        Some(("<" | "|" | "=", name)) => (ByteOrder::Little, name),
        Some((">", name)) => (ByteOrder::Big, name),
        _ => return Err(unknown()),
    };
    let element = element(name).filter(|element| element.is_float()).ok_or_else(unknown)?;
    let is_fortran = match after("fortran_order")? {
        rest if rest.starts_with("True") => true,
        rest if rest.starts_with("False") => false,
        _ => return Err(ArrayError::Header),
    };
    let inside = after("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (sizes, _) = inside.ok_or(ArrayError::Header)?;
    let shape = sizes
        .split(',')
        // Python 2 writes long integers as 64L.
        .map(|size| size.trim().trim_end_matches('L'))
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().map_err(|_| ArrayError::Header))
        .collect::<Result<Vec<usize>, _>>()?;
    Ok(Layout { shape, element, order, is_fortran })
}

fn element(name: &str) -> Option<Element> {
    Some(match name {
        "f2" => Element::F16,
        "f4" => Element::F32,
        "f8" => Element::F64,
        "i1" => Element::I8,
        "i2" => Element::I16,
        "i4" => Element::I32,
        "i8" => Element::I64,
        "u1" => Element::U8,
        _ => return None,
    })
}

/// The extent of the array that the attributes of a joblib `NumpyArrayWrapper` describe; `None` if they are invalid.
pub(crate) fn array_extent(pickle: &Pickle, attributes: Id) -> Option<DataExtent> {
    let bytes = wrapper_layout(pickle, attributes)?.byte_count()?;
    let alignment = pickle.entry(attributes, "numpy_array_alignment_bytes");
    let is_aligned = alignment.is_some_and(|id| *pickle.node(id) != Node::None);
    Some(DataExtent { bytes, is_aligned })
}

fn wrapper_layout(pickle: &Pickle, attributes: Id) -> Option<Layout> {
    let (element, order) = dtype(pickle, pickle.entry(attributes, "dtype")?)?;
    let is_fortran = pickle.text(pickle.entry(attributes, "order")?)? == "F";
    Some(Layout { shape: sizes(pickle, pickle.entry(attributes, "shape")?)?, element, order, is_fortran })
}

/// `numpy.dtype('f4', False, True)` with state `(3, '<', ...)`.
fn dtype(pickle: &Pickle, id: Id) -> Option<(Element, ByteOrder)> {
    let Node::Object { class: Class::Known(Global::NumpyDtype), arguments, state, .. } = pickle.node(id)
    else {
        return None;
    };
    let element = element(pickle.text(*pickle.items(*arguments)?.first()?)?)?;
    let order = match state {
        Some(state) if pickle.text(*pickle.items(*state)?.get(1)?)? == ">" => ByteOrder::Big,
        _ => ByteOrder::Little,
    };
    Some((element, order))
}

/// An array inside a pickle: joblib's, with its values elsewhere in `bytes`, the whole file, or numpy's own.
/// `None` if the value at `id` is neither.
pub(crate) fn pickled(pickle: &Pickle, bytes: &[u8], id: Id) -> Option<Result<HostTensor, ArrayError>> {
    let Node::Object { class: Class::Known(class), state, data, .. } = pickle.node(id) else { return None };
    let state = (*state)?;
    match class {
        Global::ArrayInStream => Some(wrapper_layout(pickle, state)?.read(bytes.get(data.clone())?)),
        Global::NumpyReconstruct => {
            let [_version, shape, kind, fortran, values] = pickle.items(state)? else { return None };
            let (element, order) = dtype(pickle, *kind)?;
            let is_fortran = *pickle.node(*fortran) == Node::Bool(true);
            let layout = Layout { shape: sizes(pickle, *shape)?, element, order, is_fortran };
            Some(layout.read(&pickle.bytes(*values)?))
        }
        _ => None,
    }
}

/// The shape of numpy's own array at `id`, if its values are floating-point numbers. They are not read yet.
pub(crate) fn float_shape(pickle: &Pickle, id: Id) -> Option<Vec<usize>> {
    let Node::Object { class: Class::Known(Global::NumpyReconstruct), state: Some(state), .. } =
        pickle.node(id)
    else {
        return None;
    };
    let [_version, shape, kind, ..] = pickle.items(*state)? else { return None };
    let (element, _) = dtype(pickle, *kind)?;
    sizes(pickle, *shape).filter(|_| element.is_float())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(version: u8, header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([version, 0]);
        let length = u32::try_from(header.len()).unwrap().to_le_bytes();
        bytes.extend(if version == 1 { &length[..2] } else { &length[..] });
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        bytes
    }

    #[test]
    fn reads_npy_in_every_layout() {
        let little: Vec<u8> = [1_f32, 2., 3., 4., 5., 6.].iter().flat_map(|x| x.to_le_bytes()).collect();
        let big: Vec<u8> = [1_f64, 2., 3., 4., 5., 6.].iter().flat_map(|x| x.to_be_bytes()).collect();
        let (row_major, column_major) = ([1., 2., 3., 4., 5., 6.], [1., 3., 5., 2., 4., 6.]);
        let files = [
            (npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", &little), row_major),
            (npy(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n", &little), column_major),
            (npy(2, "{'descr': '>f8', 'fortran_order': False, 'shape': (2L, 3L)}", &big), row_major),
            (npy(3, "{'shape':(2,3,), 'fortran_order':True, 'descr':'>f8'}", &big), column_major),
        ];
        for (file, expected) in files {
            let array = parse_npy(&file).unwrap();
            let header = String::from_utf8_lossy(&file[..80]);
            assert_eq!(
                (array.shape.as_slice(), array.data.as_slice()),
                (&[2, 3][..], &expected[..]),
                "{header}"
            );
        }
    }

    #[test]
    fn rejects_invalid_npy() {
        let header = |descr: &str, shape: &str| {
            format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")
        };
        let rows = [
            (header("'<f4'", "(3,)"), ArrayError::Length { expected: 12, found: 8 }),
            (header("'<f4'", "(1,)"), ArrayError::Length { expected: 4, found: 8 }),
            (header("'<i8'", "(1,)"), ArrayError::Dtype("<i8".into())),
            (header("'|O'", "(1,)"), ArrayError::Dtype("|O".into())),
            (header("[('a', '<f4')]", "(1,)"), ArrayError::Dtype("a structured type".into())),
            (header("'<f4'", "(99999999999, 99999999999)"), ArrayError::Shape),
            (header("'<f4'", "(-1,)"), ArrayError::Header),
            (header("'<f4'", "(1"), ArrayError::Header),
            ("{}".into(), ArrayError::Header),
        ];
        for (header, error) in rows {
            assert_eq!(parse_npy(&npy(1, &header, &[0; 8])), Err(error), "{header}");
        }
        assert_eq!(parse_npy(b"\x93NUMPY\x04\0"), Err(ArrayError::Header));
        assert_eq!(parse_npy(b"PNG"), Err(ArrayError::Header));
    }
}
