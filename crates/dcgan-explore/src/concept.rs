//! z of a concept without picking by hand: a linear probe from the discriminator's features to an attribute of real images,
//! by which samples are ranked.

use dcgan_features::features::{Features, FeaturesError};
use dcgan_features::svm::{Gram, LinearSvm, ParamGuard, SvmError, SvmParams};

/// Values of C to choose from.
const GRID: [f64; 4] = [1e-5, 1e-4, 1e-3, 1e-2];
/// Parts that images of either kind are dealt to: three to fit, one to choose C, one to score on.
const PARTS: usize = 5;
/// Converged, for a ranking.
const TOLERANCE: f64 = 1e-4;

/// A concept that cannot be learned, or a fit that failed.
#[derive(Debug, thiserror::Error)]
pub enum ConceptError {
    /// No image shows it.
    #[error(
        "none of the {images} images looked at shows the concept: ask for less at once, or look at more images"
    )]
    NoPositives {
        /// Images with attributes.
        images: usize,
    },
    /// All images show it.
    #[error("all of the {images} images looked at show the concept: there is nothing to tell it from")]
    NoNegatives {
        /// Images with attributes.
        images: usize,
    },
    /// Too few on one side to fit and to score.
    #[error(
        "{positives} images show the concept and {negatives} do not, expected at least {PARTS} of each: look at more images"
    )]
    TooFew {
        /// Images that show it.
        positives: usize,
        /// Images that do not.
        negatives: usize,
    },
    /// The fit.
    #[error(transparent)]
    Svm(#[from] SvmError),
    /// Features that are not finite or do not make rows.
    #[error(transparent)]
    Features(#[from] FeaturesError),
}

/// A linear support vector machine that tells a concept from everything else.
#[derive(Clone, Debug)]
pub struct Probe {
    svm: LinearSvm,
    /// How well it does.
    pub report: ProbeReport,
}

/// What a probe was made from, and how well it does on images that neither fitted it nor chose its C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeReport {
    /// Images that show the concept.
    pub positives: usize,
    /// Images that do not.
    pub negatives: usize,
    /// Weight of the loss, chosen on images that did not fit it.
    pub c: f64,
    /// Images held out.
    pub held_out: usize,
    /// Share of them that the probe gets right.
    pub accuracy: f64,
    /// Share that the more frequent answer alone would get right.
    pub baseline: f64,
}

/// How many images show the concept and how many do not, where [`Probe::fit`] can work with as many.
///
/// # Errors
/// Too few of either: [`ConceptError::NoPositives`], [`ConceptError::NoNegatives`], [`ConceptError::TooFew`].
pub fn examples(shows: &[bool]) -> Result<(usize, usize), ConceptError> {
    let positives = shows.iter().filter(|&&shows| shows).count();
    let (images, negatives) = (shows.len(), shows.len() - positives);
    match (positives, negatives) {
        (0, _) => Err(ConceptError::NoPositives { images }),
        (_, 0) => Err(ConceptError::NoNegatives { images }),
        _ if positives.min(negatives) < PARTS => Err(ConceptError::TooFew { positives, negatives }),
        _ => Ok((positives, negatives)),
    }
}

impl Probe {
    /// Fits a probe to the rows of `features`; `shows` says which show the concept. Of either kind, in order, three of five fit it,
    /// one chooses C, one is held out.
    ///
    /// # Errors
    /// [`ConceptError`]; a number of labels other than that of rows counts as a fit that failed.
    pub fn fit(features: &Features, shows: &[bool]) -> Result<Self, ConceptError> {
        if shows.len() != features.len() {
            return Err(SvmError::Labels { rows: features.len(), labels: shows.len() }.into());
        }
        let (positives, negatives) = examples(shows)?;
        let mut parts: [Vec<usize>; PARTS] = Default::default();
        let mut seen = [0; 2];
        for (row, &shows) in shows.iter().enumerate() {
            let seen = &mut seen[usize::from(shows)];
            parts[*seen % PARTS].push(row);
            *seen += 1;
        }
        let [a, b, c, choosing, held_out] = parts;
        let mut fitting = [a, b, c].concat();
        fitting.sort_unstable();
        let rows = features.select(&fitting);
        let labels: Vec<usize> = fitting.iter().map(|&row| usize::from(shows[row])).collect();
        // One product of the rows serves all values of C.
        let gram = Gram::pays(&rows).then(|| Gram::up_to(&rows, GRID[GRID.len() - 1])).transpose()?;
        let right = |svm: &LinearSvm, part: &[usize]| -> Result<usize, SvmError> {
            let scores = svm.decision(&features.select(part))?;
            Ok(scores.iter().zip(part).filter(|&(&score, &row)| (score > 0.0) == shows[row]).count())
        };
        let mut best: Option<(usize, f64, LinearSvm)> = None;
        for c in GRID {
            let params = SvmParams::new().c(c).tolerance(TOLERANCE).check()?;
            let svm = match &gram {
                Some(gram) => params.fit_rows(gram, &labels)?,
                None => params.fit_rows(&rows, &labels)?,
            };
            let found = right(&svm, &choosing)?;
            // Of equal ones the smallest C: the simplest probe.
            if best.as_ref().is_none_or(|(most, ..)| found > *most) {
                best = Some((found, c, svm));
            }
        }
        let Some((_, c, svm)) = best else { return Err(SvmError::NoIterations.into()) };
        let n = held_out.len() as f64;
        let shown = held_out.iter().filter(|&&row| shows[row]).count();
        let report = ProbeReport {
            positives,
            negatives,
            c,
            held_out: held_out.len(),
            accuracy: right(&svm, &held_out)? as f64 / n,
            baseline: shown.max(held_out.len() - shown) as f64 / n,
        };
        Ok(Self { svm, report })
    }

    /// How much each row of `features` shows the concept: above 0 the probe says that it does.
    ///
    /// # Errors
    /// Features of another width than those of the fit, or that are not finite.
    pub fn scores(&self, features: &Features) -> Result<Vec<f32>, ConceptError> {
        Ok(self.svm.decision(features)?.iter().copied().collect())
    }
}

/// The numbers of the `count` highest scores, highest first; of equal ones the first.
pub fn highest(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of three values of which the second alone tells the concept, at every third row.
    fn rows(n: usize, period: usize) -> (Features, Vec<bool>) {
        let shows: Vec<bool> = (0..n).map(|i| i % period == 0).collect();
        let values = |i: usize| [(i * 7 % 5) as f32, if shows[i] { 2.0 } else { -1.0 }, (i * 3 % 4) as f32];
        (Features::from_f32((0..n).flat_map(values).collect(), 3).unwrap(), shows)
    }

    #[test]
    fn a_probe_finds_what_tells_the_concept() {
        let (features, shows) = rows(150, 3);
        let probe = Probe::fit(&features, &shows).unwrap();
        let ProbeReport { positives, negatives, held_out, accuracy, baseline, .. } = probe.report;
        assert_eq!((positives, negatives, held_out, accuracy), (50, 100, 30, 1.0));
        assert!((baseline - 2.0 / 3.0).abs() < 1e-9);
        let strangers = Features::from_f32(vec![1.0, -3.0, 1.0, 1.0, 9.0, 1.0, 1.0, 1.9, 1.0], 3).unwrap();
        assert_eq!(highest(&probe.scores(&strangers).unwrap(), 2), [1, 2]);
    }

    #[test]
    fn concepts_that_cannot_be_learned() {
        for (n, period, expected) in
            [(40, 1, "all of the 40"), (12, 6, "2 images show the concept and 10 do not"), (6, 7, "1 images")]
        {
            let (features, shows) = rows(n, period);
            let message = Probe::fit(&features, &shows).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let (features, _) = rows(20, 2);
        let message = Probe::fit(&features, &[false; 20]).unwrap_err().to_string();
        assert!(message.contains("none of the 20"), "{message}");
    }

    #[test]
    fn equal_scores_keep_their_order() {
        assert_eq!(highest(&[1.0, 3.0, 3.0, -1.0, 2.0], 4), [1, 2, 4, 0]);
        assert_eq!(highest(&[1.0], 4), [0]);
    }
}
