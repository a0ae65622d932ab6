//! Sets of z: drawn by seed, read from files, selected by index; and their images.

use crate::interpolation::to_f32;
use dcgan_model::random::{self, Purpose};
use dcgan_model::weights::{self, HostTensor, Precision, Weights, WeightsError};
use dcgan_model::{Distribution, Generator, LatentConfig, Latents, NetworkError};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Name of the tensor in a file of z.
const TENSOR: &str = "z";
/// A smaller bound would redraw a value hundreds of times.
const MIN_BOUND: f32 = 0.01;

/// Why z are invalid or could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LatentError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] WeightsError),
    /// A file without z, or with other tensors.
    #[error("{}: expected one tensor z of shape (n, size), found {found}", path.display())]
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
    /// z of another length than the model's.
    #[error("{what} has z of length {found}, the model takes {expected}: use z of this model")]
    Size {
        /// The source of the z.
        what: String,
        /// Length of the model's z.
        expected: usize,
        /// Length found.
        found: usize,
    },
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
    #[error("found {len} values, expected a multiple of the length of z, {size}")]
    Ragged {
        /// Number of values.
        len: usize,
        /// Length of a z.
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
    #[error("{text:?}: expected FILE, FILE:i,j,k or seed:S:i,j,k, with indices from 0")]
    Syntax {
        /// The text.
        text: String,
    },
}

/// A set of z that a command reads, computes or saves: one or more of one length, `(n, size)`, on the host; all values
/// finite.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentSet {
    size: usize,
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
        Ok(Self { size, values })
    }

    /// The z of the first `n` samples of `seed`, as in [`Generator::draw`].
    ///
    /// # Errors
    /// `n` of 0.
    pub fn draw(seed: u64, n: usize, config: &LatentConfig) -> Result<Self, LatentError> {
        Self::draw_indices(seed, 0..n, config)
    }

    /// The z of the samples `indices` of `seed`.
    ///
    /// # Errors
    /// No index.
    pub fn draw_indices(
        seed: u64,
        indices: impl IntoIterator<Item = usize>,
        config: &LatentConfig,
    ) -> Result<Self, LatentError> {
        let one =
            |i: usize| random::latent(&mut random::stream(seed, Purpose::SampleLatent, i as u64), 1, config);
        Self::new(indices.into_iter().flat_map(one).collect(), config.size, &format!("seed {seed}"))
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
        config: &LatentConfig,
    ) -> Result<Self, LatentError> {
        if config.distribution != Distribution::Normal {
            return Err(LatentError::UniformBound);
        }
        if bound.is_nan() || bound < MIN_BOUND {
            return Err(LatentError::Bound { bound });
        }
        let one = |i: u64| {
            let mut rng = random::stream(seed, Purpose::SampleLatent, i);
            let mut z = random::latent(&mut rng, 1, config);
            for value in &mut z {
                while value.abs() > bound {
                    *value = random::normal(&mut rng, 1, 0.0, 1.0).first().copied().unwrap_or(0.0);
                }
            }
            z
        };
        Self::new((0..n as u64).flat_map(one).collect(), config.size, &format!("seed {seed}"))
    }

    /// Reads the tensor `z` `(n, size)` of a safetensors file, in any float type.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or has other tensors; a value that is not finite.
    pub fn read(path: &Path) -> Result<Self, LatentError> {
        let mut tensors = weights::read_safetensors(path)?;
        let found: Vec<String> =
            tensors.iter().map(|(name, tensor)| format!("{name} {:?}", tensor.shape)).collect();
        let z = tensors.remove(TENSOR).filter(|_| tensors.is_empty());
        match z.as_ref().map(|z| z.shape.as_slice()) {
            Some(&[n, size]) if n > 0 && size > 0 => {
                Self::new(z.map(|z| z.data).unwrap_or_default(), size, &path.display().to_string())
            }
            _ => Err(LatentError::NotLatents { path: path.into(), found: found.join(", ") }),
        }
    }

    /// Writes the tensor `z` `(n, size)` to a safetensors file, atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), LatentError> {
        let tensor = HostTensor { shape: vec![self.len(), self.size], data: self.values.clone() };
        let tensors: Weights = [(TENSOR.to_owned(), tensor)].into_iter().collect();
        Ok(weights::write_safetensors(path, &tensors, Precision::F32)?)
    }

    /// Length of a z.
    pub fn size(&self) -> usize {
        self.size
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
        Self::new(values, self.size, what)
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
        let expected = generator.model().config().latent.size;
        if self.size != expected {
            return Err(LatentError::Size { what: "the set".to_owned(), expected, found: self.size });
        }
        let latents = Latents::new(self.values.clone(), self.size)?;
        Ok(generator.draw_latents(&latents, progress)?)
    }
}

/// z as named on the command line: `FILE`, `FILE:i,j,k`, or `seed:S:i,j,k` for samples of a seed by index.
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
}

fn parse_indices(text: &str) -> Option<Vec<usize>> {
    text.split(',').map(|index| index.trim().parse().ok()).collect()
}

impl FromStr for LatentSpec {
    type Err = LatentError;

    fn from_str(text: &str) -> Result<Self, LatentError> {
        let invalid = || LatentError::Syntax { text: text.to_owned() };
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
    /// The z, for a model of `config`.
    ///
    /// # Errors
    /// A file that cannot be read or has other tensors; z of another length than the model's; an index out of range.
    pub fn resolve(&self, config: &LatentConfig) -> Result<LatentSet, LatentError> {
        match self {
            Self::Seed { seed, indices } => LatentSet::draw_indices(*seed, indices.iter().copied(), config),
            Self::File { path, indices } => {
                let what = path.display().to_string();
                let all = LatentSet::read(path)?;
                if all.size() != config.size {
                    return Err(LatentError::Size { what, expected: config.size, found: all.size() });
                }
                indices.as_ref().map_or(Ok(all.clone()), |indices| all.select(indices, &what))
            }
        }
    }

    /// Parses `text` and resolves it.
    ///
    /// # Errors
    /// Invalid syntax; those of [`LatentSpec::resolve`].
    pub fn parse_and_resolve(text: &str, config: &LatentConfig) -> Result<LatentSet, LatentError> {
        text.parse::<Self>()?.resolve(config)
    }
}

/// Concatenates sets of z.
///
/// # Errors
/// No set; sets of z of different lengths.
pub fn concat(sets: &[LatentSet]) -> Result<LatentSet, LatentError> {
    let size = sets.first().map_or(0, LatentSet::size);
    if let Some(other) = sets.iter().find(|set| set.size != size) {
        return Err(LatentError::Size { what: "a set of z".to_owned(), expected: size, found: other.size });
    }
    LatentSet::new(sets.iter().flat_map(|set| set.values.iter().copied()).collect(), size, "an empty list")
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
    }
}
