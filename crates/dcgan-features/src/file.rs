//! Feature files: one safetensors file with `labels` u32 `(n)` and `features` f32 or bf16 `(n, width)`, in data order.
//! The header has the names of the classes, a JSON array, where the data has names.
//!
//! Files are written row by row and memory-mapped for reading, so neither needs memory for all features. Files of a
//! cache end with `sha256`, u8 `(32)`, the SHA-256 of the values before it.

use crate::features::{Features, FeaturesError, Precision};
use dcgan_base::files::AtomicFile;
use dcgan_data::{Bytes, DataError};
use half::bf16;
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorInfo};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The key of the class names in the header.
const CLASS_NAMES: &str = "class_names";
/// The tensor of the checksum.
const SHA256: &str = "sha256";
/// Its length.
const SHA256_BYTES: usize = 32;

/// Limit of class indices; memory is allocated for every class.
const MAX_CLASSES: u32 = 1 << 20;

/// Why a feature file was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// An error of the operating system.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The file could not be mapped.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Truncated, damaged, or of another format.
    #[error("{}: not a complete safetensors file: {source}", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: SafeTensorError,
    },
    /// A missing tensor, or a tensor of another type or shape.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// Invalid features.
    #[error("{}: {source}", path.display())]
    Features {
        /// The file.
        path: PathBuf,
        /// The error.
        source: FeaturesError,
    },
    /// Another number of rows than declared.
    #[error("{}: {found} feature vectors were written, expected {expected}", path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// Rows declared.
        expected: usize,
        /// Rows written.
        found: usize,
    },
}

/// Contents of a feature file.
#[derive(Clone, Debug)]
pub struct LabeledFeatures {
    /// One row per image.
    pub features: Features,
    /// One label per image; empty for data without labels.
    pub labels: Vec<u32>,
    /// Names of the classes by number; empty for files of earlier versions and data without names.
    pub class_names: Vec<String>,
    /// Origin of the features (JSON), if the header has one.
    pub origin: Option<String>,
}

/// What a feature file says about its rows.
#[derive(Clone, Copy, Debug)]
pub struct FileSpec<'a> {
    /// Data type (dtype) of the features.
    pub storage: Precision,
    /// Feature vectors, and values of each.
    pub shape: (usize, usize),
    /// One label per vector, if the data has labels.
    pub labels: Option<&'a [u32]>,
    /// Names of the classes by number, if the data has names.
    pub class_names: Option<&'a [String]>,
    /// Origin of the features, for the header.
    pub origin: &'a str,
    /// Whether the file ends with a checksum.
    pub checksum: bool,
}

/// Writer of a feature file that appears under its name when it is complete.
#[derive(Debug)]
pub struct Writer {
    file: AtomicFile,
    storage: Precision,
    width: usize,
    rows: usize,
    written: usize,
    checksum: Option<Sha256>,
}

impl Writer {
    /// Creates a file of the feature vectors that `spec` describes.
    ///
    /// # Errors
    /// The operating system's; another number of labels than rows.
    pub fn create(path: &Path, spec: &FileSpec<'_>) -> Result<Self, FileError> {
        let content = |problem: String| FileError::Content { path: path.into(), problem };
        let FileSpec { storage, shape: (rows, width), labels, class_names, origin, checksum } = *spec;
        let mut header = serde_json::Map::new();
        // The format allows text values under this key.
        let mut metadata = serde_json::Map::new();
        if let (Some(names), Some(_)) = (class_names, labels) {
            metadata.insert(CLASS_NAMES.into(), serde_json::json!(names).to_string().into());
        }
        metadata.insert("origin".into(), origin.into());
        header.insert("__metadata__".into(), metadata.into());
        let mut end = 0;
        let mut tensor = |dtype: &str, shape: &[usize], size: usize| {
            let begin = end;
            end += shape.iter().product::<usize>() * size;
            serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, end] })
        };
        // Labels are known first, and keep the features aligned.
        if let Some(labels) = labels {
            if labels.len() != rows {
                return Err(content(format!(
                    "{} labels for {rows} feature vectors, expected one per vector",
                    labels.len()
                )));
            }
            header.insert("labels".into(), tensor("U32", &[rows], 4));
        }
        let dtype = if storage == Precision::F32 { "F32" } else { "BF16" };
        header.insert("features".into(), tensor(dtype, &[rows, width], storage.bytes()));
        if checksum {
            header.insert(SHA256.into(), tensor("U8", &[SHA256_BYTES], 1));
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');

        let io = |source| FileError::Io { path: path.to_owned(), source };
        let mut file = AtomicFile::create(path).map_err(io)?;
        let labels: Vec<u8> =
            labels.unwrap_or_default().iter().flat_map(|label| label.to_le_bytes()).collect();
        let head = [&(header.len() as u64).to_le_bytes()[..], &header, &labels].concat();
        file.write_all(&head).map_err(io)?;
        let checksum = checksum.then(|| Sha256::new_with_prefix(labels));
        Ok(Self { file, storage, width, rows, written: 0, checksum })
    }

    /// Appends rows, row-major.
    ///
    /// # Errors
    /// The operating system's, such as a full disk.
    pub fn write(&mut self, rows: &[f32]) -> Result<(), FileError> {
        let bytes: Vec<u8> = match self.storage {
            Precision::F32 => rows.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Precision::Bf16 => rows.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
        };
        self.written += rows.len() / self.width.max(1);
        if let Some(checksum) = &mut self.checksum {
            checksum.update(&bytes);
        }
        let result = self.file.write_all(&bytes);
        result.map_err(|source| FileError::Io { path: self.file.path().to_owned(), source })
    }

    /// Flushes the file to the disk and renames it.
    ///
    /// # Errors
    /// Another number of rows than declared; the operating system's.
    pub fn finish(mut self) -> Result<(), FileError> {
        let path = self.file.path().to_owned();
        if self.written != self.rows {
            return Err(FileError::Rows { path, expected: self.rows, found: self.written });
        }
        let checksum = self.checksum.map_or(Ok(()), |checksum| self.file.write_all(&checksum.finalize()));
        checksum.and_then(|()| self.file.commit()).map_err(|source| FileError::Io { path, source })
    }
}

/// Maps the file at `path` and checks types and shapes; values are not read.
///
/// # Errors
/// [`FileError`].
pub fn open(path: &Path) -> Result<LabeledFeatures, FileError> {
    let content = |problem: String| FileError::Content { path: path.into(), problem };
    let bytes = Bytes::map(path)?;
    let (header, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|source| FileError::NotSafetensors { path: path.into(), source })?;
    // `read_metadata` reads the header only; this also checks the length of the file.
    SafeTensors::deserialize(&bytes)
        .map_err(|source| FileError::NotSafetensors { path: path.into(), source })?;
    let start = header + 8;
    let tensors = metadata.tensors();
    let tensor = |name: &str| -> Option<&TensorInfo> { tensors.get(name).copied() };
    let info = tensor("features").ok_or_else(|| content(names("features", &metadata)))?;
    let storage = match info.dtype {
        Dtype::F32 => Precision::F32,
        Dtype::BF16 => Precision::Bf16,
        other => return Err(content(format!("tensor \"features\" is {other:?}, expected F32 or BF16"))),
    };
    let &[rows, width] = info.shape.as_slice() else {
        return Err(content(format!("tensor \"features\" has shape {:?}, expected (n, width)", info.shape)));
    };
    if rows == 0 || width == 0 {
        return Err(content(format!(
            "tensor \"features\" has shape {:?}, expected at least one row and column",
            info.shape
        )));
    }
    let (begin, end) = info.data_offsets;
    let features = Features::from_bytes(bytes.clone(), start + begin..start + end, storage, width)
        .map_err(|source| FileError::Features { path: path.into(), source })?;
    let labels = match tensor("labels") {
        None => Vec::new(),
        Some(info) => labels(info, rows, &bytes[start..]).map_err(content)?,
    };
    let entry = |key: &str| metadata.metadata().as_ref().and_then(|all| all.get(key));
    let class_names = match entry(CLASS_NAMES) {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            content(format!("the header's {CLASS_NAMES} are not a list of names: {error}"))
        })?,
    };
    Ok(LabeledFeatures { features, labels, class_names, origin: entry("origin").cloned() })
}

/// Whether the values of the file at `path` match its checksum; true where it has none.
///
/// # Errors
/// [`FileError`].
pub fn is_whole(path: &Path) -> Result<bool, FileError> {
    let bytes = Bytes::map(path)?;
    let (header, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|source| FileError::NotSafetensors { path: path.into(), source })?;
    let values = bytes.get(header + 8..).unwrap_or_default();
    let Some(info) = metadata.tensors().get(SHA256).copied() else { return Ok(true) };
    let (begin, end) = info.data_offsets;
    let found = values.get(..begin).map(Sha256::digest);
    Ok(found.is_some_and(|found| values.get(begin..end) == Some(found.as_slice())))
}

fn labels(info: &TensorInfo, rows: usize, data: &[u8]) -> Result<Vec<u32>, String> {
    if info.shape != [rows] {
        return Err(format!("tensor \"labels\" has shape {:?}, expected ({rows})", info.shape));
    }
    let (begin, end) = info.data_offsets;
    let data = data.get(begin..end).unwrap_or_default();
    let number = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u32::try_from(u64::from_le_bytes([a, b, c, d, e, f, g, h])).ok(),
        _ => None,
    };
    let size = match info.dtype {
        Dtype::U32 => 4,
        Dtype::I64 | Dtype::U64 => 8, // as numpy and PyTorch write them
        other => return Err(format!("tensor \"labels\" is {other:?}, expected U32, U64 or I64")),
    };
    let labels: Option<Vec<u32>> =
        data.chunks_exact(size).map(|bytes| number(bytes).filter(|&label| label < MAX_CLASSES)).collect();
    labels.ok_or_else(|| format!("tensor \"labels\" has an invalid label, expected 0 to {}", MAX_CLASSES - 1))
}

fn names(missing: &str, metadata: &Metadata) -> String {
    let found: BTreeMap<_, _> = metadata.tensors().into_iter().collect();
    let found: Vec<&str> = found.keys().map(String::as_str).collect();
    format!("missing tensor {missing:?}, found {found:?}; create feature files with `dcgan-eval features`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..15).map(|i| i as f32 / 4.0 - 1.0).collect(); // exact in bf16
        for storage in [Precision::F32, Precision::Bf16] {
            for (labels, names) in [(None, vec![]), (Some(vec![4_u32, 0, 9, 4, 1]), vec!["cat \"x\"", "犬"])]
            {
                let path = folder.path().join("f.safetensors");
                let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
                let spec = FileSpec {
                    storage,
                    shape: (5, 3),
                    labels: labels.as_deref(),
                    class_names: Some(&names),
                    origin: "{\"weights\":1}",
                    checksum: labels.is_some(),
                };
                let mut writer = Writer::create(&path, &spec).unwrap();
                writer.write(&values[..6]).unwrap();
                writer.write(&values[6..]).unwrap();
                writer.finish().unwrap();
                let read = open(&path).unwrap();
                assert_eq!(read.labels, labels.clone().unwrap_or_default());
                assert_eq!(read.class_names, names);
                assert!(is_whole(&path).unwrap());
                let mut bytes = fs::read(&path).unwrap();
                let value = bytes.len() - 1 - if spec.checksum { SHA256_BYTES } else { 0 };
                bytes[value] ^= 1;
                fs::write(&path, bytes).unwrap();
                assert_eq!(is_whole(&path).unwrap(), labels.is_none(), "a flipped bit");
                let mut writer = Writer::create(&path, &spec).unwrap();
                writer.write(&values).unwrap();
                writer.finish().unwrap();
                let read = open(&path).unwrap();
                assert_eq!(read.origin.as_deref(), Some("{\"weights\":1}"));
                assert_eq!((read.features.len(), read.features.storage()), (5, storage));
                assert_eq!(read.features.block(0..5, &mut Vec::new()), values);
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_incomplete_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.safetensors");
        let spec = FileSpec {
            storage: Precision::F32,
            shape: (2, 3),
            labels: None,
            class_names: None,
            origin: "",
            checksum: false,
        };
        let mut writer = Writer::create(&path, &spec).unwrap();
        writer.write(&[0.0; 3]).unwrap();
        assert!(matches!(writer.finish(), Err(FileError::Rows { expected: 2, found: 1, .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn invalid_files_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.safetensors");
        let file = |header: &str, data: usize| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.resize(bytes.len() + data, 0xff);
            bytes
        };
        let rows: &[(Vec<u8>, &str)] = &[
            (vec![], "not a complete safetensors file"),
            (vec![9; 40], "not a complete safetensors file"),
            (
                file(r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4),
                "missing tensor \"features\"",
            ),
            (file(r#"{"features":{"dtype":"F64","shape":[1,1],"data_offsets":[0,8]}}"#, 8), "is F64"),
            (
                file(r#"{"features":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8),
                "expected (n, width)",
            ),
            (
                file(r#"{"features":{"dtype":"F32","shape":[0,2],"data_offsets":[0,0]}}"#, 0),
                "expected at least one row",
            ),
            (file(r#"{"features":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#, 7), "not a complete"),
            (
                file(
                    r#"{"features":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"labels":{"dtype":"U32","shape":[2],"data_offsets":[4,12]}}"#,
                    12,
                ),
                "\"labels\" has shape [2], expected (1)",
            ),
            (
                file(
                    r#"{"features":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"labels":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}}"#,
                    12,
                ),
                "invalid label",
            ),
        ];
        for (bytes, expected) in rows {
            fs::write(&path, bytes).unwrap();
            let found = open(&path).unwrap_err().to_string();
            assert!(found.contains(expected) && found.contains("f.safetensors"), "{found}");
        }
        assert!(open(&folder.path().join("absent")).unwrap_err().to_string().contains("absent"));
    }
}
