//! Recorded claims: `eval/claims/*.toml`, compiled in, each an experiment with its expected result.

use crate::neighbours::SampleStatistics;
use crate::task::{Measure, Task};
use serde::Deserialize;

/// Name and text of every claim.
pub const CLAIMS: [(&str, &str); 13] = [
    ("cifar10", include_str!("../claims/cifar10.toml")),
    ("cifar10-few", include_str!("../claims/cifar10-few.toml")),
    ("cifar10-own", include_str!("../claims/cifar10-own.toml")),
    ("cifar10-own-few", include_str!("../claims/cifar10-own-few.toml")),
    ("digits", include_str!("../claims/digits.toml")),
    ("digits-few", include_str!("../claims/digits-few.toml")),
    ("mnist-real", include_str!("../claims/mnist-real.toml")),
    ("mnist-samples", include_str!("../claims/mnist-samples.toml")),
    ("mnist-samples-running", include_str!("../claims/mnist-samples-running.toml")),
    ("mnist-samples-1m", include_str!("../claims/mnist-samples-1m.toml")),
    ("mnist-samples-10m", include_str!("../claims/mnist-samples-10m.toml")),
    ("svhn", include_str!("../claims/svhn.toml")),
    ("svhn-crops", include_str!("../claims/svhn-crops.toml")),
];

/// The experiment of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Experiment {
    /// [`Task::Cifar10`].
    Cifar10,
    /// [`Task::Svhn`].
    Svhn,
    /// [`Task::Digits`].
    Digits,
    /// The nearest-neighbour error of test digits; samples of a conditional model are the references, or, without
    /// `count`, the real training images.
    MnistNn,
}

impl Experiment {
    /// The classification task; `None` for nearest neighbours.
    pub fn task(self) -> Option<Task> {
        match self {
            Self::Cifar10 => Some(Task::Cifar10),
            Self::Svhn => Some(Task::Svhn),
            Self::Digits => Some(Task::Digits),
            Self::MnistNn => None,
        }
    }

    /// The measure of the result.
    pub fn measure(self) -> Measure {
        self.task().map_or(Measure::Error, Task::measure)
    }

    /// The files of the dataset, for messages.
    pub fn data_files(self) -> &'static str {
        self.task().unwrap_or(Task::Digits).data_files()
    }
}

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
    pub task: Experiment,
    /// Result in the paper in percent, in the task's measure.
    pub paper_percent: Option<f64>,
    /// Expected result in percent, in the task's measure.
    pub expected_percent: f64,
    /// Tolerance in percentage points.
    pub tolerance: f64,
    /// Labels per class; absent for all labels.
    pub labels_per_class: Option<usize>,
    /// Draws that are scored (few labels).
    pub repeats: Option<usize>,
    /// Samples (nearest neighbours); absent for the real training images.
    pub count: Option<usize>,
    /// Batch norm statistics of samples (nearest neighbours).
    pub statistics: Option<SampleStatistics>,
    /// A model that comes with the programs; absent for the embedded digits.
    pub model: Option<String>,
    /// Description of a model that does not come with the programs.
    pub other_model: Option<String>,
    /// Preset of that model, if it is a file of another program.
    pub preset: Option<String>,
    /// Name of the dataset's folder; absent for the embedded digits.
    pub data: Option<String>,
    /// Description of the data, if it is not the published dataset.
    pub data_description: Option<String>,
}

impl Claim {
    /// Parses a claim.
    ///
    /// # Errors
    /// Not TOML, or a field that is missing, unknown or of the wrong type.
    pub fn parse(name: &str, text: &str) -> Result<Self, toml::de::Error> {
        Ok(Self { name: name.to_owned(), ..toml::from_str(text)? })
    }

    /// What the claim needs as `--data`; `None` for the embedded digits.
    pub fn data_needed(&self) -> Option<&str> {
        self.data.as_ref()?;
        Some(self.data_description.as_deref().unwrap_or(self.task.data_files()))
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
            assert!(claim.model.is_none() || claim.other_model.is_none(), "{name}");
        }
    }

    /// The table of the README has exactly the claims, with the values of the paper and the recorded ones; so has the
    /// folder.
    #[test]
    fn the_readme_and_the_folder_have_the_claims() {
        let table = include_str!("../../../README.md").split("### Recorded results").nth(1).unwrap();
        let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        let rows = rows.take_while(|line| line.starts_with('|'));
        let rows: Vec<Vec<&str>> = rows.map(|row| row.split('|').map(str::trim).take(4).collect()).collect();
        let expected: Vec<[String; 4]> = CLAIMS
            .iter()
            .map(|(name, text)| {
                let claim = Claim::parse(name, text).unwrap();
                let paper = claim.paper_percent.map_or_else(String::new, |percent| percent.to_string());
                let recorded = format!("{} ± {}", claim.expected_percent, claim.tolerance);
                [String::new(), format!("`{name}`"), paper, recorded]
            })
            .collect();
        let sorted = |mut rows: Vec<Vec<String>>| {
            rows.sort();
            rows
        };
        assert_eq!(
            sorted(rows.into_iter().map(|row| row.into_iter().map(str::to_owned).collect()).collect()),
            sorted(expected.into_iter().map(Vec::from).collect())
        );
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../eval/claims");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut files: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
        files.sort();
        let mut expected: Vec<String> = CLAIMS.iter().map(|(name, _)| format!("{name}.toml")).collect();
        expected.sort();
        assert_eq!(files, expected);
    }
}
