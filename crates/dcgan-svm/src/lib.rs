//! A linear support vector machine with squared hinge loss, one class against the rest.
//!
//! The objective is that of scikit-learn's `LinearSVC` with its defaults. For each class, with y = 1 for its rows and
//! -1 for all others,
//!
//! > min over (w, b) of `1/2 (|w|^2 + b^2) + c Σ_i max(0, 1 - y_i (w·x_i + b))^2`
//!
//! The intercept `b` is the weight of an additional column of ones. Two classes are one problem, whose positive rows
//! are those of the greater class.
//!
//! ```
//! use dcgan_svm::{Features, ParamGuard, SvmParams};
//!
//! // Four rows of two features, row-major, and a label for each row.
//! let rows = Features::from_f32(vec![0.0, 1.0, 0.2, 0.9, 1.0, 0.1, 0.8, 0.0], 2)?;
//! let model = SvmParams::new().c(10.0).check()?.fit_rows(&rows, &[3, 3, 7, 7])?;
//!
//! let unseen = Features::from_f32(vec![0.1, 0.8, 0.9, 0.2], 2)?;
//! assert_eq!(model.predict(&unseen)?.to_vec(), [3, 7]);
//! # Ok::<(), dcgan_svm::SvmError>(())
//! ```
//!
//! [`SvmParams`] implements linfa's `ParamGuard`, the checked [`SvmValidParams`] its `Fit`, and [`LinearSvm`] its
//! `Predict`, for [`Features`] and for `ndarray::Array2<f32>`:
//!
//! ```
//! use dcgan_svm::{LinearSvm, SvmError, SvmParams};
//! use linfa::dataset::DatasetBase;
//! use linfa::traits::{Fit, Predict};
//! use ndarray::{Array1, array};
//!
//! let records = array![[0.0_f32, 1.0], [0.2, 0.9], [1.0, 0.1], [0.8, 0.0]];
//! let dataset = DatasetBase::new(records.clone(), Array1::from(vec![3, 3, 7, 7]));
//! let model: LinearSvm = SvmParams::new().c(10.0).fit(&dataset)?;
//! let predicted: Result<Array1<usize>, SvmError> = Predict::predict(&model, &records);
//! assert_eq!(predicted?, array![3, 3, 7, 7]);
//! # Ok::<(), SvmError>(())
//! ```
//!
//! # Solvers
//!
//! All classes are solved together, sixteen at a time:
//!
//! - by dual coordinate descent, then by Newton's method, for more rows than columns;
//! - by Newton's method on the inner products of the rows ([`Gram`]), for fewer rows than columns. Several fits can
//!   share one [`Gram`].
//!
//! [`SvmValidParams::fit_with`] starts from an earlier fit and reports progress. [`hinge`] has linfa's own SVM behind
//! the same model type. Results do not depend on the number of threads.

mod active;
mod dense;
mod direct;
mod dual;
mod factor;
pub mod features;
mod fit;
mod gram;
pub mod hinge;
mod kernel;
mod model;
mod newton;
mod panel;
mod search;

pub use features::{Features, FeaturesError, Precision};
pub use fit::Rows;
pub use gram::Gram;
/// The trait of [`SvmParams::check`](ParamGuard::check).
pub use linfa::ParamGuard;
pub use model::LinearSvm;

use serde::{Deserialize, Serialize};

/// Parameters of a fit, unchecked.
#[derive(Clone, Debug, PartialEq)]
pub struct SvmParams(SvmValidParams);

/// Checked parameters of a fit.
#[derive(Clone, Debug, PartialEq)]
pub struct SvmValidParams {
    c: f64,
    tolerance: f64,
    max_iterations: usize,
    method: Method,
}

/// Solver of a fit; results differ by rounding only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// [`Method::Gram`] if it is faster ([`Gram::pays`]); otherwise dual coordinate descent, then [`Method::Features`].
    #[default]
    Automatic,
    /// Newton's method with passes over the features.
    Features,
    /// Newton's method on the inner products of the rows: rows² values of 8 bytes.
    Gram,
}

impl Default for SvmParams {
    /// c 1 as in scikit-learn, tolerance 1e-6, at most 2,000 passes over the rows.
    fn default() -> Self {
        Self(SvmValidParams { c: 1.0, tolerance: 1e-6, max_iterations: 2000, method: Method::default() })
    }
}

impl SvmParams {
    /// The defaults: c 1, tolerance 1e-6, at most 2,000 iterations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Weight of the loss relative to the regularizer `1/2 (|w|^2 + b^2)`; greater than 0.
    pub fn c(mut self, c: f64) -> Self {
        self.0.c = c;
        self
    }

    /// Relative tolerance, in (0, 1). A class has converged when a Newton step reduced its objective by a smaller
    /// fraction, or when the gradient or the dual objective proves that the objective is within this fraction of its
    /// minimum.
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.0.tolerance = tolerance;
        self
    }

    /// Maximum number of passes over the rows; at least 1. A pass computes, for sixteen classes, a gradient, a step of
    /// conjugate gradients or a sweep of coordinate descent.
    pub fn max_iterations(mut self, max_iterations: usize) -> Self {
        self.0.max_iterations = max_iterations;
        self
    }

    /// The solver.
    pub fn method(mut self, method: Method) -> Self {
        self.0.method = method;
        self
    }
}

impl ParamGuard for SvmParams {
    type Checked = SvmValidParams;
    type Error = SvmError;

    fn check_ref(&self) -> Result<&SvmValidParams, SvmError> {
        let SvmValidParams { c, tolerance, max_iterations, .. } = self.0;
        if !(c.is_finite() && c > 0.0) {
            return Err(SvmError::C(c));
        }
        if !(tolerance > 0.0 && tolerance < 1.0) {
            return Err(SvmError::Tolerance(tolerance));
        }
        if max_iterations == 0 {
            return Err(SvmError::NoIterations);
        }
        Ok(&self.0)
    }

    fn check(self) -> Result<SvmValidParams, SvmError> {
        self.check_ref()?;
        Ok(self.0)
    }
}

impl SvmValidParams {
    /// Weight of the loss.
    pub fn c(&self) -> f64 {
        self.c
    }
}

/// Why the fit of a class ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// It reached [`SvmParams::tolerance`].
    Converged,
    /// It reached [`SvmParams::max_iterations`].
    IterationLimit,
}

/// End of the fit of a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// The reason.
    pub reason: ExitReason,
    /// Newton steps.
    pub iterations: usize,
    /// Passes over the rows, including sweeps of coordinate descent.
    pub products: usize,
    /// Value of the objective.
    pub objective: f64,
    /// Norm of the objective's gradient. The objective exceeds its minimum by at most half of its square.
    pub gradient_norm: f64,
}

impl Exit {
    /// Before the first pass.
    fn unknown() -> Self {
        Self {
            reason: ExitReason::IterationLimit,
            iterations: 0,
            products: 0,
            objective: f64::INFINITY,
            gradient_norm: f64::INFINITY,
        }
    }
}

/// Progress of a fit after a pass over the rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitProgress {
    /// Passes so far, over all groups of sixteen classes.
    pub passes: usize,
    /// Classes that have converged.
    pub converged: usize,
    /// Binary problems: the number of classes, or 1 for two classes.
    pub problems: usize,
    /// Sum of the objectives that are known, from the first Newton pass of a class on.
    pub objective: f64,
    /// Largest known gradient norm.
    pub gradient_norm: f64,
}

/// Why a fit or a prediction failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SvmError {
    /// An invalid weight of the loss.
    #[error("c is {0}, expected a finite number greater than 0")]
    C(f64),
    /// An invalid tolerance.
    #[error("the tolerance is {0}, expected a number between 0 and 1")]
    Tolerance(f64),
    /// An iteration limit of 0.
    #[error("the iteration limit is 0, expected at least 1")]
    NoIterations,
    /// No rows or no columns.
    #[error("there are {rows} rows of {width} features, expected at least one of each")]
    Empty {
        /// Rows given.
        rows: usize,
        /// Columns given.
        width: usize,
    },
    /// Numbers of rows and labels differ.
    #[error("there are {labels} labels for {rows} rows, expected one per row")]
    Labels {
        /// Rows given.
        rows: usize,
        /// Labels given.
        labels: usize,
    },
    /// Fewer than two classes.
    #[error("the labels have {0} class, expected two or more")]
    Classes(usize),
    /// A start of another width.
    #[error("the starting model has {found} features, expected {expected}")]
    Start {
        /// Columns of the features.
        expected: usize,
        /// Columns of the starting model.
        found: usize,
    },
    /// Features of another width than the model's.
    #[error("there are {found} features per row, expected {expected} as in the model")]
    Width {
        /// Columns of the model.
        expected: usize,
        /// Columns given.
        found: usize,
    },
    /// Invalid features.
    #[error(transparent)]
    Features(#[from] FeaturesError),
    /// An objective that overflows.
    #[error("the objective of class {class} is not finite: the features are too large, scale them down")]
    Overflow {
        /// Number of the class.
        class: usize,
    },
    /// Inner products that exceed the memory limit.
    #[error(
        "inner products of {rows} rows take {needed_bytes} bytes, expected at most {limit_bytes}: use fewer rows or \
         Method::Features"
    )]
    TooManyRows {
        /// Rows given.
        rows: usize,
        /// Bytes of their inner products.
        needed_bytes: usize,
        /// The limit in bytes.
        limit_bytes: usize,
    },
    /// An error of linfa.
    #[error("linfa: {0}")]
    Linfa(String),
}

impl From<linfa::Error> for SvmError {
    fn from(error: linfa::Error) -> Self {
        Self::Linfa(error.to_string())
    }
}
