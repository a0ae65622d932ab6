//! Reads PyTorch's files without executing anything in them: the zip format, and the legacy format (before 1.6).
//!
//! Zip: `NAME/data.pkl` describes the tensors, `NAME/data/KEY` holds one storage, `NAME/byteorder` the byte order.
//! Legacy: five pickles (magic number, version, system, tensors, storage keys), then each storage after its length.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::MAX_VALUES;
use super::error::{ImportError, TensorError};
use super::pickle::{self, Global, Node, Pickle};
use super::state_dict::{self, ImportedTensor, MAX_KEY, TensorRef};
use super::strides::to_contiguous;
use crate::weights::element::{ByteOrder, Element};
use crate::weights::{HostTensor, value_count};

/// First bytes of a legacy file: the pickle of its magic number.
pub(crate) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20";

/// The largest `data.pkl` in bytes. A hostile archive can compress a huge one into a small file.
const MAX_PICKLE: usize = 1 << 26;

/// Reads every tensor of a file in the zip format, in the file's order; `path` is for error messages.
///
/// # Errors
/// A damaged archive or tensor, or a pickle that refers to anything but tensors.
pub(crate) fn read_zip(path: &Path, bytes: &[u8]) -> Result<Vec<ImportedTensor>, ImportError> {
    let zip_error =
        |member: &str, source| ImportError::Zip { path: path.to_owned(), member: member.to_owned(), source };
    let mut archive = ZipArchive::new(io::Cursor::new(bytes))
        .map_err(|source| zip_error("the central directory", source))?;
    let index = archive.file_names().flatten().find(|name| name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(index) = index.map(std::borrow::Cow::into_owned) else {
        return Err(ImportError::UnknownFormat { path: path.to_owned() });
    };
    let prefix = index.trim_end_matches("data.pkl").to_owned();
    let pickled = member(&mut archive, &index, MAX_PICKLE).map_err(|source| zip_error(&index, source))?;
    let pickle = read_pickle(path, &pickled, 0)?;
    let order = match member(&mut archive, &format!("{prefix}byteorder"), 16) {
        Ok(order) if order == b"big" => ByteOrder::Big,
        // PyTorch before 2.1 wrote no byte order. It used the machine's, which is little-endian in practice.
        Ok(_) | Err(ZipError::FileNotFound) => ByteOrder::Little,
        Err(source) => return Err(zip_error("byteorder", source)),
    };
    let load = |storage: &StorageRef| {
        let name = format!("{prefix}data/{}", storage.key);
        match member(&mut archive, &name, storage.bytes().saturating_add(1)) {
            Ok(bytes) => Ok(storage.element.decode(storage.check_size(&bytes)?, order)),
            Err(ZipError::FileNotFound) => {
                Err(LoadError::Tensor(TensorError::MissingStorage(storage.key.clone())))
            }
            Err(source) => Err(LoadError::File(zip_error(&name, source))),
        }
    };
    TensorReader { path, pickle: &pickle, storages: BTreeMap::new(), values: 0, load }.read_all()
}

/// The first `limit` bytes of a member.
fn member(
    archive: &mut ZipArchive<io::Cursor<&[u8]>>,
    name: &str,
    limit: usize,
) -> Result<Vec<u8>, ZipError> {
    let mut bytes = Vec::new();
    archive.by_name(name)?.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads every tensor of a file in the legacy format, in the file's order; `path` is for error messages.
///
/// # Errors
/// A damaged tensor, or a pickle that refers to anything but tensors.
pub(crate) fn read_legacy(path: &Path, bytes: &[u8]) -> Result<Vec<ImportedTensor>, ImportError> {
    let mut at = 0;
    let mut next = || {
        let pickle = read_pickle(path, &bytes[at..], at)?;
        at += pickle.length;
        Ok::<_, ImportError>(pickle)
    };
    let [_magic, _version, _system, pickle, keys] = [next()?, next()?, next()?, next()?, next()?];
    let storages = legacy_storages(&pickle, &keys, &bytes[at..])
        .map_err(|(tensor, source)| ImportError::Tensor { path: path.to_owned(), tensor, source })?;
    let load = |storage: &StorageRef| {
        let range = storages.get(&storage.key).cloned();
        let range =
            range.ok_or_else(|| LoadError::Tensor(TensorError::MissingStorage(storage.key.clone())))?;
        let raw = bytes[at..].get(range).unwrap_or_default();
        // PyTorch writes the legacy format in little-endian order on every machine.
        Ok(storage.element.decode(storage.check_size(raw)?, ByteOrder::Little))
    };
    TensorReader { path, pickle: &pickle, storages: BTreeMap::new(), values: 0, load }.read_all()
}

/// The range of each storage in the bytes after the last pickle. Storages are in the order of `keys`, each after its
/// length.
///
/// # Errors
/// The key of a storage and what is wrong with it.
fn legacy_storages(
    pickle: &Pickle,
    keys: &Pickle,
    bytes: &[u8],
) -> Result<BTreeMap<String, Range<usize>>, (String, TensorError)> {
    let known: BTreeMap<String, StorageRef> = pickle
        .nodes()
        .filter_map(|node| StorageRef::new(pickle, node))
        .map(|storage| (storage.key.clone(), storage))
        .collect();
    let mut ranges = BTreeMap::new();
    let mut at = 0_usize;
    for id in keys.items(keys.root()).unwrap_or_default() {
        let key = keys.text(*id).unwrap_or_default().to_owned();
        let Some(storage) = known.get(&key) else { return Err((key, TensorError::Malformed)) };
        let start = at.saturating_add(8);
        let end = start.saturating_add(storage.bytes());
        if end > bytes.len() {
            let found = bytes.len().saturating_sub(start);
            return Err((key, TensorError::CutShort { expected: storage.bytes(), found }));
        }
        if bytes[at..start] != (storage.values as u64).to_le_bytes() {
            return Err((key, TensorError::Malformed));
        }
        ranges.insert(key, start..end);
        at = end;
    }
    Ok(ranges)
}

fn read_pickle(path: &Path, bytes: &[u8], start: usize) -> Result<Pickle, ImportError> {
    pickle::read(bytes).map_err(|mut source| {
        source.offset += start;
        ImportError::Pickle { path: path.to_owned(), source }
    })
}

/// Why a storage was not loaded: an error of the tensor, or of the whole file.
enum LoadError {
    Tensor(TensorError),
    File(ImportError),
}

impl From<TensorError> for LoadError {
    fn from(error: TensorError) -> Self {
        Self::Tensor(error)
    }
}

/// Reads tensors from their storages. Each storage is loaded once.
struct TensorReader<'a, F> {
    path: &'a Path,
    pickle: &'a Pickle,
    storages: BTreeMap<String, Vec<f32>>,
    /// Values of all tensors and storages so far.
    values: usize,
    load: F,
}

impl<F: FnMut(&StorageRef) -> Result<Vec<f32>, LoadError>> TensorReader<'_, F> {
    fn read_all(mut self) -> Result<Vec<ImportedTensor>, ImportError> {
        let refs = state_dict::tensors(self.pickle)
            .map_err(|source| ImportError::Pickle { path: self.path.to_owned(), source })?;
        let mut tensors = Vec::new();
        for TensorRef { scope, name, arguments } in refs {
            match self.tensor(arguments) {
                Ok(Some(tensor)) => tensors.push(ImportedTensor { scope, name, tensor }),
                Ok(None) => {}
                Err(LoadError::File(error)) => return Err(error),
                Err(LoadError::Tensor(source)) => {
                    let tensor = if scope.is_empty() { name } else { format!("{scope}/{name}") };
                    return Err(ImportError::Tensor { path: self.path.to_owned(), tensor, source });
                }
            }
        }
        Ok(tensors)
    }

    /// The tensor of `_rebuild_tensor_v2(storage, offset, shape, strides, ...)`; `None` for integer tensors of several
    /// values, which are not weights (labels, the state of a random generator).
    fn tensor(&mut self, arguments: pickle::Id) -> Result<Option<HostTensor>, LoadError> {
        let [storage, offset, shape, strides, ..] = self.pickle.items(arguments).unwrap_or_default() else {
            return Err(TensorError::Malformed.into());
        };
        let storage = StorageRef::new(self.pickle, self.pickle.node(*storage));
        let (offset, shape) = (self.pickle.size(*offset), self.pickle.sizes(*shape));
        let (Some(storage), Some(offset), Some(shape), Some(strides)) =
            (storage, offset, shape, self.pickle.sizes(*strides))
        else {
            return Err(TensorError::Malformed.into());
        };
        if strides.len() != shape.len() {
            return Err(TensorError::Malformed.into());
        }
        let count = value_count(&shape);
        if !storage.element.is_float() && count != Some(1) {
            return Ok(None);
        }
        self.reserve(count)?;
        if !self.storages.contains_key(&storage.key) {
            self.reserve(Some(storage.values))?;
            let values = (self.load)(&storage)?;
            self.storages.insert(storage.key.clone(), values);
        }
        let values = &self.storages[&storage.key];
        let offset = offset.saturating_add(storage.offset);
        let data = to_contiguous(values, offset, &shape, &strides);
        Ok(Some(HostTensor { data: data.map_err(|_| TensorError::OutOfStorage(values.len()))?, shape }))
    }

    /// Adds `count` to the values of the file and checks the limit; `None` is a count that overflows.
    fn reserve(&mut self, count: Option<usize>) -> Result<(), LoadError> {
        let values = count.and_then(|count| self.values.checked_add(count));
        match values.filter(|values| *values <= MAX_VALUES) {
            Some(values) => self.values = values,
            None => return Err(TensorError::TooLarge(MAX_VALUES).into()),
        }
        Ok(())
    }
}

/// A reference to a storage: `('storage', type, key, device, values)`, followed in old files by `(key, offset, size)`
/// of a view.
struct StorageRef {
    key: String,
    element: Element,
    values: usize,
    /// The first value of the view in the storage.
    offset: usize,
}

impl StorageRef {
    fn new(pickle: &Pickle, node: &Node) -> Option<Self> {
        let Node::Persistent(reference) = node else { return None };
        let [_kind, class, key, _device, values, view @ ..] = pickle.items(*reference)? else { return None };
        let Node::Global(Global::Storage(element)) = pickle.node(*class) else { return None };
        let offset = match view.first().map(|view| pickle.items(*view)) {
            Some(Some([_key, offset, _size])) => pickle.size(*offset)?,
            _ => 0,
        };
        Some(Self {
            key: pickle.text(*key).filter(|key| key.len() <= MAX_KEY)?.to_owned(),
            element: *element,
            values: pickle.size(*values)?,
            offset,
        })
    }

    fn bytes(&self) -> usize {
        self.values.saturating_mul(self.element.size())
    }

    /// `bytes`, if they have the size of the storage.
    fn check_size<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], TensorError> {
        let (expected, found) = (self.bytes(), bytes.len());
        if found == expected { Ok(bytes) } else { Err(TensorError::CutShort { expected, found }) }
    }
}

#[cfg(test)]
mod tests;
