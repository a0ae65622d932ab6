//! z of a concept without manual selection: a linear probe on the discriminator's features, fitted to an attribute of
//! real images, ranks samples.

use dcgan_features::features::{Features, FeaturesError};
use dcgan_features::svm::{Gram, LinearSvm, ParamGuard, SvmError, SvmParams};

/// Search grid of C.
const C_GRID: [f64; 4] = [1e-5, 1e-4, 1e-3, 1e-2];
/// Folds of the images of either class: three for training, one for validation (C), one for the test.
const FOLDS: usize = 5;
/// Stopping tolerance; a ranking needs no more.
const TOLERANCE: f64 = 1e-4;

/// Why a probe could not be fitted or applied.
#[derive(Debug, thiserror::Error)]
pub enum ConceptError {
    /// No positive image.
    #[error(
        "none of the {images} images has the concept: combine fewer attributes, or use more images (--images)"
    )]
    NoPositives {
        /// Images with attributes.
        images: usize,
    },
    /// No negative image.
    #[error(
        "all of the {images} images have the concept, expected some without it: use more images (--images)"
    )]
    NoNegatives {
        /// Images with attributes.
        images: usize,
    },
    /// Too few images of one class.
    #[error(
        "{positives} images have the concept and {negatives} do not, expected at least {FOLDS} of each: use \
         more images (--images)"
    )]
    TooFew {
        /// Images with the concept.
        positives: usize,
        /// Images without it.
        negatives: usize,
    },
    /// The fit.
    #[error(transparent)]
    Svm(#[from] SvmError),
    /// Features that are not finite, or do not form rows.
    #[error(transparent)]
    Features(#[from] FeaturesError),
}

/// A linear support vector machine that classifies whether an image has a concept.
#[derive(Clone, Debug)]
pub struct Probe {
    svm: LinearSvm,
    /// Its accuracy.
    pub report: ProbeReport,
}

/// The dataset of a probe and its accuracy on the test fold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeReport {
    /// Images with the concept.
    pub positives: usize,
    /// Images without it.
    pub negatives: usize,
    /// Weight of the loss, chosen on the validation fold.
    pub c: f64,
    /// Images of the test fold.
    pub held_out: usize,
    /// Fraction of them that the probe classifies correctly.
    pub accuracy: f64,
    /// Accuracy of always predicting the majority class.
    pub baseline: f64,
}

/// The numbers of positive and negative `labels`, if they suffice for [`Probe::fit`].
///
/// # Errors
/// Too few of either class: [`ConceptError::NoPositives`], [`ConceptError::NoNegatives`], [`ConceptError::TooFew`].
pub fn class_counts(labels: &[bool]) -> Result<(usize, usize), ConceptError> {
    let positives = labels.iter().filter(|&&label| label).count();
    let (images, negatives) = (labels.len(), labels.len() - positives);
    match (positives, negatives) {
        (0, _) => Err(ConceptError::NoPositives { images }),
        (_, 0) => Err(ConceptError::NoNegatives { images }),
        _ if positives.min(negatives) < FOLDS => Err(ConceptError::TooFew { positives, negatives }),
        _ => Ok((positives, negatives)),
    }
}

impl Probe {
    /// Fits a probe to the rows of `features`; `labels` are true for images with the concept. The rows of either class
    /// are dealt in order to five folds: three for training, one for validation (the choice of C), one for the test.
    ///
    /// # Errors
    /// [`ConceptError`]; not one label per row.
    pub fn fit(features: &Features, labels: &[bool]) -> Result<Self, ConceptError> {
        if labels.len() != features.len() {
            return Err(SvmError::Labels { rows: features.len(), labels: labels.len() }.into());
        }
        let (positives, negatives) = class_counts(labels)?;
        let mut folds: [Vec<usize>; FOLDS] = Default::default();
        let mut counts = [0; 2];
        for (row, &label) in labels.iter().enumerate() {
            let count = &mut counts[usize::from(label)];
            folds[*count % FOLDS].push(row);
            *count += 1;
        }
        let [a, b, c, validation, test] = folds;
        let mut train = [a, b, c].concat();
        train.sort_unstable();
        let rows = features.select(&train);
        let train_labels: Vec<usize> = train.iter().map(|&row| usize::from(labels[row])).collect();
        // All values of C share one Gram matrix.
        let gram = Gram::pays(&rows).then(|| Gram::up_to(&rows, C_GRID[C_GRID.len() - 1])).transpose()?;
        let correct = |svm: &LinearSvm, fold: &[usize]| -> Result<usize, SvmError> {
            let scores = svm.decision(&features.select(fold))?;
            Ok(scores.iter().zip(fold).filter(|&(&score, &row)| (score > 0.0) == labels[row]).count())
        };
        let mut best: Option<(usize, f64, LinearSvm)> = None;
        for c in C_GRID {
            let params = SvmParams::new().c(c).tolerance(TOLERANCE).check()?;
            let svm = match &gram {
                Some(gram) => params.fit_rows(gram, &train_labels)?,
                None => params.fit_rows(&rows, &train_labels)?,
            };
            let count = correct(&svm, &validation)?;
            // Ties go to the smallest C, the strongest regularization.
            if best.as_ref().is_none_or(|(most, ..)| count > *most) {
                best = Some((count, c, svm));
            }
        }
        let Some((_, c, svm)) = best else { return Err(SvmError::NoIterations.into()) };
        let n = test.len() as f64;
        let test_positives = test.iter().filter(|&&row| labels[row]).count();
        let report = ProbeReport {
            positives,
            negatives,
            c,
            held_out: test.len(),
            accuracy: correct(&svm, &test)? as f64 / n,
            baseline: test_positives.max(test.len() - test_positives) as f64 / n,
        };
        Ok(Self { svm, report })
    }

    /// The score of each row of `features`: above 0 if the probe predicts that the image has the concept.
    ///
    /// # Errors
    /// Features of another width than those of the fit, or that are not finite.
    pub fn scores(&self, features: &Features) -> Result<Vec<f32>, ConceptError> {
        Ok(self.svm.decision(features)?.iter().copied().collect())
    }
}

/// The indices of the `count` highest scores, highest first; ties in order of the index.
pub fn top_indices(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of three values, positive every `period` rows; only the second value depends on the label.
    fn rows(n: usize, period: usize) -> (Features, Vec<bool>) {
        let labels: Vec<bool> = (0..n).map(|i| i % period == 0).collect();
        let values = |i: usize| [(i * 7 % 5) as f32, if labels[i] { 2.0 } else { -1.0 }, (i * 3 % 4) as f32];
        (Features::from_f32((0..n).flat_map(values).collect(), 3).unwrap(), labels)
    }

    #[test]
    fn a_probe_learns_the_concept() {
        let (features, labels) = rows(150, 3);
        let probe = Probe::fit(&features, &labels).unwrap();
        let ProbeReport { positives, negatives, held_out, accuracy, baseline, .. } = probe.report;
        assert_eq!((positives, negatives, held_out, accuracy), (50, 100, 30, 1.0));
        assert!((baseline - 2.0 / 3.0).abs() < 1e-9);
        let unseen = Features::from_f32(vec![1.0, -3.0, 1.0, 1.0, 9.0, 1.0, 1.0, 1.9, 1.0], 3).unwrap();
        assert_eq!(top_indices(&probe.scores(&unseen).unwrap(), 2), [1, 2]);
    }

    #[test]
    fn too_few_images_of_a_class_are_refused() {
        for (n, period, expected) in
            [(40, 1, "all of the 40"), (12, 6, "2 images have the concept and 10 do not"), (6, 7, "1 images")]
        {
            let (features, labels) = rows(n, period);
            let message = Probe::fit(&features, &labels).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let (features, _) = rows(20, 2);
        let message = Probe::fit(&features, &[false; 20]).unwrap_err().to_string();
        assert!(message.contains("none of the 20"), "{message}");
    }

    #[test]
    fn equal_scores_keep_their_order() {
        assert_eq!(top_indices(&[1.0, 3.0, 3.0, -1.0, 2.0], 4), [1, 2, 4, 0]);
        assert_eq!(top_indices(&[1.0], 4), [0]);
    }
}
