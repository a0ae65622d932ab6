//! The authors' released weights: a joblib index that lists arrays, and the `.npy` files beside it.
//!
//! Arrays are in the order of the layers: the weight, then the weight and bias of its batch norm, if any. Dense layers
//! are `(in, out)` matrices. Theano convolves where other programs correlate, so kernels are rotated by 180 degrees.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ImportError;
use super::matching::Candidate;
use super::numpy::{self, ArrayError};
use super::pickle::{self, Class, Global, Id, Node, Pickle};
use super::sources::read_file;
use crate::weights::{HostTensor, TensorSpec, Weights, mismatches};

/// The paths of the indices in a folder, if there are any: the generator's and the discriminator's.
///
/// # Errors
/// Several indices for one network.
pub(crate) fn indices(folder: &Path) -> Result<[Option<PathBuf>; 2], ImportError> {
    let io_error = |source| ImportError::Io { path: folder.to_owned(), source };
    let mut found = [None, None];
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kinds = ["gen_params", "discrim_params"];
        let Some(kind) = kinds.iter().position(|kind| name.contains(kind) && name.ends_with(".jl")) else {
            continue;
        };
        if let Some(first) = found[kind].replace(path.clone()) {
            return Err(ImportError::Ambiguous {
                first: path.clone().min(first.clone()),
                second: path.max(first),
            });
        }
    }
    Ok(found)
}

/// Reads the arrays of an index, at most `limit` values in total; `bytes` is the content of the index.
///
/// # Errors
/// A damaged index or array, or an index that refers to files outside its folder.
pub(crate) fn read(path: &Path, bytes: &[u8], limit: usize) -> Result<Vec<HostTensor>, ImportError> {
    let pickle =
        pickle::read(bytes).map_err(|source| ImportError::Pickle { path: path.to_owned(), source })?;
    let not_arrays = || ImportError::NotArrays { path: path.to_owned() };
    let items = pickle.items(pickle.root()).filter(|items| !items.is_empty()).ok_or_else(not_arrays)?;
    let (mut arrays, mut values) = (Vec::new(), 0);
    for (number, item) in (1..).zip(items) {
        let index_error = |source| ImportError::IndexArray { path: path.to_owned(), number, source };
        let array = match numpy::pickled(&pickle, bytes, *item) {
            Some(array) => array.map_err(index_error)?,
            None => array_in_file(path, &pickle, *item)?.ok_or_else(not_arrays)?,
        };
        // An empty array counts as one value, so that the number of arrays is bounded too.
        values += array.data.len() + 1;
        if values > limit {
            return Err(index_error(ArrayError::TooLarge(limit)));
        }
        arrays.push(array);
    }
    Ok(arrays)
}

/// The array in a `.npy` file that the item at `id` refers to; `None` if it is not such a reference.
fn array_in_file(index: &Path, pickle: &Pickle, id: Id) -> Result<Option<HostTensor>, ImportError> {
    let Node::Object { class: Class::Known(Global::ArrayInFile), state: Some(state), .. } = pickle.node(id)
    else {
        return Ok(None);
    };
    let Some(name) = pickle.entry(*state, "filename").and_then(|name| pickle.text(name)) else {
        return Ok(None);
    };
    // The index is untrusted: it must not read files outside its folder.
    if name.contains(['/', '\\', ':', '\0']) || Path::new(name).file_name().is_none() {
        return Err(ImportError::OutsideFolder { path: index.to_owned(), name: name.to_owned() });
    }
    let file = index.with_file_name(name);
    numpy::read_npy(&file, &read_file(&file)?).map(Some)
}

/// Names the arrays, converts their layouts, and compares them with the expected tensors.
pub(crate) fn match_arrays(arrays: &[HostTensor], expected: &[TensorSpec]) -> Candidate {
    let mut specs = expected.iter().filter(|spec| !spec.optional);
    let mut weights = Weights::new();
    for (i, array) in (1..).zip(arrays) {
        let (name, tensor) = match specs.next() {
            Some(spec) => (spec.name.clone(), convert(array, &spec.shape)),
            None => (format!("array {i}"), array.clone()),
        };
        weights.insert(name, tensor);
    }
    let mismatches = mismatches(&weights, expected);
    Candidate { weights, mismatches, ..Candidate::default() }
}

/// One array in PyTorch's layout; unchanged if it does not match the expected shape.
fn convert(array: &HostTensor, expected: &[usize]) -> HostTensor {
    let HostTensor { shape, data } = array;
    let data = match (shape.as_slice(), expected) {
        // Kernels of (transposed) convolutions: rotation by 180 degrees reverses the values of each kernel.
        ([_, _, height, width], _) => {
            let kernel = (height * width).max(1);
            data.chunks(kernel).flat_map(|kernel| kernel.iter().rev()).copied().collect()
        }
        // A dense layer from z, (z, c * h * w), and one to a logit, (c * h * w, 1): already in the order (c, h, w).
        ([z, units], [n, maps @ ..]) if z == n && *units == maps.iter().product::<usize>() => data.clone(),
        ([units, 1], [1, maps @ ..]) if *units == maps.iter().product::<usize>() => data.clone(),
        // Per-activation batch norm.
        ([units], [_, _, _]) if *units == expected.iter().product::<usize>() => data.clone(),
        _ => return array.clone(),
    };
    let is_kernel = shape.len() == 4;
    HostTensor { shape: if is_kernel { shape.clone() } else { expected.to_vec() }, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array of `shape` with the values 0, 1, 2, ..., and its conversion to the layout of the expected shape.
    struct Case<'a> {
        shape: &'a [usize],
        expected: &'a [usize],
        converted: &'a [usize],
        values: &'a [f32],
    }

    #[test]
    fn converts_layouts() {
        let tensor = |shape: &[usize]| {
            let n: u8 = shape.iter().product::<usize>().try_into().unwrap();
            HostTensor { shape: shape.to_vec(), data: (0..n).map(f32::from).collect() }
        };
        let cases = [
            Case {
                shape: &[1, 2, 2, 2],
                expected: &[1, 2, 2, 2],
                converted: &[1, 2, 2, 2],
                values: &[3., 2., 1., 0., 7., 6., 5., 4.],
            },
            Case { shape: &[1, 1, 1, 3], expected: &[9], converted: &[1, 1, 1, 3], values: &[2., 1., 0.] },
            Case {
                shape: &[2, 4],
                expected: &[2, 1, 2, 2],
                converted: &[2, 1, 2, 2],
                values: &[0., 1., 2., 3., 4., 5., 6., 7.],
            },
            Case {
                shape: &[4, 1],
                expected: &[1, 1, 2, 2],
                converted: &[1, 1, 2, 2],
                values: &[0., 1., 2., 3.],
            },
            Case { shape: &[4], expected: &[1, 2, 2], converted: &[1, 2, 2], values: &[0., 1., 2., 3.] },
            Case { shape: &[3], expected: &[4], converted: &[3], values: &[0., 1., 2.] },
        ];
        for Case { shape, expected, converted, values } in cases {
            let HostTensor { shape, data } = convert(&tensor(shape), expected);
            assert_eq!((shape.as_slice(), data.as_slice()), (converted, values), "{expected:?}");
        }
    }
}
