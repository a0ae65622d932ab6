//! Reads PyTorch's files without executing anything in them: the zip format, and the legacy format (before 1.6).
//!
//! Zip: `NAME/data.pkl` describes the tensors, `NAME/data/KEY` holds one storage, `NAME/byteorder` the byte order.
//! Legacy: five pickles (magic number, version, system, tensors, storage keys), then each storage after its length.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;

use super::MAX_VALUES;
use super::error::{ImportError, TensorError};
use super::numpy;
use super::pickle::{self, Class, Global, Node, Pickle, sizes};
use super::short_list;
use super::state_dict::{self, ImportedTensor, MAX_KEY, ModuleRef, Source, TensorRef};
use super::strides::to_contiguous;
use crate::weights::element::{ByteOrder, Element};
use crate::weights::{HostTensor, value_count};

/// First bytes of a legacy file: the pickle of its magic number.
pub(crate) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20";

/// The tensors of a file, and what else is worth a sentence.
#[derive(Debug)]
pub(crate) struct TorchFile {
    /// In the file's order.
    pub(crate) tensors: Vec<ImportedTensor>,
    /// What was skipped.
    pub(crate) notes: Vec<String>,
    /// The modules of whole networks.
    pub(crate) modules: Vec<ModuleRef>,
    /// Whether the file is a TorchScript archive, with code beside the tensors.
    pub(crate) is_script: bool,
}

/// The largest `data.pkl` in bytes. A hostile archive can compress a huge one into a small file.
const MAX_PICKLE: usize = 1 << 26;

/// Reads every tensor of a file in the zip format, in the file's order; `path` is for error messages.
///
/// # Errors
/// A damaged archive, pickle or tensor.
pub(crate) fn read_zip(path: &Path, bytes: &[u8]) -> Result<TorchFile, ImportError> {
    let zip_error =
        |member: &str, source| ImportError::Zip { path: path.to_owned(), member: member.to_owned(), source };
    // Detection of bytes before the archive goes wrong in PyTorch's files if their first header happens to be as long
    // as the two records at their end, which it is for file names of 21 letters. So it is only tried second.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, io::Cursor::new(bytes))
        .or_else(|_| ZipArchive::new(io::Cursor::new(bytes)))
        .map_err(|source| zip_error("the central directory", source))?;
    let index = archive.file_names().flatten().find(|name| name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(index) = index.map(std::borrow::Cow::into_owned) else {
        return Err(ImportError::UnknownFormat { path: path.to_owned() });
    };
    let prefix = index.trim_end_matches("data.pkl").to_owned();
    let code = format!("{prefix}code/");
    let is_script = archive.file_names().flatten().any(|name| name.starts_with(&code));
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
    let read =
        TensorReader { path, pickle: &pickle, storages: BTreeMap::new(), values: 0, load }.read_all()?;
    let is_script = is_script || pickle.classes().iter().any(|class| class.starts_with("__torch__."));
    Ok(TorchFile { is_script, ..read })
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
/// A damaged pickle or tensor.
pub(crate) fn read_legacy(path: &Path, bytes: &[u8]) -> Result<TorchFile, ImportError> {
    let mut at = 0;
    let mut next = || {
        let pickle = read_pickle(path, &bytes[at..], at)?;
        at += pickle.length();
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

/// Reads every array of a pickle of Python objects, such as a dict of numpy arrays; `path` is for error messages.
///
/// # Errors
/// A damaged pickle or array, and tensors of PyTorch, which only torch.save writes in a form that can be read.
pub(crate) fn read_pickle_file(path: &Path, bytes: &[u8]) -> Result<TorchFile, ImportError> {
    let pickle = read_pickle(path, bytes, 0)?;
    let load = |storage: &StorageRef| {
        Err::<Vec<f32>, _>(LoadError::Tensor(TensorError::MissingStorage(storage.key.clone())))
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

fn read_pickle<'a>(path: &Path, bytes: &'a [u8], start: usize) -> Result<Pickle<'a>, ImportError> {
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

/// A tensor that was read.
enum Loaded {
    Tensor(HostTensor),
    /// Not weights: several integers, such as labels or the state of a random generator, or numpy's objects.
    Integers,
    /// Values of another type, such as complex numbers; the class of the storage.
    OtherType(String),
}

/// Reads tensors from their storages. Each storage is loaded once.
struct TensorReader<'a, F> {
    path: &'a Path,
    pickle: &'a Pickle<'a>,
    storages: BTreeMap<String, Vec<f32>>,
    /// Values of all tensors and storages so far.
    values: usize,
    load: F,
}

impl<F: FnMut(&StorageRef) -> Result<Vec<f32>, LoadError>> TensorReader<'_, F> {
    fn read_all(mut self) -> Result<TorchFile, ImportError> {
        let found = state_dict::tensors(self.pickle)
            .map_err(|source| ImportError::Pickle { path: self.path.to_owned(), source })?;
        let (mut tensors, mut notes) = (Vec::new(), Vec::new());
        for TensorRef { scope, name, source } in found.tensors {
            let read = match source {
                Source::Storage(arguments) => self.tensor(arguments),
                Source::Array(id) => self.array(id),
                Source::Unsupported(kind) => Err(TensorError::Kind(kind.to_owned()).into()),
            };
            let full_name = || if scope.is_empty() { name.clone() } else { format!("{scope}/{name}") };
            match read {
                Ok(Loaded::Tensor(tensor)) => tensors.push(ImportedTensor { scope, name, tensor }),
                Ok(Loaded::Integers) => {}
                Ok(Loaded::OtherType(class)) => {
                    notes.push(format!("skipped {}: a tensor of {class}", full_name()))
                }
                Err(LoadError::File(error)) => return Err(error),
                Err(LoadError::Tensor(source)) => {
                    return Err(ImportError::Tensor {
                        path: self.path.to_owned(),
                        tensor: full_name(),
                        source,
                    });
                }
            }
        }
        if !found.skipped.is_empty() {
            let names: Vec<&str> = found.skipped.iter().map(String::as_str).collect();
            notes.push(format!(
                "skipped {} (no tensors; nothing in the file is executed)",
                short_list(&names)
            ));
        }
        Ok(TorchFile { tensors, notes, modules: found.modules, is_script: false })
    }

    /// A tensor in a numpy array.
    fn array(&mut self, id: pickle::Id) -> Result<Loaded, LoadError> {
        let Some(shape) = numpy::float_shape(self.pickle, id) else { return Ok(Loaded::Integers) };
        self.reserve(value_count(&shape))?;
        match numpy::pickled(self.pickle, &[], id) {
            Some(Ok(tensor)) => Ok(Loaded::Tensor(tensor)),
            Some(Err(_)) | None => Err(TensorError::Malformed.into()),
        }
    }

    /// The tensor of `_rebuild_tensor_v2(storage, offset, shape, strides, ...)`.
    fn tensor(&mut self, arguments: pickle::Id) -> Result<Loaded, LoadError> {
        let [storage, offset, shape, strides, ..] = self.pickle.items(arguments).unwrap_or_default() else {
            return Err(TensorError::Malformed.into());
        };
        if let Some(class) = StorageRef::other_type(self.pickle, *storage) {
            return Ok(Loaded::OtherType(class.to_owned()));
        }
        if let Node::Object { class: Class::Known(Global::RebuildOther(kind)), .. } =
            self.pickle.node(*storage)
        {
            return Err(TensorError::Kind((*kind).to_owned()).into());
        }
        let storage = StorageRef::new(self.pickle, self.pickle.node(*storage));
        let (offset, shape) = (self.pickle.size(*offset), sizes(self.pickle, *shape));
        let (Some(storage), Some(offset), Some(shape), Some(strides)) =
            (storage, offset, shape, sizes(self.pickle, *strides))
        else {
            return Err(TensorError::Malformed.into());
        };
        if strides.len() != shape.len() {
            return Err(TensorError::Malformed.into());
        }
        let count = value_count(&shape);
        if !storage.element.is_float() && count != Some(1) {
            return Ok(Loaded::Integers);
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
        let data = data.map_err(|_| TensorError::OutOfStorage(values.len()))?;
        Ok(Loaded::Tensor(HostTensor { data, shape }))
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
        let Node::Class(Class::Known(Global::Storage(element))) = pickle.node(*class) else { return None };
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

    /// The class of a storage whose type is not supported.
    fn other_type<'p>(pickle: &'p Pickle<'_>, id: pickle::Id) -> Option<&'p str> {
        let Node::Persistent(reference) = pickle.node(id) else { return None };
        let [_kind, class, ..] = pickle.items(*reference)? else { return None };
        let Node::Class(class) = pickle.node(*class) else { return None };
        pickle.class_name(*class)
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
