//! linfa's SVM, one class against the rest, with the same model type: for comparisons on small problems.
//!
//! The objective differs: the hinge is not squared and the intercept is not regularized,
//! `1/2 |w|^2 + c Σ max(0, 1 - y_i (w·x_i + b))`, minimized by sequential minimal optimization. Values of `c` are not
//! comparable; accuracies are close.

use crate::features::Features;
use crate::fit::Classes;
use crate::model::as_f32;
use crate::{LinearSvm, SvmError, SvmValidParams};
use linfa::dataset::DatasetBase;
use linfa::traits::Fit;
use linfa_svm::Svm;
use ndarray::{Array1, Array2, Axis};

/// Memory limit of [`fit`]: linfa stores rows² kernel values in f64, for one class at a time.
pub const MAX_KERNEL_BYTES: usize = 512 << 20;

/// Fits with linfa's solver; `c` is the only parameter in use. `exits` of the model are empty, as linfa does not report
/// them.
///
/// # Errors
/// As [`SvmValidParams::fit_rows`]; more than 8,192 rows.
pub fn fit(params: &SvmValidParams, features: &Features, labels: &[usize]) -> Result<LinearSvm, SvmError> {
    let (rows, width) = (features.len(), features.width());
    let needed_bytes = rows.saturating_mul(rows).saturating_mul(8);
    if needed_bytes > MAX_KERNEL_BYTES {
        return Err(SvmError::TooManyRows { rows, needed_bytes, limit_bytes: MAX_KERNEL_BYTES });
    }
    let classes = Classes::new(features, labels)?;
    features.check_finite()?;
    let mut scratch = Vec::new();
    let values = features.block(0..rows, &mut scratch).iter().map(|&value| f64::from(value)).collect();
    let records =
        Array2::from_shape_vec((rows, width), values).map_err(|e| SvmError::Linfa(e.to_string()))?;
    let mut weights = Array2::zeros((classes.positives.len(), width));
    let mut intercepts = Array1::zeros(classes.positives.len());
    for (problem, &positive) in classes.positives.iter().enumerate() {
        let targets: Array1<bool> = classes.indices.iter().map(|&index| index == positive).collect();
        let dataset = DatasetBase::new(records.view(), targets.view());
        let fitted = Svm::<f64, bool>::params()
            .linear_kernel()
            .pos_neg_weights(params.c, params.c)
            .eps(1e-4)
            .fit(&dataset)
            .map_err(|error| SvmError::Linfa(error.to_string()))?;
        // The hyperplane is private; decisions of unit vectors give its weights.
        let mut unit = Array1::zeros(width);
        for (j, weight) in weights.index_axis_mut(Axis(0), problem).iter_mut().enumerate() {
            unit[j] = 1.0;
            *weight = as_f32(fitted.weighted_sum(&unit));
            unit[j] = 0.0;
        }
        intercepts[problem] = as_f32(-fitted.rho);
    }
    Ok(LinearSvm { classes: classes.numbers, weights, intercepts, c: params.c, exits: Vec::new() })
}
