//! Weights that people already have: safetensors, PyTorch's files and the authors' folder, read without executing
//! anything in them, and our weights under the names of pytorch/examples.

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
mod strided;
mod torch;
mod tree;

pub use error::{ImportError, TensorFault};
pub use export::{Exported, to_pytorch_names};
pub use names::Side;
pub use numpy::ArrayFault;
pub use pickle::{PickleError, PickleFault};

use names::{Fitted, Named};
use tree::Found;

use crate::weights::{TensorSpec, Weights, first_non_finite, parse_safetensors};

/// The largest file that is read.
const MAX_BYTES: u64 = 2 << 30;

/// Values in one file, 1 GiB of them as `f32`; a file may name one storage or array again and again.
const MAX_VALUES: usize = 1 << 28;

/// What the networks asked for expect: every tensor in the order of the layers, under our names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The generator's tensors.
    pub generator: Vec<TensorSpec>,
    /// The discriminator's tensors.
    pub discriminator: Vec<TensorSpec>,
}

/// What a file of another program holds, under our names and in our layouts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// The generator, where there is one.
    pub generator: Option<Weights>,
    /// The discriminator, where there is one.
    pub discriminator: Option<Weights>,
    /// What was found and what was left out, a sentence each.
    pub notes: Vec<String>,
}

/// Reads the networks of a file or of the authors' folder.
///
/// The form is told from the content: safetensors (our names or PyTorch's), a PyTorch file in zip or legacy form, a
/// joblib index; a folder is searched for the authors' `*gen_params*.jl` and `*discrim_params*.jl`.
/// Batch-norm statistics may be absent, all of them together: a note says so.
///
/// # Errors
/// A damaged file, a pickle that names anything but tensors, and [`ImportError::Mismatch`] where the tensors do not
/// fit, with every fault at once.
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

/// [`import`] of one file that was read already.
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
        return Err(ImportError::UnknownForm { path: src.to_owned() });
    }
    import.finish()
}

/// A whole file, unless it is larger than any file of weights.
fn read_file(path: &Path) -> Result<Vec<u8>, ImportError> {
    let failed = |source| ImportError::Io { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(failed)?.len();
    if found > MAX_BYTES {
        return Err(ImportError::TooLarge { path: path.to_owned(), found, limit: MAX_BYTES });
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

/// An import under way.
struct Import<'a> {
    src: &'a Path,
    expected: &'a Expected,
    imported: Imported,
    /// Networks that fit neither side.
    misfits: Vec<ImportError>,
}

impl<'a> Import<'a> {
    fn new(src: &'a Path, expected: &'a Expected) -> Self {
        Self { src, expected, imported: Imported::default(), misfits: Vec::new() }
    }

    /// Tensors of a safetensors file, which keeps no order: layers are numbered in every program's names.
    fn safetensors(&mut self, weights: Weights) {
        let mut found: Vec<Found> =
            weights.into_iter().map(|(name, tensor)| Found { place: String::new(), name, tensor }).collect();
        found.sort_by(|a, b| names::natural_key(&a.name).cmp(&names::natural_key(&b.name)));
        self.tensors(found);
    }

    /// Tensors by name, of one network or of several.
    fn tensors(&mut self, found: Vec<Found>) {
        let mut places: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        for tensor in found {
            places.entry(tensor.place.clone()).or_default().push(tensor);
        }
        for (place, found) in &places {
            let named: Vec<Named> = found.iter().map(|found| (found.name.as_str(), &found.tensor)).collect();
            let all: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
            let prefixes = names::split_prefixes(&all);
            if prefixes.is_empty() {
                self.network(&join(place, names::common_prefix(&all)), &named);
            }
            for prefix in prefixes {
                let below = |name: &str| name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('.'));
                let named: Vec<Named> = named.iter().filter(|(name, _)| below(name)).copied().collect();
                self.network(&join(place, &prefix), &named);
            }
        }
    }

    /// What may be one network: told apart by its shapes.
    fn network(&mut self, place: &str, named: &[Named]) {
        let layers = names::linear_shapes(named);
        if layers.is_empty() {
            let tensors: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
            self.imported.notes.push(format!("left out {} in {place}: not a network", short_list(&tensors)));
            return;
        }
        let fits = |expected| names::fit(named, expected);
        self.choose(place, layers, fits(&self.expected.generator), fits(&self.expected.discriminator));
    }

    /// Arrays in the order of the layers, of one network.
    fn arrays(&mut self, path: &Path, bytes: &[u8]) -> Result<(), ImportError> {
        let arrays = joblib::read(path, bytes, MAX_VALUES)?;
        let fits = |expected| joblib::fit(&arrays, expected);
        let layers = arrays.iter().map(|array| array.shape.clone()).filter(|shape| shape.len() > 1).collect();
        let place = path.file_name().unwrap_or_default().to_string_lossy();
        self.choose(&place, layers, fits(&self.expected.generator), fits(&self.expected.discriminator));
        Ok(())
    }

    /// Takes the side that fits; where neither does, keeps the error of the one that is nearer.
    fn choose(&mut self, place: &str, layers: Vec<Vec<usize>>, g: Fitted, d: Fitted) {
        let called = Side::called(place.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_'));
        let (side, fitted) = match (g.faults.len(), d.faults.len(), called) {
            (0, 1.., _) => (Side::Generator, g),
            (1.., 0, _) => (Side::Discriminator, d),
            (_, _, Some(Side::Generator)) => (Side::Generator, g),
            (_, _, Some(Side::Discriminator)) => (Side::Discriminator, d),
            (g_faults, d_faults, None) if g_faults <= d_faults => (Side::Generator, g),
            _ => (Side::Discriminator, d),
        };
        if fitted.faults.is_empty() {
            self.take(place, side, fitted.weights);
        } else {
            self.misfits.push(ImportError::Mismatch {
                path: self.src.to_owned(),
                place: place.to_owned(),
                side,
                faults: fitted.faults,
                layers,
            });
        }
    }

    fn take(&mut self, place: &str, side: Side, weights: Weights) {
        let Imported { generator, discriminator, notes } = &mut self.imported;
        let (slot, expected) = match side {
            Side::Generator => (generator, &self.expected.generator),
            Side::Discriminator => (discriminator, &self.expected.discriminator),
        };
        if slot.is_some() {
            notes.push(format!("left out {place}: another {side} came before it"));
            return;
        }
        notes.push(format!("{side}: {} tensors from {place}", weights.len()));
        if expected.iter().any(|spec| spec.optional && !weights.contains_key(&spec.name)) {
            notes.push(format!("{side}: no batch-norm statistics in the file; they have to be recalibrated"));
        }
        if let Some(name) = first_non_finite(&weights) {
            notes.push(format!("{side}: {name} holds values that are not finite"));
        }
        *slot = Some(weights);
    }

    /// What was found; a network that fits neither side is an error unless its side was found elsewhere.
    fn finish(self) -> Result<Imported, ImportError> {
        let Self { src, mut imported, misfits, .. } = self;
        for misfit in misfits {
            let filled = match &misfit {
                ImportError::Mismatch { side: Side::Generator, .. } => imported.generator.is_some(),
                _ => imported.discriminator.is_some(),
            };
            match misfit {
                ImportError::Mismatch { place, .. } if filled => {
                    imported.notes.push(format!("left out {place}: it does not fit the networks asked for"));
                }
                misfit => return Err(misfit),
            }
        }
        if imported.generator.is_none() && imported.discriminator.is_none() {
            let found =
                if imported.notes.is_empty() { "no tensors".to_owned() } else { imported.notes.join("; ") };
            return Err(ImportError::NoNetwork { path: src.to_owned(), found });
        }
        Ok(imported)
    }
}

/// Where a network stands in a file: `checkpoint/netG, prefix module.main`.
fn join(place: &str, prefix: &str) -> String {
    match (place, prefix.trim_end_matches('.')) {
        ("", "") => "the file".to_owned(),
        ("", prefix) => prefix.to_owned(),
        (place, "") => place.to_owned(),
        (place, prefix) => format!("{place}/{prefix}"),
    }
}

/// The first names and how many more there are.
fn short_list(names: &[&str]) -> String {
    match names {
        [a, b, c, _, ..] => format!("{a}, {b}, {c} and {} more", names.len() - 3),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests;
