//! PyTorch's files, read without executing them: the zip form, and the legacy form of before PyTorch 1.6.
//!
//! Zip: `NAME/data.pkl` describes the tensors, `NAME/data/KEY` holds one storage each, `NAME/byteorder` their order.
//! Legacy: five pickles (magic number, version, system, tensors, storage keys), then each storage with its length.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::MAX_VALUES;
use super::error::{ImportError, TensorFault};
use super::pickle::{self, Global, Node, Pickle};
use super::strided::gather;
use super::tree::{self, Found, MAX_KEY, TensorRef};
use crate::weights::element::{ByteOrder, Element};
use crate::weights::{HostTensor, value_count};

/// First bytes of a legacy file: the pickle of its magic number.
pub(crate) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20";

/// Bytes of a description, which a hostile archive may compress well.
const MAX_PICKLE: usize = 1 << 26;

/// Reads every tensor of a file in the zip form, in the file's order; `path` is for errors.
///
/// # Errors
/// A damaged archive or tensor, or a pickle that holds more than tensors.
pub(crate) fn read_zip(path: &Path, bytes: &[u8]) -> Result<Vec<Found>, ImportError> {
    let failed = |member: &str, source| ImportError::Archive {
        path: path.to_owned(),
        member: member.to_owned(),
        source,
    };
    let mut archive =
        ZipArchive::new(io::Cursor::new(bytes)).map_err(|source| failed("the list of members", source))?;
    let index = archive.file_names().flatten().find(|name| name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(index) = index.map(std::borrow::Cow::into_owned) else {
        return Err(ImportError::UnknownForm { path: path.to_owned() });
    };
    let prefix = index.trim_end_matches("data.pkl").to_owned();
    let pickled = member(&mut archive, &index, MAX_PICKLE).map_err(|source| failed(&index, source))?;
    let pickle = read_pickle(path, &pickled, 0)?;
    let order = match member(&mut archive, &format!("{prefix}byteorder"), 16) {
        Ok(order) if order == b"big" => ByteOrder::Big,
        // PyTorch before 2.1 did not say; it wrote the machine's order, which is little-endian wherever it runs.
        Ok(_) | Err(ZipError::FileNotFound) => ByteOrder::Little,
        Err(source) => return Err(failed("byteorder", source)),
    };
    let fetch = |storage: &StorageRef| {
        let name = format!("{prefix}data/{}", storage.key);
        match member(&mut archive, &name, storage.bytes().saturating_add(1)) {
            Ok(bytes) => Ok(storage.element.decode(storage.whole(&bytes)?, order)),
            Err(ZipError::FileNotFound) => Err(Problem::Tensor(TensorFault::NoStorage(storage.key.clone()))),
            Err(source) => Err(Problem::File(failed(&name, source))),
        }
    };
    Tensors { path, pickle: &pickle, storages: BTreeMap::new(), values: 0, fetch }.all()
}

/// The bytes of a member, no more than `limit` of them.
fn member(
    archive: &mut ZipArchive<io::Cursor<&[u8]>>,
    name: &str,
    limit: usize,
) -> Result<Vec<u8>, ZipError> {
    let mut bytes = Vec::new();
    archive.by_name(name)?.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads every tensor of a file in the legacy form, in the file's order; `path` is for errors.
///
/// # Errors
/// A damaged tensor, or a pickle that holds more than tensors.
pub(crate) fn read_legacy(path: &Path, bytes: &[u8]) -> Result<Vec<Found>, ImportError> {
    let mut at = 0;
    let mut next = || {
        let pickle = read_pickle(path, &bytes[at..], at)?;
        at += pickle.length;
        Ok::<_, ImportError>(pickle)
    };
    let [_magic, _version, _system, pickle, keys] = [next()?, next()?, next()?, next()?, next()?];
    let storages = legacy_storages(&pickle, &keys, &bytes[at..])
        .map_err(|(tensor, fault)| ImportError::Tensor { path: path.to_owned(), tensor, fault })?;
    let fetch = |storage: &StorageRef| {
        let range = storages.get(&storage.key).cloned();
        let range = range.ok_or_else(|| Problem::Tensor(TensorFault::NoStorage(storage.key.clone())))?;
        let raw = bytes[at..].get(range).unwrap_or_default();
        // PyTorch writes the legacy form in little-endian order on every machine.
        Ok(storage.element.decode(storage.whole(raw)?, ByteOrder::Little))
    };
    Tensors { path, pickle: &pickle, storages: BTreeMap::new(), values: 0, fetch }.all()
}

/// Where each storage stands in the bytes after the last pickle: in the order of `keys`, its length before it.
fn legacy_storages(
    pickle: &Pickle,
    keys: &Pickle,
    bytes: &[u8],
) -> Result<BTreeMap<String, Range<usize>>, (String, TensorFault)> {
    let known: BTreeMap<String, StorageRef> = pickle
        .nodes()
        .filter_map(|node| StorageRef::new(pickle, node))
        .map(|storage| (storage.key.clone(), storage))
        .collect();
    let mut ranges = BTreeMap::new();
    let mut at = 0_usize;
    for id in keys.items(keys.root()).unwrap_or_default() {
        let key = keys.text(*id).unwrap_or_default().to_owned();
        let Some(storage) = known.get(&key) else { return Err((key, TensorFault::Malformed)) };
        let start = at.saturating_add(8);
        let end = start.saturating_add(storage.bytes());
        if end > bytes.len() {
            let found = bytes.len().saturating_sub(start);
            return Err((key, TensorFault::CutShort { expected: storage.bytes(), found }));
        }
        if bytes[at..start] != (storage.values as u64).to_le_bytes() {
            return Err((key, TensorFault::Malformed));
        }
        ranges.insert(key, start..end);
        at = end;
    }
    Ok(ranges)
}

fn read_pickle(path: &Path, bytes: &[u8], start: usize) -> Result<Pickle, ImportError> {
    pickle::read(bytes).map_err(|mut source| {
        source.at += start;
        ImportError::Pickle { path: path.to_owned(), source }
    })
}

/// What fetching a storage can end in: a fault of the tensor, or of the whole file.
enum Problem {
    Tensor(TensorFault),
    File(ImportError),
}

impl From<TensorFault> for Problem {
    fn from(fault: TensorFault) -> Self {
        Self::Tensor(fault)
    }
}

/// Reads tensors out of their storages, each storage once.
struct Tensors<'a, F> {
    path: &'a Path,
    pickle: &'a Pickle,
    storages: BTreeMap<String, Vec<f32>>,
    /// Values read so far.
    values: usize,
    fetch: F,
}

impl<F: FnMut(&StorageRef) -> Result<Vec<f32>, Problem>> Tensors<'_, F> {
    fn all(mut self) -> Result<Vec<Found>, ImportError> {
        let listed = tree::tensors(self.pickle)
            .map_err(|source| ImportError::Pickle { path: self.path.to_owned(), source })?;
        let mut found = Vec::new();
        for TensorRef { place, name, arguments } in listed {
            match self.tensor(arguments) {
                Ok(Some(tensor)) => found.push(Found { place, name, tensor }),
                Ok(None) => {}
                Err(Problem::File(error)) => return Err(error),
                Err(Problem::Tensor(fault)) => {
                    let tensor = if place.is_empty() { name } else { format!("{place}/{name}") };
                    return Err(ImportError::Tensor { path: self.path.to_owned(), tensor, fault });
                }
            }
        }
        Ok(found)
    }

    /// The tensor of `_rebuild_tensor_v2(storage, offset, shape, strides, ...)`; `None` for several integers, which are
    /// no weights (labels, the state of a random generator).
    fn tensor(&mut self, arguments: pickle::Id) -> Result<Option<HostTensor>, Problem> {
        let [storage, offset, shape, strides, ..] = self.pickle.items(arguments).unwrap_or_default() else {
            return Err(TensorFault::Malformed.into());
        };
        let storage = StorageRef::new(self.pickle, self.pickle.node(*storage));
        let (offset, shape) = (self.pickle.size(*offset), self.pickle.sizes(*shape));
        let (Some(storage), Some(offset), Some(shape), Some(strides)) =
            (storage, offset, shape, self.pickle.sizes(*strides))
        else {
            return Err(TensorFault::Malformed.into());
        };
        if strides.len() != shape.len() {
            return Err(TensorFault::Malformed.into());
        }
        let count = value_count(&shape);
        if !storage.element.is_float() && count != Some(1) {
            return Ok(None);
        }
        self.pay(count)?;
        if !self.storages.contains_key(&storage.key) {
            self.pay(Some(storage.values))?;
            let values = (self.fetch)(&storage)?;
            self.storages.insert(storage.key.clone(), values);
        }
        let values = &self.storages[&storage.key];
        let offset = offset.saturating_add(storage.offset);
        let data = gather(values, offset, &shape, &strides);
        Ok(Some(HostTensor { data: data.map_err(|_| TensorFault::OutOfStorage(values.len()))?, shape }))
    }

    fn pay(&mut self, count: Option<usize>) -> Result<(), Problem> {
        let values = count.and_then(|count| self.values.checked_add(count));
        match values.filter(|values| *values <= MAX_VALUES) {
            Some(values) => self.values = values,
            None => return Err(TensorFault::TooLarge(MAX_VALUES).into()),
        }
        Ok(())
    }
}

/// A reference to a storage: `('storage', type, key, device, values)`, in old files a view's offset after it.
struct StorageRef {
    key: String,
    element: Element,
    values: usize,
    /// Where a view starts in the storage.
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

    /// `bytes` where they are as many as the storage takes.
    fn whole<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], TensorFault> {
        let (expected, found) = (self.bytes(), bytes.len());
        if found == expected { Ok(bytes) } else { Err(TensorFault::CutShort { expected, found }) }
    }
}

#[cfg(test)]
mod tests;
