//! Recorded claims: `eval/claims/*.toml`, compiled in, each an experiment with the result it is to give.

use crate::task::Task;
use serde::Deserialize;

/// Name and text of every claim.
pub const CLAIMS: [(&str, &str); 3] = [
    ("digits", include_str!("../../../eval/claims/digits.toml")),
    ("digits-few", include_str!("../../../eval/claims/digits-few.toml")),
    ("svhn-crops", include_str!("../../../eval/claims/svhn-crops.toml")),
];

/// An experiment, what it gave, and how far another run may be off.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// As on the command line.
    #[serde(skip)]
    pub name: String,
    /// What is claimed, in a sentence.
    pub what: String,
    /// The experiment.
    pub task: Task,
    /// By the task's measure, in percent.
    pub expected_percent: f64,
    /// In points.
    pub tolerance: f64,
    /// Labels a class, where they are few.
    pub labels_per_class: Option<usize>,
    /// Draws scored, where labels are few.
    pub repeats: Option<usize>,
    /// The model it is about, where that is not the embedded one.
    pub model: Option<String>,
    /// Preset of the model's file, where it is a file of another program.
    pub preset: Option<String>,
    /// The data it is about, where they are not embedded.
    pub data: Option<String>,
}

impl Claim {
    /// Reads a claim's text.
    ///
    /// # Errors
    /// Not TOML, or a field that is missing, unknown or of the wrong type.
    pub fn parse(name: &str, text: &str) -> Result<Self, toml::de::Error> {
        Ok(Self { name: name.to_owned(), ..toml::from_str(text)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_can_be_read() {
        for (name, text) in CLAIMS {
            let claim = Claim::parse(name, text).unwrap();
            assert!(claim.tolerance > 0.0 && (0.0..=100.0).contains(&claim.expected_percent), "{name}");
        }
    }
}
