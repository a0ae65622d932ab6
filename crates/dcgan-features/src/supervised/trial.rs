//! Hyperparameters of a trial, and the ranges they are drawn from.

use super::SupervisedError;
use dcgan_base::random::{self, Purpose};
use dcgan_ops::AdamConfig;
use rand::{Rng, RngCore};
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// Adam's second-moment decay and epsilon, as in DCGAN training (paper, section 4; authors' code).
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// Hyperparameters of a training; with the data they determine its result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Seed of the initial weights and of the order of images.
    pub seed: u64,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Adam's decay of the first moment.
    pub beta1: f64,
    /// L2 penalty on every parameter, coupled (added to the gradient).
    pub weight_decay: f64,
    /// Maximum minibatch size.
    pub batch_size: usize,
    /// Standard deviation of the initial kernels.
    pub weight_std: f32,
    /// Number of epochs.
    pub epochs: usize,
}

/// Lowest and highest value of each hyperparameter. Draws are log-uniform, of `beta1` uniform.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranges {
    /// Adam's learning rate.
    pub learning_rate: [f64; 2],
    /// Adam's decay of the first moment.
    pub beta1: [f64; 2],
    /// L2 penalty on every parameter, coupled (added to the gradient).
    pub weight_decay: [f64; 2],
    /// Maximum minibatch size.
    pub batch_size: [usize; 2],
    /// Standard deviation of the initial kernels.
    pub weight_std: [f32; 2],
    /// Number of epochs.
    pub epochs: [usize; 2],
}

/// About a factor of ten around the paper's settings for DCGAN training.
impl Default for Ranges {
    fn default() -> Self {
        Self {
            learning_rate: [1e-4, 1e-2],
            beta1: [0.5, 0.9],
            weight_decay: [1e-6, 1e-2],
            batch_size: [16, 128],
            weight_std: [0.01, 0.1],
            epochs: [20, 100],
        }
    }
}

impl Trial {
    pub(super) fn check(&self) -> Result<(), SupervisedError> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        expect("learning_rate", self.learning_rate, positive(self.learning_rate), "a number above 0")?;
        expect("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "at least 0 and below 1")?;
        let decays = self.weight_decay >= 0.0 && self.weight_decay.is_finite();
        expect("weight_decay", self.weight_decay, decays, "a number of at least 0")?;
        expect("batch_size", self.batch_size, self.batch_size > 0, "at least 1")?;
        expect("weight_std", self.weight_std, positive(self.weight_std.into()), "a number above 0")?;
        expect("epochs", self.epochs, self.epochs > 0, "at least 1")
    }

    pub(super) fn adam(&self) -> AdamConfig {
        AdamConfig {
            learning_rate: self.learning_rate,
            beta1: self.beta1,
            beta2: BETA2,
            eps: EPS,
            weight_decay: self.weight_decay,
        }
    }
}

impl Ranges {
    /// Checks that lower ends come first and both ends are valid.
    ///
    /// # Errors
    /// The first invalid range.
    pub fn check(&self) -> Result<(), SupervisedError> {
        // A log-uniform draw needs a lower end above 0.
        expect("weight_decay", self.weight_decay[0], self.weight_decay[0] > 0.0, "a range from above 0")?;
        let ordered = [
            ("learning_rate", self.learning_rate),
            ("beta1", self.beta1),
            ("weight_decay", self.weight_decay),
            ("batch_size", self.batch_size.map(|size| size as f64)),
            ("weight_std", self.weight_std.map(f64::from)),
            ("epochs", self.epochs.map(|epochs| epochs as f64)),
        ];
        for (name, [low, high]) in ordered {
            expect(name, format!("{low} to {high}"), low <= high, "the lower end first")?;
        }
        for end in 0..2 {
            Trial {
                seed: 0,
                learning_rate: self.learning_rate[end],
                beta1: self.beta1[end],
                weight_decay: self.weight_decay[end],
                batch_size: self.batch_size[end],
                weight_std: self.weight_std[end],
                epochs: self.epochs[end],
            }
            .check()?;
        }
        Ok(())
    }

    /// Trial `index` of the search with `seed`, independent of other draws.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "draws lie between the ends of their ranges"
    )]
    pub fn draw(&self, seed: u64, index: u64) -> Trial {
        let mut rng = random::stream(seed, Purpose::Trial, index);
        let mut log = |[low, high]: [f64; 2]| {
            let (low_ln, high_ln) = (low.ln(), high.ln());
            (low_ln + rng.random::<f64>() * (high_ln - low_ln)).exp().clamp(low, high)
        };
        let whole = |[low, high]: [usize; 2]| [low as f64, high as f64];
        let learning_rate = log(self.learning_rate);
        let weight_decay = log(self.weight_decay);
        let batch_size = log(whole(self.batch_size)).round() as usize;
        let weight_std = log(self.weight_std.map(f64::from)) as f32;
        let epochs = log(whole(self.epochs)).round() as usize;
        let [low, high] = self.beta1;
        let beta1 = low + rng.random::<f64>() * (high - low);
        Trial { seed: rng.next_u64(), learning_rate, beta1, weight_decay, batch_size, weight_std, epochs }
    }
}

/// Fails for the setting `name` unless `holds`.
pub(super) fn expect(
    name: &'static str,
    found: impl Display,
    holds: bool,
    expected: &'static str,
) -> Result<(), SupervisedError> {
    if holds { Ok(()) } else { Err(SupervisedError::Setting { name, found: found.to_string(), expected }) }
}
