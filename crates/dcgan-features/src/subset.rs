//! A split of a dataset: consecutive images, with class indices that two splits can share.

use crate::experiment::{ExperimentError, hex};
use dcgan_data::Dataset;
use std::ops::Range;
use std::sync::Arc;

/// Consecutive images of a dataset: a split.
#[derive(Clone, Debug)]
pub struct Subset {
    /// The dataset.
    pub data: Arc<Dataset>,
    /// Range of image indices.
    pub rows: Range<usize>,
    /// The class indices of [`Subset::labels`] by those of the dataset, and their names; `None` for the dataset's own.
    classes: Option<Arc<Classes>>,
}

/// Class indices of one dataset in those of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The new number of each class.
    numbers: Vec<usize>,
    /// The names of all new numbers.
    names: Vec<String>,
}

/// The name of class `label`: its number where there is no name.
pub fn class_name(names: &[String], label: usize) -> String {
    names.get(label).cloned().unwrap_or_else(|| label.to_string())
}

/// Matches the classes `names` with those of `base` by name. A class that `base` lacks gets a number after its last.
pub fn match_names(names: &[String], base: &[String]) -> Classes {
    let mut all = base.to_vec();
    let numbers = names.iter().map(|name| {
        all.iter().position(|known| known == name).unwrap_or_else(|| {
            all.push(name.clone());
            all.len() - 1
        })
    });
    Classes { numbers: numbers.collect(), names: all }
}

impl Classes {
    /// The new number of class `label`.
    pub fn number(&self, label: usize) -> usize {
        self.numbers.get(label).copied().unwrap_or(label)
    }

    /// The names of all new numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl Subset {
    /// The images `rows` of a dataset.
    pub fn new(data: Arc<Dataset>, rows: Range<usize>) -> Self {
        Self { data, rows, classes: None }
    }

    /// All images of a dataset.
    pub fn whole(data: Dataset) -> Self {
        let rows = 0..data.len();
        Self::new(Arc::new(data), rows)
    }

    /// The images `rows` of the dataset, with the same class indices.
    #[must_use]
    pub fn with_rows(&self, rows: Range<usize>) -> Self {
        Self { rows, ..self.clone() }
    }

    /// These images with the class indices of `other`, where both datasets name their classes. Names decide: folders of
    /// two datasets are numbered separately, so a missing folder shifts the numbers.
    #[must_use]
    pub fn with_classes_of(&self, other: &Self) -> Self {
        let (Some(names), Some(base)) = (self.data.class_names(), other.class_names()) else {
            return self.clone();
        };
        Self { classes: Some(Arc::new(match_names(names, base))), ..self.clone() }
    }

    /// Names of the class indices of [`Subset::labels`].
    pub fn class_names(&self) -> Option<&[String]> {
        match &self.classes {
            Some(classes) => Some(classes.names()),
            None => self.data.class_names(),
        }
    }

    /// Labels of the images.
    ///
    /// # Errors
    /// [`ExperimentError::NoLabels`].
    pub fn labels(&self) -> Result<Vec<usize>, ExperimentError> {
        let labels = self.data.labels().and_then(|labels| labels.get(self.rows.clone()));
        let labels =
            labels.ok_or_else(|| ExperimentError::NoLabels { path: self.data.report().path.clone() })?;
        let number = |label: u32| match &self.classes {
            Some(classes) => classes.number(label as usize),
            None => label as usize,
        };
        Ok(labels.iter().map(|&label| number(label)).collect())
    }

    /// SHA-256 of the dataset and the range.
    pub fn sha256(&self) -> String {
        if self.rows == (0..self.data.len()) {
            return self.data.fingerprint().to_owned();
        }
        hex(format!("{} {}..{}", self.data.fingerprint(), self.rows.start, self.rows.end).as_bytes())
    }

    /// SHA-256 for caches: like [`Subset::sha256`], of [`Dataset::cache_key`].
    pub fn cache_key(&self) -> String {
        hex(format!("{} {}..{}", self.data.cache_key(), self.rows.start, self.rows.end).as_bytes())
    }

    /// The dataset and the range.
    pub fn pair(&self) -> (&Dataset, Range<usize>) {
        (&self.data, self.rows.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_matched_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let check = |own: &[&str], base: &[&str], numbers: &[usize], all: &[&str]| {
            let found = match_names(&names(own), &names(base));
            assert_eq!(
                (found.numbers.as_slice(), found.names()),
                (numbers, names(all).as_slice()),
                "{own:?}"
            );
        };
        check(&["a", "c"], &["a", "b", "c"], &[0, 2], &["a", "b", "c"]);
        check(&["a", "b", "c"], &["a", "c"], &[0, 2, 1], &["a", "c", "b"]);
        check(&["c", "b", "a"], &["a", "b", "c"], &[2, 1, 0], &["a", "b", "c"]);
        check(&["x", "y"], &["a"], &[1, 2], &["a", "x", "y"]);
        check(&["a", "b"], &["a", "b"], &[0, 1], &["a", "b"]);
    }
}
