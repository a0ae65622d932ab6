//! Sets of z: drawn by seed, read from files, selected by index; and their images.
//!
//! In a set for a conditional model, each z is followed by its label vector. G reads both as one vector, so means,
//! arithmetic and interpolation work on both alike: within a class and between classes.

use crate::interpolation::to_f32;
use dcgan_model::random::{self, Purpose};
use dcgan_model::weights::{self, HostTensor, Precision, Weights, WeightsError};
use dcgan_model::{Classes, Distribution, Generator, Latents, ModelConfig, NetworkError};
use dcgan_ops::Maps;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Name of the tensor in a file of z.
const TENSOR: &str = "z";
/// Name of the tensor of label vectors `(n, classes)` in it, for conditional models.
const LABELS: &str = "labels";
/// A smaller bound would redraw a value hundreds of times.
const MIN_BOUND: f32 = 0.01;

/// Why z are invalid or could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LatentError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] WeightsError),
    /// A file without z, or with other tensors.
    #[error(
        "{}: expected one tensor z of shape (n, size), and for conditional models labels of shape (n, classes), \
         found {found}",
        path.display()
    )]
    NotLatents {
        /// The file.
        path: PathBuf,
        /// Its tensors.
        found: String,
    },
    /// A value that is NaN or infinite.
    #[error("{what}: value {column} of z {row} is {value}, expected a finite number")]
    NotFinite {
        /// The source of the z.
        what: String,
        /// Which z, from 0.
        row: usize,
        /// Which of its values, from 0.
        column: usize,
        /// The value.
        value: String,
    },
    /// z of another size than the model's.
    #[error(
        "{what} has z of size {found}, the model takes {expected}: name the model of this z, or use z of this model"
    )]
    Size {
        /// The source of the z.
        what: String,
        /// Size of the model's z.
        expected: usize,
        /// Size found.
        found: usize,
    },
    /// z without label vectors for a conditional model.
    #[error("{what} has no classes, which this conditional model takes: append @CLASS")]
    NoClasses {
        /// The source of the z.
        what: String,
    },
    /// Label vectors of another number of classes than the model's.
    #[error(
        "{what} has {found} classes, the model has {expected}: name the model of this z, or use z of this model"
    )]
    Classes {
        /// The source of the z.
        what: String,
        /// Classes of the model.
        expected: usize,
        /// Classes found.
        found: usize,
    },
    /// A class that the model does not have.
    #[error("{0}")]
    UnknownClass(String),
    /// An index out of range.
    #[error("{what}: there is no z {row}, expected an index from 0 to {}", len.saturating_sub(1))]
    OutOfRange {
        /// The source of the z.
        what: String,
        /// The index.
        row: usize,
        /// Number of z.
        len: usize,
    },
    /// No z at all.
    #[error("{what}: no z, expected at least one")]
    Empty {
        /// The source of the z.
        what: String,
    },
    /// Values that are not whole z.
    #[error("found {len} values, expected a multiple of the size of z, {size}")]
    Ragged {
        /// Number of values.
        len: usize,
        /// Size of z.
        size: usize,
    },
    /// Truncation of uniform z.
    #[error("expected a model with normal z; the z of this model are uniform in [-1, 1]")]
    UniformBound,
    /// An invalid bound.
    #[error("the bound is {bound} standard deviations, expected at least {MIN_BOUND}")]
    Bound {
        /// The bound.
        bound: f32,
    },
    /// The generator failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Text that cannot be parsed.
    #[error(
        "{text:?}: expected FILE, FILE:i,j,k or seed:S:i,j,k, with indices from 0, and for conditional models @CLASS \
         after it"
    )]
    Syntax {
        /// The text.
        text: String,
    },
}

/// A set of z that a command reads, computes or saves: one or more of one size, `(n, size)`, on the host; all values
/// finite.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentSet {
    /// Values of a row: of a z, and of its label vector.
    size: usize,
    /// How many of them are of the label vector.
    classes: usize,
    values: Vec<f32>,
}

impl LatentSet {
    /// `values` `(n, size)`, row-major; errors name `what` as their source.
    ///
    /// # Errors
    /// No values; values that are not whole z; a value that is not finite.
    pub fn new(values: Vec<f32>, size: usize, what: &str) -> Result<Self, LatentError> {
        if values.is_empty() {
            return Err(LatentError::Empty { what: what.to_owned() });
        }
        if size == 0 || !values.len().is_multiple_of(size) {
            return Err(LatentError::Ragged { len: values.len(), size });
        }
        if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
            return Err(LatentError::NotFinite {
                what: what.to_owned(),
                row: bad / size,
                column: bad % size,
                value: values[bad].to_string(),
            });
        }
        Ok(Self { size, classes: 0, values })
    }

    /// Other rows for the same model; errors name `what` as their source.
    ///
    /// # Errors
    /// Those of [`LatentSet::new`].
    pub fn with_values(&self, values: Vec<f32>, what: &str) -> Result<Self, LatentError> {
        Ok(Self { classes: self.classes, ..Self::new(values, self.size, what)? })
    }

    /// The set with a label vector of `classes` values after each z, in place of those that it has; row `i` has the one
    /// that `label` gives.
    fn with_classes(&self, classes: usize, label: impl Fn(usize) -> Vec<f32>) -> Self {
        let z_size = self.z_size();
        let row = |(i, row): (usize, &[f32])| [&row[..z_size], &label(i)].concat();
        let values = self.rows().enumerate().flat_map(row).collect();
        Self { size: z_size + classes, classes, values }
    }

    /// The set with the classes of a conditional model, where row `i` has the class `of(i)`; for others the set itself.
    fn with_one_hot(self, config: &ModelConfig, of: impl Fn(usize) -> u32) -> Self {
        if !config.is_conditional() {
            return self;
        }
        self.with_classes(config.classes, |i| config.class_weights(of(i)))
    }

    /// The z of the first `n` samples of `seed`, as in [`Generator::draw`], and the classes of a conditional model.
    ///
    /// # Errors
    /// `n` of 0.
    pub fn draw(seed: u64, n: usize, config: &ModelConfig, classes: Classes) -> Result<Self, LatentError> {
        Self::draw_indices(seed, 0..n, config, classes)
    }

    /// The z of the samples `indices` of `seed`, and the classes of a conditional model.
    ///
    /// # Errors
    /// No index.
    pub fn draw_indices(
        seed: u64,
        indices: impl IntoIterator<Item = usize>,
        config: &ModelConfig,
        classes: Classes,
    ) -> Result<Self, LatentError> {
        let indices: Vec<usize> = indices.into_iter().collect();
        let stream = |i: usize| random::stream(seed, Purpose::SampleLatent, i as u64);
        let z = indices.iter().flat_map(|&i| random::latent(&mut stream(i), 1, &config.latent)).collect();
        let set = Self::new(z, config.latent.size, &format!("seed {seed}"))?;
        Ok(set.with_one_hot(config, |row| classes.of(indices[row], config.classes)))
    }

    /// [`LatentSet::draw`] with truncated z: values beyond `bound` standard deviations are redrawn, other values are
    /// unchanged. The images are more typical and less diverse.
    ///
    /// # Errors
    /// Uniform z; a bound below 0.01; `n` of 0.
    pub fn draw_truncated(
        seed: u64,
        n: usize,
        bound: f32,
        config: &ModelConfig,
        classes: Classes,
    ) -> Result<Self, LatentError> {
        if config.latent.distribution != Distribution::Normal {
            return Err(LatentError::UniformBound);
        }
        if bound.is_nan() || bound < MIN_BOUND {
            return Err(LatentError::Bound { bound });
        }
        let one = |i: u64| {
            let mut rng = random::stream(seed, Purpose::SampleLatent, i);
            let mut z = random::latent(&mut rng, 1, &config.latent);
            for value in &mut z {
                while value.abs() > bound {
                    *value = random::normal(&mut rng, 1, 0.0, 1.0).first().copied().unwrap_or(0.0);
                }
            }
            z
        };
        let z = (0..n as u64).flat_map(one).collect();
        let set = Self::new(z, config.latent.size, &format!("seed {seed}"))?;
        Ok(set.with_one_hot(config, |row| classes.of(row, config.classes)))
    }

    /// Reads the tensor `z` `(n, size)` of a safetensors file, in any float type, and `labels` `(n, classes)` where it
    /// has them.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or has other tensors; a value that is not finite.
    pub fn read(path: &Path) -> Result<Self, LatentError> {
        let mut tensors = weights::read_safetensors(path)?;
        let found: Vec<String> =
            tensors.iter().map(|(name, tensor)| format!("{name} {:?}", tensor.shape)).collect();
        let (z, labels) = (tensors.remove(TENSOR), tensors.remove(LABELS));
        let not_latents = || LatentError::NotLatents { path: path.into(), found: found.join(", ") };
        let Some((z, n, size)) = z.filter(|_| tensors.is_empty()).and_then(rows_of) else {
            return Err(not_latents());
        };
        let what = path.display().to_string();
        let set = Self::new(z, size, &what)?;
        let Some(labels) = labels else { return Ok(set) };
        match rows_of(labels).filter(|(_, rows, _)| *rows == n) {
            Some((labels, _, classes)) => {
                let set = set.with_classes(classes, |i| labels[i * classes..(i + 1) * classes].to_vec());
                set.with_values(set.values.clone(), &what) // all finite
            }
            None => Err(not_latents()),
        }
    }

    /// Writes the tensor `z` `(n, size)` and, for a conditional model, `labels` `(n, classes)` to a safetensors file,
    /// atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), LatentError> {
        let z_size = self.z_size();
        let tensor = |columns: std::ops::Range<usize>| HostTensor {
            shape: vec![self.len(), columns.len()],
            data: self.rows().flat_map(|row| &row[columns.clone()]).copied().collect(),
        };
        let mut tensors: Weights = [(TENSOR.to_owned(), tensor(0..z_size))].into_iter().collect();
        if self.classes > 0 {
            tensors.insert(LABELS.to_owned(), tensor(z_size..self.size));
        }
        Ok(weights::write_safetensors(path, &tensors, Precision::F32)?)
    }

    /// Length of a row: size of z, and of its label vector.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Size of z.
    pub fn z_size(&self) -> usize {
        self.size - self.classes
    }

    /// Size of the label vector of a z; 0 for a model that is not conditional.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of z; at least 1.
    pub fn len(&self) -> usize {
        self.values.len() / self.size
    }

    /// Always false.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The z in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.size)
    }

    /// All values `(n, size)`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The z at `indices`, in this order; errors name `what` as their source.
    ///
    /// # Errors
    /// No index; an index out of range.
    pub fn select(&self, indices: &[usize], what: &str) -> Result<Self, LatentError> {
        let mut values = Vec::with_capacity(indices.len() * self.size);
        for &row in indices {
            let z = self.rows().nth(row).ok_or_else(|| LatentError::OutOfRange {
                what: what.to_owned(),
                row,
                len: self.len(),
            })?;
            values.extend_from_slice(z);
        }
        self.with_values(values, what)
    }

    /// The mean, `(size)`, summed in f64.
    pub fn mean(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.size];
        for z in self.rows() {
            sums.iter_mut().zip(z).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        sums.into_iter().map(|sum: f64| to_f32(sum / self.len() as f64)).collect()
    }

    /// Their images in evaluation mode, u8 `(n, h, w, c)`; none depends on the other z. `progress` is called with the
    /// number of images done.
    ///
    /// # Errors
    /// A generator without statistics; z of another length than its own; memory.
    pub fn images(
        &self,
        generator: &mut Generator,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<u8>, LatentError> {
        self.check(generator.model().config(), "the set")?;
        let z_size = self.z_size();
        let columns = |columns: std::ops::Range<usize>| {
            self.rows().flat_map(|row| &row[columns.clone()]).copied().collect::<Vec<f32>>()
        };
        let mut latents = Latents::new(columns(0..z_size), z_size)?;
        if self.classes > 0 {
            let labels = Maps::rows(columns(z_size..self.size), self.classes).map_err(NetworkError::from)?;
            latents = latents.with_label_rows(labels)?;
        }
        Ok(generator.draw_latents(&latents, progress)?)
    }

    /// Refuses z or label vectors of another model.
    fn check(&self, config: &ModelConfig, what: &str) -> Result<(), LatentError> {
        let what = what.to_owned();
        let (expected, found) = (config.latent.size, self.z_size());
        if found != expected {
            return Err(LatentError::Size { what, expected, found });
        }
        match (config.classes, self.classes) {
            (expected, found) if expected == found => Ok(()),
            (_, 0) => Err(LatentError::NoClasses { what }),
            (expected, found) => Err(LatentError::Classes { what, expected, found }),
        }
    }
}

/// The values of a tensor `(n, size)` with values, and both sides.
fn rows_of(tensor: HostTensor) -> Option<(Vec<f32>, usize, usize)> {
    match tensor.shape.as_slice() {
        &[n, size] if n > 0 && size > 0 => Some((tensor.data, n, size)),
        _ => None,
    }
}

/// z as named on the command line: `FILE`, `FILE:i,j,k`, or `seed:S:i,j,k` for samples of a seed by index; followed by
/// `@CLASS` for z with that class of a conditional model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LatentSpec {
    /// All or some z of a file written by [`LatentSet::write`].
    File {
        /// The file.
        path: PathBuf,
        /// Indices from 0; all if None.
        indices: Option<Vec<usize>>,
    },
    /// Samples of a seed.
    Seed {
        /// The seed.
        seed: u64,
        /// Indices from 0.
        indices: Vec<usize>,
    },
    /// z with a class of a conditional model, in place of those that they have.
    OfClass {
        /// The z.
        z: Box<LatentSpec>,
        /// Name or number of the class.
        class: String,
    },
}

fn parse_indices(text: &str) -> Option<Vec<usize>> {
    text.split(',').map(|index| index.trim().parse().ok()).collect()
}

impl FromStr for LatentSpec {
    type Err = LatentError;

    fn from_str(text: &str) -> Result<Self, LatentError> {
        let invalid = || LatentError::Syntax { text: text.to_owned() };
        // Paths may contain @.
        let path = match text.rsplit_once(':') {
            Some((path, list)) if parse_indices(list).is_some() => path,
            _ => text,
        };
        let is_file = Path::new(text).is_file() || Path::new(path).is_file();
        if let Some((z, class)) = text.rsplit_once('@').filter(|_| !is_file) {
            let is_one = !class.is_empty() && !z.is_empty();
            let z = if is_one { z.parse().map_err(|_| invalid())? } else { return Err(invalid()) };
            return Ok(Self::OfClass { z: Box::new(z), class: class.to_owned() });
        }
        if let Some(rest) = text.strip_prefix("seed:") {
            let (seed, list) = rest.split_once(':').ok_or_else(invalid)?;
            let seed = seed.parse().map_err(|_| invalid())?;
            return Ok(Self::Seed { seed, indices: parse_indices(list).ok_or_else(invalid)? });
        }
        match text.rsplit_once(':') {
            Some((path, list)) if !path.is_empty() && parse_indices(list).is_some() => {
                Ok(Self::File { path: path.into(), indices: parse_indices(list) })
            }
            // An invalid list is an error, not part of a file name.
            Some((path, _)) if Path::new(path).is_file() => Err(invalid()),
            _ if text.is_empty() => Err(invalid()),
            _ => Ok(Self::File { path: text.into(), indices: None }),
        }
    }
}

impl LatentSpec {
    /// The file that is read, if any.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Seed { .. } => None,
            Self::OfClass { z, .. } => z.path(),
        }
    }

    /// The z, for a model of `config`. `classes` are the classes of z that have none.
    ///
    /// # Errors
    /// A file that cannot be read or has other tensors; z of another size or with other classes than the model's; an
    /// index out of range.
    pub fn resolve(&self, config: &ModelConfig, classes: Classes) -> Result<LatentSet, LatentError> {
        match self {
            Self::Seed { seed, indices } => {
                LatentSet::draw_indices(*seed, indices.iter().copied(), config, classes)
            }
            Self::OfClass { z, class } => {
                let class = config.class_of(class).map_err(LatentError::UnknownClass)?;
                Ok(z.resolve(config, Classes::One(class))?.with_one_hot(config, |_| class))
            }
            Self::File { path, indices } => {
                let what = path.display().to_string();
                let mut all = LatentSet::read(path)?;
                if let (0, Classes::One(class)) = (all.classes(), classes) {
                    all = all.with_one_hot(config, |_| class);
                }
                all.check(config, &what)?;
                indices.as_ref().map_or(Ok(all.clone()), |indices| all.select(indices, &what))
            }
        }
    }

    /// Parses `text` and resolves it.
    ///
    /// # Errors
    /// Invalid syntax; those of [`LatentSpec::resolve`].
    pub fn parse_and_resolve(text: &str, config: &ModelConfig) -> Result<LatentSet, LatentError> {
        text.parse::<Self>()?.resolve(config, Classes::InTurn)
    }
}

/// Concatenates sets of z.
///
/// # Errors
/// No set; sets of z of different sizes or classes.
pub fn concat(sets: &[LatentSet]) -> Result<LatentSet, LatentError> {
    let Some(first) = sets.first() else {
        return Err(LatentError::Empty { what: "an empty list".to_owned() });
    };
    let size = first.size;
    if let Some(other) = sets.iter().find(|set| set.size != size) {
        return Err(LatentError::Size { what: "a set of z".to_owned(), expected: size, found: other.size });
    }
    first.with_values(sets.iter().flat_map(|set| set.values.iter().copied()).collect(), "an empty list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_z_and_no_other_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("z.safetensors");
        let z = LatentSet::new(vec![1.0, -2.5, 3.0, 1e-30, 0.0, 7.0], 3, "a test").unwrap();
        z.write(&path).unwrap();
        assert_eq!(LatentSet::read(&path).unwrap(), z);
        let tensor = |shape: &[usize], value: f32| HostTensor {
            shape: shape.to_vec(),
            data: vec![value; shape.iter().product()],
        };
        let rows: Vec<(Vec<(&str, HostTensor)>, &str)> = vec![
            (vec![("z", tensor(&[6], 1.0))], "found z [6]"),
            (vec![("z", tensor(&[0, 6], 1.0))], "found z [0, 6]"),
            (vec![("y", tensor(&[2, 3], 1.0))], "found y [2, 3]"),
            (vec![("y", tensor(&[2], 1.0)), ("z", tensor(&[2, 3], 1.0))], "found y [2], z [2, 3]"),
            (vec![("z", tensor(&[2, 3], f32::NAN))], "value 0 of z 0 is NaN"),
        ];
        for (tensors, expected) in rows {
            let tensors: Weights = tensors.into_iter().map(|(name, t)| (name.to_owned(), t)).collect();
            weights::write_safetensors(&path, &tensors, Precision::F32).unwrap();
            let message = LatentSet::read(&path).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("z.safetensors"), "{message}");
        }
        assert!(matches!(LatentSet::new(vec![0.0; 7], 3, "x"), Err(LatentError::Ragged { len: 7, size: 3 })));
        assert!(concat(&[z.clone(), LatentSet::new(vec![0.0; 4], 2, "x").unwrap()]).is_err());
        assert_eq!(concat(&[z.clone(), z.select(&[1], "x").unwrap()]).unwrap().len(), 3);
    }

    #[test]
    fn specs_are_parsed() {
        let file = |path: &str, indices: Option<&[usize]>| LatentSpec::File {
            path: path.into(),
            indices: indices.map(<[_]>::to_vec),
        };
        let rows: Vec<(&str, Option<LatentSpec>)> = vec![
            ("a.safetensors", Some(file("a.safetensors", None))),
            ("a:3,1, 2", Some(file("a", Some(&[3, 1, 2])))),
            ("b:\\a:0", Some(file("b:\\a", Some(&[0])))),
            ("b:\\a", Some(file("b:\\a", None))),
            ("seed:7:1,1", Some(LatentSpec::Seed { seed: 7, indices: vec![1, 1] })),
            ("seed:7", None),
            ("seed::1", None),
            ("seed:7:1,", None),
            ("seed:-1:1", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<LatentSpec>().ok(), expected, "{text}");
        }
        // A file whose path contains @.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("me@home.safetensors");
        std::fs::write(&path, "").unwrap();
        let text = path.to_str().unwrap();
        assert_eq!(text.parse::<LatentSpec>().unwrap(), file(text, None));
        assert_eq!(format!("{text}:0,1").parse::<LatentSpec>().unwrap(), file(text, Some(&[0, 1])));
        let of_class = LatentSpec::OfClass { z: Box::new(file(text, Some(&[0]))), class: "3".to_owned() };
        assert_eq!(format!("{text}:0@3").parse::<LatentSpec>().unwrap(), of_class);
    }
}
