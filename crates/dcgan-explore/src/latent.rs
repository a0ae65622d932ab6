//! Sets of z: drawn by seed, read from files, picked by number; and the images of them.

use dcgan_model::random::{self, Purpose};
use dcgan_model::weights::{self, Dtype, HostTensor, Weights, WeightsError};
use dcgan_model::{Distribution, Generator, LatentConfig, Model, NetworkError, draw_latents};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Name of the tensor in a file of z.
const TENSOR: &str = "z";
/// A smaller bound would redraw a value hundreds of times.
const LEAST_BOUND: f32 = 0.01;

/// What is wrong with z.
#[derive(Debug, thiserror::Error)]
pub enum LatentError {
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] WeightsError),
    /// A file that holds something else.
    #[error("{}: expected one tensor z of shape (n, size), found {found}", path.display())]
    NotLatents {
        /// The file.
        path: PathBuf,
        /// Its tensors.
        found: String,
    },
    /// A value that is NaN or infinite.
    #[error("{what}: value {column} of z {row} is {value}")]
    NotFinite {
        /// Where the z came from.
        what: String,
        /// Which z, from 0.
        row: usize,
        /// Which of its values, from 0.
        column: usize,
        /// As printed.
        value: String,
    },
    /// z of another length than the model's.
    #[error(
        "{what} holds z of {found} numbers, the model takes {expected}: was it written for another model?"
    )]
    Size {
        /// Where the z came from.
        what: String,
        /// The model's.
        expected: usize,
        /// Found.
        found: usize,
    },
    /// A z by a number that is not there.
    #[error("{what} has {len} z, numbered from 0: there is no {row}")]
    NoSuchRow {
        /// Where the z came from.
        what: String,
        /// Number asked for.
        row: usize,
        /// z that are there.
        len: usize,
    },
    /// No z at all.
    #[error("{what} names no z")]
    Nothing {
        /// What was given.
        what: String,
    },
    /// Values that do not make whole z.
    #[error("{len} values do not make z of {size}")]
    Ragged {
        /// Values given.
        len: usize,
        /// Values of a z.
        size: usize,
    },
    /// A bound on values of uniform z.
    #[error(
        "values beyond a bound can be drawn again for normal z alone; the z of this model are uniform in [-1, 1]"
    )]
    UniformBound,
    /// A bound that is none.
    #[error("a bound of {bound} standard deviations, expected at least {LEAST_BOUND}")]
    Bound {
        /// As given.
        bound: f32,
    },
    /// The network that draws them.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A list of numbers that is none.
    #[error("{text:?}: expected FILE, FILE:i,j,k or seed:S:i,j,k, with numbers from 0")]
    Syntax {
        /// As given.
        text: String,
    },
}

/// One or more z of the same length, `(n, size)`, on the host; all values finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Latents {
    size: usize,
    values: Vec<f32>,
}

impl Latents {
    /// z one after the other in `values`; `what` names them in errors.
    ///
    /// # Errors
    /// Values that do not make whole z; none; one that is not finite.
    pub fn new(values: Vec<f32>, size: usize, what: &str) -> Result<Self, LatentError> {
        if values.is_empty() {
            return Err(LatentError::Nothing { what: what.to_owned() });
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

    /// The z of the first `n` samples of `seed`, those of [`dcgan_model::draw`].
    ///
    /// # Errors
    /// `n` of 0.
    pub fn draw(seed: u64, n: usize, config: &LatentConfig) -> Result<Self, LatentError> {
        Self::pick(seed, 0..n, config)
    }

    /// The z of samples of `seed` by their numbers.
    ///
    /// # Errors
    /// No number.
    pub fn pick(
        seed: u64,
        numbers: impl IntoIterator<Item = usize>,
        config: &LatentConfig,
    ) -> Result<Self, LatentError> {
        let one =
            |i: usize| random::latent(&mut random::stream(seed, Purpose::SampleLatent, i as u64), 1, config);
        Self::new(numbers.into_iter().flat_map(one).collect(), config.size, &format!("seed {seed}"))
    }

    /// As [`Latents::draw`], values beyond `bound` standard deviations drawn again: more typical images, less varied. All
    /// other values stay as they are without the bound.
    ///
    /// # Errors
    /// Uniform z; a bound below 0.01; `n` of 0.
    pub fn draw_within(seed: u64, n: usize, bound: f32, config: &LatentConfig) -> Result<Self, LatentError> {
        if config.distribution != Distribution::Normal {
            return Err(LatentError::UniformBound);
        }
        if bound.is_nan() || bound < LEAST_BOUND {
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
    /// A file that cannot be read, is damaged or holds anything else; a value that is not finite.
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

    /// Writes them as the tensor `z` `(n, size)` of a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&self, path: &Path) -> Result<(), LatentError> {
        let tensor = HostTensor { shape: vec![self.len(), self.size], data: self.values.clone() };
        let tensors: Weights = [(TENSOR.to_owned(), tensor)].into_iter().collect();
        Ok(weights::write_safetensors(path, &tensors, Dtype::F32)?)
    }

    /// Values of one z.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many there are; at least 1.
    pub fn len(&self) -> usize {
        self.values.len() / self.size
    }

    /// Whether there are none: never.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Each z in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.size)
    }

    /// All values, z after z.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Those of the given numbers, in the order given; `what` names the set in errors.
    ///
    /// # Errors
    /// No number; a number that is not there.
    pub fn select(&self, numbers: &[usize], what: &str) -> Result<Self, LatentError> {
        let mut values = Vec::with_capacity(numbers.len() * self.size);
        for &row in numbers {
            let z = self.rows().nth(row).ok_or_else(|| LatentError::NoSuchRow {
                what: what.to_owned(),
                row,
                len: self.len(),
            })?;
            values.extend_from_slice(z);
        }
        Self::new(values, self.size, what)
    }

    /// Their mean, `(size)`, summed in f64.
    pub fn mean(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.size];
        for z in self.rows() {
            sums.iter_mut().zip(z).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        #[expect(clippy::cast_possible_truncation, reason = "a mean of f32 values is an f32 value")]
        sums.into_iter().map(|sum: f64| (sum / self.len() as f64) as f32).collect()
    }

    /// Their images in evaluation mode, u8 `(n, h, w, c)`; each the same whatever the others are. `progress` hears how
    /// many are done.
    ///
    /// # Errors
    /// A generator without statistics; z of another length than its own; memory.
    pub fn images(
        &self,
        generator: &mut Generator,
        model: &Model,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<u8>, LatentError> {
        let expected = model.config().latent.size;
        if self.size != expected {
            return Err(LatentError::Size { what: "a set".to_owned(), expected, found: self.size });
        }
        Ok(draw_latents(generator, model, &self.values, progress)?)
    }
}

/// z as a user names them: `FILE`, `FILE:i,j,k`, or `seed:S:i,j,k` for samples of a seed by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A file that [`Latents::write`] wrote, all of it or some rows.
    File {
        /// The file.
        path: PathBuf,
        /// Rows from 0; all where none are named.
        rows: Option<Vec<usize>>,
    },
    /// Samples of a seed.
    Seed {
        /// The seed.
        seed: u64,
        /// Their numbers from 0.
        numbers: Vec<usize>,
    },
}

fn numbers(text: &str) -> Option<Vec<usize>> {
    text.split(',').map(|number| number.trim().parse().ok()).collect()
}

impl FromStr for Spec {
    type Err = LatentError;

    fn from_str(text: &str) -> Result<Self, LatentError> {
        let wrong = || LatentError::Syntax { text: text.to_owned() };
        if let Some(rest) = text.strip_prefix("seed:") {
            let (seed, list) = rest.split_once(':').ok_or_else(wrong)?;
            let seed = seed.parse().map_err(|_| wrong())?;
            return Ok(Self::Seed { seed, numbers: numbers(list).ok_or_else(wrong)? });
        }
        match text.rsplit_once(':') {
            Some((path, list)) if !path.is_empty() && numbers(list).is_some() => {
                Ok(Self::File { path: path.into(), rows: numbers(list) })
            }
            // A list with a fault is a fault, not the name of a file.
            Some((path, _)) if Path::new(path).is_file() => Err(wrong()),
            _ if text.is_empty() => Err(wrong()),
            _ => Ok(Self::File { path: text.into(), rows: None }),
        }
    }
}

impl Spec {
    /// The z themselves, for a model of `config`.
    ///
    /// # Errors
    /// A file that cannot be read or holds anything else; z of another length than the model's; numbers that are not there.
    pub fn resolve(&self, config: &LatentConfig) -> Result<Latents, LatentError> {
        match self {
            Self::Seed { seed, numbers } => Latents::pick(*seed, numbers.iter().copied(), config),
            Self::File { path, rows } => {
                let what = path.display().to_string();
                let all = Latents::read(path)?;
                if all.size() != config.size {
                    return Err(LatentError::Size { what, expected: config.size, found: all.size() });
                }
                rows.as_ref().map_or(Ok(all.clone()), |rows| all.select(rows, &what))
            }
        }
    }

    /// The z of a text that names some.
    ///
    /// # Errors
    /// Those of parsing and of [`Spec::resolve`].
    pub fn latents(text: &str, config: &LatentConfig) -> Result<Latents, LatentError> {
        text.parse::<Self>()?.resolve(config)
    }
}

/// Several sets as one, in order.
///
/// # Errors
/// No set; sets of different lengths of z.
pub fn joined(sets: &[Latents]) -> Result<Latents, LatentError> {
    let size = sets.first().map_or(0, Latents::size);
    if let Some(other) = sets.iter().find(|set| set.size != size) {
        return Err(LatentError::Size { what: "a set of z".to_owned(), expected: size, found: other.size });
    }
    Latents::new(sets.iter().flat_map(|set| set.values.iter().copied()).collect(), size, "an empty list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_z_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("z.safetensors");
        let z = Latents::new(vec![1.0, -2.5, 3.0, 1e-30, 0.0, 7.0], 3, "a test").unwrap();
        z.write(&path).unwrap();
        assert_eq!(Latents::read(&path).unwrap(), z);
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
            weights::write_safetensors(&path, &tensors, Dtype::F32).unwrap();
            let message = Latents::read(&path).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("z.safetensors"), "{message}");
        }
        assert!(matches!(Latents::new(vec![0.0; 7], 3, "x"), Err(LatentError::Ragged { len: 7, size: 3 })));
        assert!(joined(&[z.clone(), Latents::new(vec![0.0; 4], 2, "x").unwrap()]).is_err());
        assert_eq!(joined(&[z.clone(), z.select(&[1], "x").unwrap()]).unwrap().len(), 3);
    }

    #[test]
    fn specs_as_typed() {
        let file = |path: &str, rows: Option<&[usize]>| Spec::File {
            path: path.into(),
            rows: rows.map(<[_]>::to_vec),
        };
        let rows: Vec<(&str, Option<Spec>)> = vec![
            ("a.safetensors", Some(file("a.safetensors", None))),
            ("a:3,1, 2", Some(file("a", Some(&[3, 1, 2])))),
            ("b:\\a:0", Some(file("b:\\a", Some(&[0])))),
            ("b:\\a", Some(file("b:\\a", None))),
            ("seed:7:1,1", Some(Spec::Seed { seed: 7, numbers: vec![1, 1] })),
            ("seed:7", None),
            ("seed::1", None),
            ("seed:7:1,", None),
            ("seed:-1:1", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<Spec>().ok(), expected, "{text}");
        }
    }
}
