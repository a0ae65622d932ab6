//! Import of weights from other programs (safetensors, PyTorch's files, the authors' folder) without executing
//! anything in them, and export to PyTorch.
//!
//! `sources` reads files; `groups` divides their tensors into networks, by the shapes of the layers (`chain`), and
//! folds spectral norm and weight norm (`reparametrize`); `layers` finds the layers of each; `infer` derives the
//! configuration from them (`geometry` the strides, `modules` what saved modules say); `matching` compares them with
//! the tensors of the model.

use std::path::{Path, PathBuf};

mod adapt;
mod chain;
mod error;
mod export;
mod geometry;
mod groups;
mod infer;
mod joblib;
mod layers;
mod matching;
mod modules;
mod names;
mod numpy;
mod pickle;
mod reparametrize;
mod sources;
mod state_dict;
mod strides;
mod torch;

pub use error::{ImportError, TensorError};
pub use export::{PYTORCH_NETWORKS, StateDict, to_pytorch, to_pytorch_names};
pub use names::NetworkKind;
pub use numpy::ArrayError;
pub use pickle::{PickleError, PickleErrorKind};

use groups::{Group, GroupContent};
use layers::FileNetwork;
use matching::Candidate;
use sources::{Content, Source};
use state_dict::ImportedTensor;

use crate::weights::{HostTensor, TensorSpec, Weights, non_finite};
use crate::{Model, ModelConfig};

/// Maximum number of values in one file, 1 GiB as `f32`. A bound is needed because a file can refer to one storage or
/// array any number of times.
const MAX_VALUES: usize = 1 << 28;

/// The tensors that the networks of a model expect, in the order of the layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The generator's tensors.
    pub generator: Vec<TensorSpec>,
    /// The discriminator's tensors.
    pub discriminator: Vec<TensorSpec>,
}

impl Expected {
    /// The tensors of the networks of `model`.
    pub fn of(model: &Model) -> Self {
        Self { generator: model.generator_tensors(), discriminator: model.discriminator_tensors() }
    }
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

/// How to import.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImportOptions<'a> {
    /// The networks; inferred from the tensors if there are none.
    pub model: Option<&'a Model>,
    /// Height and width of the images, where the tensors leave them open.
    pub size: Option<(usize, usize)>,
    /// Whether NaN and infinity are imported as they are, with a note.
    pub allow_non_finite: bool,
}

/// Reads the networks of a file or of a folder for a model that is known.
///
/// The format is detected from the content: safetensors (this program's names or PyTorch's), a PyTorch file in the zip
/// or the legacy format, a joblib index. In a folder, the authors' `*gen_params*.jl` and `*discrim_params*.jl` are
/// read, or the newest of all weights files. Batch norm statistics are optional, all or none of them: a note says that
/// they are missing. NaN and infinity are imported, with a note.
///
/// # Errors
/// A damaged file, two files of one network, and [`ImportError::Mismatch`] with every mismatch at once if the tensors
/// do not match the model.
pub fn read(src: &Path, expected: &Expected) -> Result<Imported, ImportError> {
    let (sources, notes) = read_sources(&[src.to_owned()])?;
    let mut import = Import::new(src, expected, true);
    import.imported.notes = notes;
    import.sources(sources)
}

/// Reads all tensors of a file by name, whatever network they are of: safetensors, a PyTorch file in the zip or the
/// legacy format, a TorchScript archive. Keys of enclosing dicts are joined by `/` in front of the name.
///
/// # Errors
/// A file that cannot be read, is damaged, or has arrays without names.
pub fn tensors(path: &Path) -> Result<Vec<(String, HostTensor)>, ImportError> {
    match sources::read(path)?.content {
        sources::Content::Tensors(tensors) => {
            let name = |tensor: &ImportedTensor| match tensor.scope.as_str() {
                "" => tensor.name.clone(),
                scope => format!("{scope}/{}", tensor.name),
            };
            Ok(tensors.into_iter().map(|tensor| (name(&tensor), tensor.tensor)).collect())
        }
        sources::Content::Arrays(_) => Err(ImportError::UnknownFormat { path: path.to_owned() }),
    }
}

/// Reads the networks of files and folders, in any order, and infers the model if it is not given: from the metadata
/// that an export of this program wrote, or else from the tensors.
///
/// # Errors
/// Those of [`read`]; [`ImportError::Layout`] if the tensors do not decide; [`ImportError::NonFinite`].
pub fn read_model(
    sources: &[PathBuf],
    options: &ImportOptions<'_>,
) -> Result<(Model, Imported), ImportError> {
    let first = sources.first().map_or(Path::new(""), PathBuf::as_path);
    let (sources, notes) = read_sources(sources)?;
    model_of(first, sources, notes, options)
}

/// [`read_model`] for the contents of files; `first` is for error messages, and `notes` are on the choice of the files.
fn model_of(
    first: &Path,
    sources: Vec<Source>,
    mut notes: Vec<String>,
    options: &ImportOptions<'_>,
) -> Result<(Model, Imported), ImportError> {
    let mut import_notes = Vec::new();
    let stored = match options.model {
        Some(_) => None,
        None => stored_config(&sources)?,
    };
    let known = match (options.model, stored) {
        (Some(model), _) => Some(model.clone()),
        (None, Some((path, config))) => {
            notes.push("the configuration of the networks is stored in the file".to_owned());
            let problem = |error: crate::ConfigError| error.to_string();
            let layout = |problem| ImportError::Layout { path, problem };
            Some(Model::new(config).map_err(|error| layout(problem(error)))?)
        }
        (None, None) => None,
    };
    let mut groups = Vec::new();
    for source in sources {
        import_notes.extend(source.notes.clone());
        groups.extend(groups::groups(source, &mut import_notes)?);
    }
    let is_inferred = known.is_none();
    let groups = groups::select(groups, &mut import_notes)?;
    let model = match known {
        Some(model) => {
            import_notes.extend(adapt::differences(model.config(), &groups));
            match adapt::with_biases(&model, &groups) {
                Some((model, changes)) => {
                    import_notes.extend(changes);
                    model
                }
                None => model,
            }
        }
        None => {
            let (model, inferred) = infer(first, &groups, options.size, &import_notes)?;
            import_notes.extend(inferred);
            model
        }
    };
    notes.extend(import_notes);
    let expected = Expected::of(&model);
    let mut import = Import::new(first, &expected, options.allow_non_finite);
    import.is_inferred = is_inferred;
    import.imported.notes = notes;
    for group in &groups {
        import.group(group)?;
    }
    Ok((model.clone(), import.finish()?))
}

/// The contents of files. A file of a folder that is in no known format or has no tensors is skipped with a note, and
/// so are arrays without names beside named tensors, such as a list of losses.
fn read_sources(paths: &[PathBuf]) -> Result<(Vec<Source>, Vec<String>), ImportError> {
    let sources::Files { paths, mut notes } = sources::files(paths)?;
    let mut sources = Vec::new();
    for (path, is_named) in paths {
        match sources::read(&path) {
            Err(ImportError::UnknownFormat { path } | ImportError::NotArrays { path }) if !is_named => {
                notes.push(format!("skipped {}: not a weights file", sources::file_name(&path)));
            }
            source => sources.push((source?, is_named)),
        }
    }
    let has_tensors = |source: &Source| match &source.content {
        Content::Tensors(tensors) => !tensors.is_empty(),
        Content::Arrays(_) => false,
    };
    if sources.iter().any(|(source, _)| has_tensors(source)) {
        sources.retain(|(source, is_named)| {
            let keeps = *is_named || has_tensors(source);
            if !keeps {
                let name = sources::file_name(&source.path);
                notes.push(format!("skipped {name}: no named tensors, which other files have"));
            }
            keeps
        });
    }
    Ok((sources.into_iter().map(|(source, _)| source).collect(), notes))
}

/// The configuration that an export of this program stored in the files; `None` unless every file has one.
fn stored_config(sources: &[Source]) -> Result<Option<(PathBuf, ModelConfig)>, ImportError> {
    let stored: Option<Vec<(&Path, &ModelConfig)>> =
        sources.iter().map(|source| Some((source.path.as_path(), source.config.as_ref()?))).collect();
    let Some([(path, config), rest @ ..]) = stored.as_deref() else { return Ok(None) };
    if let Some((other, _)) = rest.iter().find(|(_, other)| other != config) {
        let problem = format!("its networks are not those of {}: import each alone", other.display());
        return Err(ImportError::Layout { path: path.to_path_buf(), problem });
    }
    Ok(Some((path.to_path_buf(), (*config).clone())))
}

/// The model that the shapes of the layers describe.
fn infer(
    path: &Path,
    groups: &[Group],
    size: Option<(usize, usize)>,
    notes: &[String],
) -> Result<(Model, Vec<String>), ImportError> {
    if let Some(group) = groups.iter().find(|group| matches!(group.content, GroupContent::Arrays(_))) {
        return Err(ImportError::NeedsModel { path: group.path.clone() });
    }
    let (mut generator, mut discriminator): (Option<(&Group, FileNetwork)>, _) = (None, None);
    for group in groups {
        let network = FileNetwork::new(&group.named(), group.by_name);
        let slot = match network.kind {
            Some(NetworkKind::Generator) => &mut generator,
            Some(NetworkKind::Discriminator) => &mut discriminator,
            None => {
                let problem =
                    format!("{} is neither network of a DCGAN: {}", group.location, shapes(&network));
                return Err(ImportError::Layout { path: group.path.clone(), problem });
            }
        };
        if let (Some((other, _)), Some(network)) = (slot.as_ref(), network.kind) {
            let (first, second) = (other.path.clone(), group.path.clone());
            return Err(ImportError::SameNetwork { network, first, second });
        }
        *slot = Some((group, network));
    }
    let Some((group, _)) = generator.as_ref().or(discriminator.as_ref()) else {
        return Err(no_network(path, notes));
    };
    let layout = |problem| ImportError::Layout { path: group.path.clone(), problem };
    let (config, notes) =
        infer::config(generator.as_ref().map(with_modules), discriminator.as_ref().map(with_modules), size)
            .map_err(layout)?;
    Ok((Model::new(config).map_err(|error| layout(error.to_string()))?, notes))
}

fn with_modules<'a, 'n>((group, network): &'n (&'a Group, FileNetwork<'a>)) -> infer::Parts<'a, 'n> {
    (network, &group.modules)
}

/// The shapes of the weights of a network, for messages.
fn shapes(network: &FileNetwork) -> String {
    let shapes = network.layers.iter().filter_map(|layer| layer.weight);
    let shapes: Vec<String> = shapes.take(12).map(|t| crate::weights::Shape(&t.shape).to_string()).collect();
    format!("its weights are {}", shapes.join(", "))
}

fn no_network(path: &Path, notes: &[String]) -> ImportError {
    let found = if notes.is_empty() { "no tensors".to_owned() } else { notes.join("; ") };
    ImportError::NoNetwork { path: path.to_owned(), found }
}

/// The state of one import.
struct Import<'a> {
    src: &'a Path,
    expected: &'a Expected,
    allow_non_finite: bool,
    /// Whether the model comes from the tensors themselves.
    is_inferred: bool,
    imported: Imported,
    /// The file of each network.
    taken: Vec<(NetworkKind, PathBuf)>,
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
    fn new(src: &'a Path, expected: &'a Expected, allow_non_finite: bool) -> Self {
        let (imported, taken, mismatched) = (Imported::default(), Vec::new(), Vec::new());
        Self { src, expected, allow_non_finite, is_inferred: false, imported, taken, mismatched }
    }

    /// Every network of the files.
    fn sources(mut self, sources: Vec<Source>) -> Result<Imported, ImportError> {
        let mut notes = Vec::new();
        let mut groups = Vec::new();
        for source in sources {
            notes.extend(source.notes.clone());
            groups.extend(groups::groups(source, &mut notes)?);
        }
        let groups = groups::select(groups, &mut notes)?;
        self.imported.notes.extend(notes);
        for group in &groups {
            self.group(group)?;
        }
        self.finish()
    }

    /// One network of a file.
    fn group(&mut self, group: &Group) -> Result<(), ImportError> {
        let Expected { generator, discriminator } = self.expected;
        let (layers, kind, g, d) = match &group.content {
            GroupContent::Arrays(arrays) => {
                let layers = arrays.iter().map(|array| array.shape.clone()).filter(|shape| shape.len() > 1);
                let candidate = |expected| joblib::match_arrays(arrays, expected);
                (layers.collect(), None, candidate(generator), candidate(discriminator))
            }
            GroupContent::Tensors(_) => {
                let named = group.named();
                let network = FileNetwork::new(&named, group.by_name);
                if let Some((norm, convolution)) = network.norm_behind_activation() {
                    let problem = format!(
                        "the batch norm {norm} is not next to its convolution {convolution} but to the next one: \
                         networks with the activation before batch norm cannot be imported"
                    );
                    return Err(ImportError::Layout { path: group.path.clone(), problem });
                }
                let layers = network.layers.iter().filter_map(|layer| layer.weight);
                let native = matching::native(&named);
                let candidate = |expected| match &native {
                    Some(tensors) => matching::match_native(tensors.clone(), expected),
                    None => matching::match_layers(&network, expected),
                };
                let layers = layers.map(|tensor| tensor.shape.clone()).collect();
                (layers, network.kind, candidate(generator), candidate(discriminator))
            }
        };
        self.choose(group, layers, kind, g, d)
    }

    /// Takes the network as the generator or as the discriminator, whichever matches. If neither does, the error
    /// compares it with the one that its shapes or its name say, or else with the one that has fewer mismatches.
    fn choose(
        &mut self,
        group: &Group,
        layers: Vec<Vec<usize>>,
        kind: Option<NetworkKind>,
        g: Candidate,
        d: Candidate,
    ) -> Result<(), ImportError> {
        let (network, candidate) = match (g.mismatches.len(), d.mismatches.len(), kind.or(group.by_name)) {
            (0, 1.., _) => (NetworkKind::Generator, g),
            (1.., 0, _) => (NetworkKind::Discriminator, d),
            (_, _, Some(NetworkKind::Generator)) => (NetworkKind::Generator, g),
            (_, _, Some(NetworkKind::Discriminator)) => (NetworkKind::Discriminator, d),
            (in_g, in_d, None) if in_g <= in_d => (NetworkKind::Generator, g),
            _ => (NetworkKind::Discriminator, d),
        };
        if candidate.mismatches.is_empty() {
            return self.accept(group, network, candidate);
        }
        let layers = if self.is_inferred { Vec::new() } else { layers };
        let error = ImportError::Mismatch {
            path: group.path.clone(),
            location: group.location.clone(),
            network,
            mismatches: candidate.mismatches,
            layers,
        };
        self.mismatched.push(Mismatched { network, location: group.location.clone(), error });
        Ok(())
    }

    fn accept(
        &mut self,
        group: &Group,
        network: NetworkKind,
        candidate: Candidate,
    ) -> Result<(), ImportError> {
        let Candidate { weights, names, notes: changes, .. } = candidate;
        let location = &group.location;
        if let Some((_, first)) = self.taken.iter().find(|(taken, _)| *taken == network) {
            if *first != group.path {
                let (first, second) = (first.clone(), group.path.clone());
                return Err(ImportError::SameNetwork { network, first, second });
            }
            self.imported.notes.push(format!("skipped {location}: the file has another {network} before it"));
            return Ok(());
        }
        let Imported { generator, discriminator, notes } = &mut self.imported;
        let (slot, expected) = match network {
            NetworkKind::Generator => (generator, &self.expected.generator),
            NetworkKind::Discriminator => (discriminator, &self.expected.discriminator),
        };
        // The first source is the one that the command names.
        let of_file = match group.path == self.src {
            true => String::new(),
            false => format!(" of {}", sources::file_name(&group.path)),
        };
        notes.push(format!("{network}: {} tensors from {location}{of_file}", weights.len()));
        notes.extend(changes.into_iter().map(|change| format!("{network}: {change}")));
        if expected.iter().any(|spec| spec.optional && !weights.contains_key(&spec.name)) {
            notes.push(format!("{network}: no batch norm statistics in the file; recalibrate them"));
        }
        let in_file = |name: &str| names.get(name).cloned().unwrap_or_else(|| name.to_owned());
        let damaged: Vec<(String, usize)> =
            non_finite(&weights).into_iter().map(|(name, count)| (in_file(name), count)).collect();
        if let Some((name, _)) = damaged.first() {
            if !self.allow_non_finite {
                return Err(ImportError::NonFinite { path: group.path.clone(), network, tensors: damaged });
            }
            notes.push(format!("{network}: {name} contains NaN or infinity"));
        }
        *slot = Some(weights);
        self.taken.push((network, group.path.clone()));
        Ok(())
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
            return Err(no_network(src, &imported.notes));
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
