//! The files of an import: those named, or those of a folder, where only the newest epoch counts; and their contents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::ImportError;
use super::names::{self, NetworkKind};
use super::state_dict::{ImportedTensor, MAX_KEY, ModuleRef};
use super::{MAX_VALUES, export, joblib, torch};
use crate::ModelConfig;
use crate::weights::{HostTensor, parse_floats};

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 2 << 30;

/// Maximum number of weights files that are read in one folder.
const MAX_FILES: usize = 64;

/// Endings of weights files in a folder.
const ENDINGS: [&str; 8] = ["pth", "pt", "ckpt", "safetensors", "bin", "tar", "pkl", "pickle"];

/// What a file holds.
pub(crate) enum Content {
    /// Tensors by name.
    Tensors(Vec<ImportedTensor>),
    /// The arrays of one network in the order of its layers.
    Arrays(Vec<HostTensor>),
}

/// A weights file.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) content: Content,
    /// The networks that this program wrote into the file.
    pub(crate) config: Option<ModelConfig>,
    /// What was skipped.
    pub(crate) notes: Vec<String>,
    /// The modules of whole networks.
    pub(crate) modules: Vec<ModuleRef>,
}

/// The files to read.
pub(crate) struct Files {
    /// Each with whether it was named, not found in a folder.
    pub(crate) paths: Vec<(PathBuf, bool)>,
    /// Sentences on the choice.
    pub(crate) notes: Vec<String>,
}

/// The files to read for the sources given.
pub(crate) fn files(sources: &[PathBuf]) -> Result<Files, ImportError> {
    let (mut files, mut notes) = (Vec::new(), Vec::new());
    for source in sources {
        if source.is_dir() {
            let (found, note) = in_folder(source)?;
            files.extend(found.into_iter().map(|path| (path, false)));
            notes.extend(note);
        } else {
            files.push((source.clone(), true));
        }
    }
    Ok(Files { paths: files, notes })
}

/// The weights files in a folder: the authors' indices, or else the newest epoch of each series of files.
fn in_folder(folder: &Path) -> Result<(Vec<PathBuf>, Option<String>), ImportError> {
    let indices = joblib::indices(folder)?;
    if indices.iter().any(Option::is_some) {
        return Ok((indices.into_iter().flatten().collect(), None));
    }
    let io_error = |source| ImportError::Io { path: folder.to_owned(), source };
    // Files whose names differ in their last number.
    let mut series: BTreeMap<String, BTreeMap<u64, PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if ENDINGS.contains(&ending.to_ascii_lowercase().as_str()) && path.is_file() {
            let (name, number) = series_name(&path);
            series.entry(name).or_default().insert(number, path);
        }
    }
    if series.is_empty() {
        return Err(ImportError::NoParameterFiles { path: folder.to_owned() });
    }
    let numbered: Vec<&BTreeMap<u64, PathBuf>> = series.values().filter(|files| files.len() > 1).collect();
    let common = numbered
        .iter()
        .map(|files| files.keys().copied().collect::<BTreeSet<_>>())
        .reduce(|a, b| a.intersection(&b).copied().collect())
        .and_then(|common| common.last().copied());
    let note = numbered.iter().map(|files| files.len()).max().map(|most| {
        let chosen: Vec<String> =
            numbered.iter().filter_map(|files| newest(files, common)).map(file_name).collect();
        format!(
            "{} has {most} numbered files of a kind; the newest are taken: {}",
            folder.display(),
            chosen.join(", ")
        )
    });
    let files: Vec<PathBuf> =
        series.values().filter_map(|files| newest(files, common)).map(Path::to_owned).collect();
    if files.len() > MAX_FILES {
        return Err(ImportError::TooManyFiles { path: folder.to_owned(), found: files.len() });
    }
    Ok((files, note))
}

/// The file of the newest number that all series have, or else of the newest number.
fn newest(files: &BTreeMap<u64, PathBuf>, common: Option<u64>) -> Option<&Path> {
    let of_common = common.and_then(|number| files.get(&number));
    of_common.or(files.values().next_back()).map(PathBuf::as_path)
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The name of a file without its last number, and the number: `netG_epoch_#.pth` and 24.
fn series_name(path: &Path) -> (String, u64) {
    let name = file_name(path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let end = stem.rfind(|c: char| c.is_ascii_digit()).map(|last| last + 1);
    let start = end
        .map(|end| stem[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + char_len(&stem, at)));
    match (start, end) {
        (Some(start), Some(end)) if stem[start..end].parse::<u64>().is_ok() => {
            let number = stem[start..end].parse().unwrap_or_default();
            (format!("{}#{}", &name[..start], &name[end..]), number)
        }
        _ => (name, 0),
    }
}

fn char_len(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

/// Reads a file, whose format is detected from its content.
pub(crate) fn read(path: &Path) -> Result<Source, ImportError> {
    parse(path, &read_file(path)?)
}

/// [`read`] for the content of a file; `path` is for error messages and to find the arrays of an index.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Source, ImportError> {
    let source = |content| {
        let (path, notes, modules) = (path.to_owned(), Vec::new(), Vec::new());
        Source { path, content, config: None, notes, modules }
    };
    let of_torch = |file: torch::TorchFile| {
        let mut notes = file.notes;
        if file.is_script {
            let note = if file.tensors.is_empty() {
                "a TorchScript archive without tensors of its own: save net.state_dict() of the module before \
                 torch.jit.script, trace or freeze"
            } else {
                "a TorchScript archive: its tensors are read, its code is not executed"
            };
            notes.push(note.to_owned());
        }
        Source { notes, modules: file.modules, ..source(Content::Tensors(file.tensors)) }
    };
    if bytes.starts_with(b"PK\x03\x04") {
        Ok(of_torch(torch::read_zip(path, bytes)?))
    } else if bytes.starts_with(torch::LEGACY_MAGIC) {
        Ok(of_torch(torch::read_legacy(path, bytes)?))
    } else if bytes.get(8) == Some(&b'{') {
        // The format keeps no order, so tensors are sorted by the numbers in their names.
        let (all, others) = parse_floats(path, bytes)?;
        let count = all.len();
        let tensors = all.into_iter().filter(|(name, _)| name.len() <= MAX_KEY);
        let mut tensors: Vec<ImportedTensor> =
            tensors.map(|(name, tensor)| ImportedTensor { scope: String::new(), name, tensor }).collect();
        tensors.sort_by(|a, b| names::natural_key(&a.name).cmp(&names::natural_key(&b.name)));
        let skipped = (count > tensors.len()).then(|| {
            format!("skipped {} tensors with names of more than {MAX_KEY} bytes", count - tensors.len())
        });
        let other = |(name, dtype): (String, _)| format!("skipped {name}: its type is {dtype}, not a float");
        let notes = others.into_iter().map(other).chain(skipped).collect();
        Ok(Source { config: export::config(bytes), notes, ..source(Content::Tensors(tensors)) })
    } else if matches!(bytes.first(), Some(0x80 | b']' | b'(')) {
        match joblib::read(path, bytes, MAX_VALUES) {
            // A dict of numpy arrays, saved with pickle.dump.
            Err(error @ ImportError::NotArrays { .. }) => match torch::read_pickle_file(path, bytes)? {
                file if file.tensors.is_empty() => Err(error),
                file => Ok(of_torch(file)),
            },
            arrays => Ok(source(Content::Arrays(arrays?))),
        }
    } else {
        Err(ImportError::UnknownFormat { path: path.to_owned() })
    }
}

/// The content of a file of at most [`MAX_BYTES`].
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, ImportError> {
    let io_error = |source| ImportError::Io { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(io_error)?.len();
    if found > MAX_BYTES {
        return Err(ImportError::TooLarge { path: path.to_owned(), found, limit: MAX_BYTES });
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)).map_err(io_error)?;
    Ok(bytes)
}

/// The network that the name of a file suggests.
pub(crate) fn by_file_name(path: &Path) -> Option<NetworkKind> {
    let name = file_name(path);
    // The authors' names start with a number of epochs.
    NetworkKind::from_name(name.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_'))
}
