//! The paper's classification experiments as data: splits, grids of C, and the results in the paper.

use crate::protocol::Grid;
use dcgan_data::Format;
use serde::{Deserialize, Serialize};

/// A classification experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// CIFAR-10 with all labels or a few per class (section 5.1).
    Cifar10,
    /// SVHN with 1,000 labels (section 5.2).
    Svhn,
    /// The embedded digits, a check in seconds. Not in the paper.
    Digits,
}

/// The measure of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Percentage of wrong predictions; lower is better.
    Error,
    /// Percentage of correct predictions; higher is better.
    Accuracy,
}

impl Measure {
    /// Converts an error in percent to this measure.
    pub fn of_error(self, error_percent: f64) -> f64 {
        match self {
            Self::Error => error_percent,
            Self::Accuracy => 100.0 - error_percent,
        }
    }

    /// Column heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error %",
            Self::Accuracy => "accuracy %",
        }
    }
}

/// A row of a table in the paper.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PaperRow {
    /// The method.
    pub method: &'static str,
    /// In percent, by the task's measure.
    pub percent: f64,
    /// Interval in the paper, in percentage points.
    pub plus_minus: Option<f64>,
    /// Length of the feature vector, if the paper states it.
    pub features: Option<usize>,
}

const fn row(method: &'static str, percent: f64) -> PaperRow {
    PaperRow { method, percent, plus_minus: None, features: None }
}

const fn row_with(method: &'static str, percent: f64, plus_minus: f64) -> PaperRow {
    PaperRow { method, percent, plus_minus: Some(plus_minus), features: None }
}

/// Table 1, all labels.
const CIFAR10_ALL: [PaperRow; 5] = [
    row("1 layer K-means", 80.6),
    row("3 layer K-means learned RF", 82.0),
    row("view invariant K-means", 81.9),
    row("exemplar CNN", 84.3),
    PaperRow { method: "DCGAN + L2-SVM", percent: 82.8, plus_minus: None, features: Some(28_672) },
];

/// Table 1, 400 labels per class.
const CIFAR10_FEW: [PaperRow; 5] = [
    row_with("1 layer K-means", 63.7, 0.7),
    row_with("3 layer K-means learned RF", 70.7, 0.7),
    row_with("view invariant K-means", 72.6, 0.7),
    row_with("exemplar CNN", 77.4, 0.2),
    PaperRow { method: "DCGAN + L2-SVM", percent: 73.8, plus_minus: Some(0.4), features: Some(28_672) },
];

/// Table 2, 1,000 labels, and the authors' released model.
const SVHN: [PaperRow; 10] = [
    row("KNN", 77.93),
    row("TSVM", 66.55),
    row("M1 + KNN", 65.63),
    row("M1 + TSVM", 54.33),
    row("M1 + M2", 36.02),
    row("SWWAE without dropout", 27.83),
    row("SWWAE with dropout", 23.56),
    row("supervised CNN, same shape (validation)", 28.87),
    PaperRow { method: "DCGAN + L2-SVM", percent: 22.48, plus_minus: None, features: None },
    PaperRow {
        method: "DCGAN + L2-SVM (authors' release)",
        percent: 22.18,
        plus_minus: Some(1.13),
        features: Some(7168),
    },
];

impl Task {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar10",
            Self::Svhn => "svhn",
            Self::Digits => "digits",
        }
    }

    /// The measure of its table.
    pub fn measure(self) -> Measure {
        if self == Self::Svhn { Measure::Error } else { Measure::Accuracy }
    }

    /// The preset whose folder in `models` is the default of `--model`.
    pub fn preset(self) -> &'static str {
        match self {
            Self::Cifar10 => "imagenet32",
            Self::Svhn => "svhn32",
            Self::Digits => "digits",
        }
    }

    /// The format of the dataset.
    pub fn format(self) -> Format {
        match self {
            Self::Cifar10 => Format::Cifar10,
            Self::Svhn => Format::Svhn,
            Self::Digits => Format::Idx,
        }
    }

    /// Whether a dataset of `format` is that of the task: CIFAR-10 was published in two versions.
    pub fn reads(self, format: Format) -> bool {
        format == self.format() || (self == Self::Cifar10 && format == Format::Cifar10Python)
    }

    /// The files of the dataset, for messages.
    pub fn data_files(self) -> &'static str {
        match self {
            Self::Cifar10 => "the folder cifar-10-batches-bin (data_batch_1.bin to 5, test_batch.bin)",
            Self::Svhn => "a folder with train_32x32.mat and test_32x32.mat",
            Self::Digits => "MNIST's idx files (train-images-idx3-ubyte and the others, plain or .gz)",
        }
    }

    /// The number of held-out images, the last of `n` training images.
    ///
    /// SVHN: 10,000 of the full 73,257, in proportion for fewer. Others: a fifth.
    pub fn held_out(self, n: usize) -> usize {
        match self {
            Self::Svhn => (n * 10_000 + 73_257 / 2) / 73_257,
            Self::Cifar10 | Self::Digits => (n + 2) / 5,
        }
    }

    /// Default labels per class; `None` for all labels.
    pub fn labels_per_class(self) -> Option<usize> {
        (self == Self::Svhn).then_some(100)
    }

    /// Default number of draws that are scored on the test set.
    pub fn repeats(self) -> usize {
        if self == Self::Svhn { 100 } else { 10 }
    }

    /// Whether batch norm of D is recalibrated on the training images by default, as the authors' code for SVHN does.
    /// Its running statistics are of other images, real and generated.
    pub fn recalibrates(self) -> bool {
        self != Self::Digits
    }

    /// The search grid of C. SVHN: the authors' grid, closed.
    pub fn grid(self) -> Grid {
        match self {
            Self::Svhn => Grid::closed(vec![1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]),
            Self::Cifar10 | Self::Digits => Grid::outwards(),
        }
    }

    /// The paper's rows for this task with all labels (`None`) or the given number per class.
    pub fn paper(self, labels_per_class: Option<usize>) -> &'static [PaperRow] {
        match (self, labels_per_class) {
            (Self::Cifar10, None) => &CIFAR10_ALL,
            (Self::Cifar10, Some(400)) => &CIFAR10_FEW,
            (Self::Svhn, Some(100)) => &SVHN,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_images() {
        let rows = [
            (Task::Svhn, 73_257, 10_000),
            (Task::Svhn, 2499, 341),
            (Task::Cifar10, 50_000, 10_000),
            (Task::Digits, 8000, 1600),
        ];
        for (task, n, expected) in rows {
            assert_eq!(task.held_out(n), expected, "{}", task.name());
        }
    }
}
