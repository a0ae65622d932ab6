//! Recorded claims: `eval/claims/*.toml`, compiled in, each an experiment with its expected result.

use crate::task::Task;
use serde::Deserialize;

/// Name and text of every claim.
pub const CLAIMS: [(&str, &str); 3] = [
    ("digits", include_str!("../claims/digits.toml")),
    ("digits-few", include_str!("../claims/digits-few.toml")),
    ("svhn-crops", include_str!("../claims/svhn-crops.toml")),
];

/// An experiment, its result, and the tolerance for another run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Name on the command line.
    #[serde(skip)]
    pub name: String,
    /// The claim in a sentence.
    #[serde(alias = "what")]
    pub description: String,
    /// The experiment.
    pub task: Task,
    /// Expected result in percent, in the task's measure.
    pub expected_percent: f64,
    /// Tolerance in percentage points.
    pub tolerance: f64,
    /// Labels per class; absent for all labels.
    pub labels_per_class: Option<usize>,
    /// Draws that are scored (few labels).
    pub repeats: Option<usize>,
    /// Description of the model; absent for the embedded model.
    pub model: Option<String>,
    /// Preset of the model, if it is a file of another program.
    pub preset: Option<String>,
    /// Description of the data; absent for the embedded digits.
    pub data: Option<String>,
}

impl Claim {
    /// Parses a claim.
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
    fn claims_parse() {
        for (name, text) in CLAIMS {
            let claim = Claim::parse(name, text).unwrap();
            assert!(claim.tolerance > 0.0 && (0.0..=100.0).contains(&claim.expected_percent), "{name}");
        }
    }
}
