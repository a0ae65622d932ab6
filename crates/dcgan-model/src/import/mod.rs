//! Import of weights from other programs (safetensors, PyTorch's files, the authors' folder) without executing
//! anything in them, and export under the names of pytorch/examples.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

mod error;
mod export;
mod joblib;
mod names;
mod numpy;
mod pickle;
mod state_dict;
mod strides;
mod torch;

pub use error::{ImportError, TensorError};
pub use export::{StateDict, to_pytorch_names};
pub use names::NetworkKind;
pub use numpy::ArrayError;
pub use pickle::{PickleError, PickleErrorKind};

use names::{Candidate, NamedTensor};
use state_dict::ImportedTensor;

use crate::weights::{TensorSpec, Weights, first_non_finite, parse_safetensors};

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 2 << 30;

/// The most values in one file, 1 GiB as `f32`. A bound is needed because a file can refer to one storage or array any
/// number of times.
const MAX_VALUES: usize = 1 << 28;

/// The tensors that the networks of a model expect, in the order of the layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The generator's tensors.
    pub generator: Vec<TensorSpec>,
    /// The discriminator's tensors.
    pub discriminator: Vec<TensorSpec>,
}

/// The networks of a file of another program, under the names and in the layouts of this program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// The generator, if the file has one.
    pub generator: Option<Weights>,
    /// The discriminator, if the file has one.
    pub discriminator: Option<Weights>,
    /// What was imported and what was skipped, one sentence each.
    pub notes: Vec<String>,
}

/// Reads the networks of a file or of the authors' folder.
///
/// The format is detected from the content: safetensors (this program's names or PyTorch's), a PyTorch file in the zip
/// or the legacy format, a joblib index. A folder is searched for the authors' `*gen_params*.jl` and
/// `*discrim_params*.jl`. Batch-norm statistics are optional, all or none of them: a note says that they are missing.
///
/// # Errors
/// A damaged file, a pickle that refers to anything but tensors, and [`ImportError::Mismatch`] with every mismatch at
/// once if the tensors do not match the model.
pub fn read(src: &Path, expected: &Expected) -> Result<Imported, ImportError> {
    if !src.is_dir() {
        return import_bytes(src, &read_file(src)?, expected);
    }
    let mut import = Import::new(src, expected);
    for path in joblib::indices(src)?.iter().flatten() {
        import.arrays(path, &read_file(path)?)?;
    }
    import.finish()
}

/// [`read`] for the content of one file; `src` is for error messages.
fn import_bytes(src: &Path, bytes: &[u8], expected: &Expected) -> Result<Imported, ImportError> {
    let mut import = Import::new(src, expected);
    if bytes.starts_with(b"PK\x03\x04") {
        import.tensors(torch::read_zip(src, bytes)?);
    } else if bytes.starts_with(torch::LEGACY_MAGIC) {
        import.tensors(torch::read_legacy(src, bytes)?);
    } else if bytes.get(8) == Some(&b'{') {
        import.safetensors(parse_safetensors(src, bytes)?);
    } else if matches!(bytes.first(), Some(0x80 | b']' | b'(')) {
        import.arrays(src, bytes)?;
    } else {
        return Err(ImportError::UnknownFormat { path: src.to_owned() });
    }
    import.finish()
}

/// The content of a file of at most [`MAX_BYTES`].
fn read_file(path: &Path) -> Result<Vec<u8>, ImportError> {
    let io_error = |source| ImportError::Io { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(io_error)?.len();
    if found > MAX_BYTES {
        return Err(ImportError::TooLarge { path: path.to_owned(), found, limit: MAX_BYTES });
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)).map_err(io_error)?;
    Ok(bytes)
}

/// The state of one import.
struct Import<'a> {
    src: &'a Path,
    expected: &'a Expected,
    imported: Imported,
    /// Networks that match neither the generator nor the discriminator.
    mismatched: Vec<Mismatched>,
}

/// A network that matches neither expected network, compared with the one that it resembles more.
struct Mismatched {
    network: NetworkKind,
    location: String,
    error: ImportError,
}

impl<'a> Import<'a> {
    fn new(src: &'a Path, expected: &'a Expected) -> Self {
        Self { src, expected, imported: Imported::default(), mismatched: Vec::new() }
    }

    /// The tensors of a safetensors file. The format keeps no order, so they are sorted by the layer numbers in their
    /// names.
    fn safetensors(&mut self, weights: Weights) {
        let mut tensors: Vec<ImportedTensor> = weights
            .into_iter()
            .map(|(name, tensor)| ImportedTensor { scope: String::new(), name, tensor })
            .collect();
        tensors.sort_by(|a, b| names::natural_key(&a.name).cmp(&names::natural_key(&b.name)));
        self.tensors(tensors);
    }

    /// Tensors by name, of one network or of several.
    fn tensors(&mut self, tensors: Vec<ImportedTensor>) {
        let mut scopes: BTreeMap<String, Vec<ImportedTensor>> = BTreeMap::new();
        for tensor in tensors {
            scopes.entry(tensor.scope.clone()).or_default().push(tensor);
        }
        for (scope, tensors) in &scopes {
            let named: Vec<NamedTensor> =
                tensors.iter().map(|tensor| (tensor.name.as_str(), &tensor.tensor)).collect();
            let all: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
            let prefixes = names::split_prefixes(&all);
            if prefixes.is_empty() {
                self.network(&location(scope, names::common_prefix(&all)), &named);
            }
            for prefix in prefixes {
                let has_prefix =
                    |name: &str| name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('.'));
                let named: Vec<NamedTensor> =
                    named.iter().filter(|(name, _)| has_prefix(name)).copied().collect();
                self.network(&location(scope, &prefix), &named);
            }
        }
    }

    /// Tensors that belong together: a network if there is a convolution among them.
    fn network(&mut self, location: &str, tensors: &[NamedTensor]) {
        let layers = names::linear_shapes(tensors);
        if layers.is_empty() {
            let names: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
            self.imported.notes.push(format!("skipped {} in {location}: not a network", short_list(&names)));
            return;
        }
        let candidate = |expected| names::match_tensors(tensors, expected);
        let (g, d) = (candidate(&self.expected.generator), candidate(&self.expected.discriminator));
        self.choose(location, layers, g, d);
    }

    /// The arrays of one network in the order of its layers.
    fn arrays(&mut self, path: &Path, bytes: &[u8]) -> Result<(), ImportError> {
        let arrays = joblib::read(path, bytes, MAX_VALUES)?;
        let layers = arrays.iter().map(|array| array.shape.clone()).filter(|shape| shape.len() > 1).collect();
        let location = path.file_name().unwrap_or_default().to_string_lossy();
        let candidate = |expected| joblib::match_arrays(&arrays, expected);
        let (g, d) = (candidate(&self.expected.generator), candidate(&self.expected.discriminator));
        self.choose(&location, layers, g, d);
        Ok(())
    }

    /// Takes the network as the generator or as the discriminator, whichever matches. If neither does, the error
    /// compares it with the one that its name says, or else with the one that has fewer mismatches.
    fn choose(&mut self, location: &str, layers: Vec<Vec<usize>>, g: Candidate, d: Candidate) {
        let by_name =
            NetworkKind::from_name(location.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_'));
        let (network, candidate) = match (g.mismatches.len(), d.mismatches.len(), by_name) {
            (0, 1.., _) => (NetworkKind::Generator, g),
            (1.., 0, _) => (NetworkKind::Discriminator, d),
            (_, _, Some(NetworkKind::Generator)) => (NetworkKind::Generator, g),
            (_, _, Some(NetworkKind::Discriminator)) => (NetworkKind::Discriminator, d),
            (in_g, in_d, None) if in_g <= in_d => (NetworkKind::Generator, g),
            _ => (NetworkKind::Discriminator, d),
        };
        if candidate.mismatches.is_empty() {
            self.accept(location, network, candidate.weights);
        } else {
            let error = ImportError::Mismatch {
                path: self.src.to_owned(),
                location: location.to_owned(),
                network,
                mismatches: candidate.mismatches,
                layers,
            };
            self.mismatched.push(Mismatched { network, location: location.to_owned(), error });
        }
    }

    fn accept(&mut self, location: &str, network: NetworkKind, weights: Weights) {
        let Imported { generator, discriminator, notes } = &mut self.imported;
        let (slot, expected) = match network {
            NetworkKind::Generator => (generator, &self.expected.generator),
            NetworkKind::Discriminator => (discriminator, &self.expected.discriminator),
        };
        if slot.is_some() {
            notes.push(format!("skipped {location}: the file has another {network} before it"));
            return;
        }
        notes.push(format!("{network}: {} tensors from {location}", weights.len()));
        if expected.iter().any(|spec| spec.optional && !weights.contains_key(&spec.name)) {
            notes.push(format!("{network}: no batch-norm statistics in the file; recalibrate them"));
        }
        if let Some(name) = first_non_finite(&weights) {
            notes.push(format!("{network}: {name} contains NaN or infinity"));
        }
        *slot = Some(weights);
    }

    /// The imported networks. A network that matches neither expected network is an error, unless another one of its
    /// kind was imported.
    fn finish(self) -> Result<Imported, ImportError> {
        let Self { src, mut imported, mismatched, .. } = self;
        for Mismatched { network, location, error } in mismatched {
            let is_imported = match network {
                NetworkKind::Generator => imported.generator.is_some(),
                NetworkKind::Discriminator => imported.discriminator.is_some(),
            };
            if !is_imported {
                return Err(error);
            }
            imported.notes.push(format!("skipped {location}: it does not match the model"));
        }
        if imported.generator.is_none() && imported.discriminator.is_none() {
            let found =
                if imported.notes.is_empty() { "no tensors".to_owned() } else { imported.notes.join("; ") };
            return Err(ImportError::NoNetwork { path: src.to_owned(), found });
        }
        Ok(imported)
    }
}

/// The location of a network in a file, for messages: `checkpoint/netG/module.main`.
fn location(scope: &str, prefix: &str) -> String {
    match (scope, prefix.trim_end_matches('.')) {
        ("", "") => "the file".to_owned(),
        ("", prefix) => prefix.to_owned(),
        (scope, "") => scope.to_owned(),
        (scope, prefix) => format!("{scope}/{prefix}"),
    }
}

/// The first three names and the number of the others.
fn short_list(names: &[&str]) -> String {
    match names {
        [a, b, c, _, ..] => format!("{a}, {b}, {c} and {} more", names.len() - 3),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests;
