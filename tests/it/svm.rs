//! The linear SVM against scikit-learn's, with every method.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::golden_path;
use dcgan_svm::{
    ExitReason, Features, FeaturesError, Gram, LinearSvm, Method, ParamGuard, SvmError, SvmParams,
    SvmValidParams, hinge,
};
use linfa::dataset::DatasetBase;
use linfa::traits::{Fit, Predict};
use ndarray::{Array1, Array2};
use safetensors::SafeTensors;

const METHODS: [Method; 3] = [Method::Automatic, Method::Features, Method::Gram];

/// One problem of `make.py`.
struct Case {
    name: String,
    x: Features,
    y: Vec<usize>,
    test_x: Features,
    test_y: Vec<usize>,
    c: Vec<f64>,
    /// Of each c, of each problem.
    objectives: Vec<Vec<f64>>,
    accuracies: Vec<f64>,
}

fn cases() -> Vec<Case> {
    let bytes = std::fs::read(golden_path("svm").join("case.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let f64s = |name: &str| -> Vec<f64> {
        let data = file.tensor(name).unwrap().data();
        data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let classes = |name: &str| -> Vec<usize> {
        let data = file.tensor(name).unwrap().data();
        let numbers = data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()));
        numbers.map(|number| usize::try_from(number).unwrap()).collect()
    };
    let matrix = |name: &str| {
        let tensor = file.tensor(name).unwrap();
        let values =
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        Features::from_f32(values, tensor.shape()[1]).unwrap()
    };
    let names = file.names().into_iter().filter_map(|name| name.strip_suffix(".x")).map(str::to_owned);
    let case = |name: String| {
        let of = |what: &str| format!("{name}.{what}");
        let c = f64s(&of("c"));
        let objectives = f64s(&of("objective"));
        let problems = objectives.len() / c.len();
        Case {
            x: matrix(&of("x")),
            y: classes(&of("y")),
            test_x: matrix(&of("test_x")),
            test_y: classes(&of("test_y")),
            objectives: objectives.chunks_exact(problems).map(<[f64]>::to_vec).collect(),
            accuracies: f64s(&of("accuracy")),
            c,
            name,
        }
    };
    names.map(case).collect()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

fn params(c: f64, method: Method) -> SvmValidParams {
    SvmParams::new().c(c).method(method).check().unwrap()
}

fn accuracy(model: &LinearSvm, x: &Features, y: &[usize]) -> f64 {
    let predicted = model.predict(x).unwrap();
    predicted.iter().zip(y).filter(|(a, b)| a == b).count() as f64 / y.len() as f64
}

/// Fraction of rows whose two best decisions are nearly equal, so that rounding decides.
fn near_ties(model: &LinearSvm, x: &Features) -> f64 {
    let decision = model.decision(x).unwrap();
    let near = |row: &ndarray::ArrayView1<'_, f32>| {
        let mut row = row.to_vec();
        row.sort_by(|a, b| b.total_cmp(a));
        // Two classes have one decision, whose sign counts.
        (row[0] - row.get(1).copied().unwrap_or(-row[0])).abs() < 0.005
    };
    decision.outer_iter().filter(near).count() as f64 / x.len() as f64
}

/// Objective and gradient norm of each problem at the model's weights, by plain sums in f64.
fn plain_objectives(model: &LinearSvm, x: &Features, y: &[usize]) -> Vec<(f64, f64)> {
    let positives = if model.classes.len() == 2 { &model.classes[1..] } else { &model.classes };
    let problem = |(row, &positive): (usize, &usize)| {
        let mut w: Vec<f64> = model.weights.row(row).iter().map(|&w| w.into()).collect();
        w.push(model.intercepts[row].into());
        let mut objective = 0.5 * w.iter().map(|w| w * w).sum::<f64>();
        let mut gradient = w.clone();
        for (i, &label) in y.iter().enumerate() {
            let mut values = vec![0.0; x.width()];
            x.copy_row(i, &mut values);
            let values: Vec<f64> = values.into_iter().map(f64::from).chain([1.0]).collect();
            let sign = if label == positive { 1.0 } else { -1.0 };
            let slack = 1.0 - sign * values.iter().zip(&w).map(|(x, w)| x * w).sum::<f64>();
            if slack > 0.0 {
                objective += model.c * slack * slack;
                for (gradient, value) in gradient.iter_mut().zip(&values) {
                    *gradient -= 2.0 * model.c * sign * slack * value;
                }
            }
        }
        (objective, gradient.iter().map(|g| g * g).sum::<f64>().sqrt())
    };
    positives.iter().enumerate().map(problem).collect()
}

#[test]
fn objectives_and_predictions_are_scikit_learns() {
    let mut faults = Vec::new();
    let mut worst = 0.0_f64;
    for case in cases() {
        for ((&c, expected), &share) in case.c.iter().zip(&case.objectives).zip(&case.accuracies) {
            for method in METHODS {
                let what = format!("{}, c {c}, {method:?}", case.name);
                let model = params(c, method).fit_rows(&case.x, &case.y).unwrap();
                let found = plain_objectives(&model, &case.x, &case.y);
                assert_eq!((found.len(), model.exits.len()), (expected.len(), expected.len()), "{what}");
                let reported = model.objectives(&case.x, &case.y).unwrap();
                for (problem, ((found, norm), expected)) in found.iter().zip(expected).enumerate() {
                    let exit = model.exits[problem];
                    worst = worst.max(found / expected - 1.0);
                    if *found > expected * (1.0 + 1e-4) {
                        faults.push(format!(
                            "{what}, problem {problem}: {found}, expected {expected}; {exit:?}"
                        ));
                    }
                    let near = |a: f64, b: f64, within: f64| (a - b).abs() <= within * b;
                    if exit.reason != ExitReason::Converged
                        || !near(exit.objective, *found, 1e-4)
                        || !near(reported[problem], *found, 1e-4)
                    {
                        faults.push(format!(
                            "{what}, problem {problem}: {exit:?}, {found} {}",
                            reported[problem]
                        ));
                    }
                    // At weights rounded to f32 the gradient is another, by as much as the curvature makes of it.
                    if method == Method::Features
                        && (exit.gradient_norm - norm).abs() > 0.1 * norm + 1e-4 * (1.0 + c)
                    {
                        faults.push(format!("{what}, problem {problem}: gradient {norm}; {exit:?}"));
                    }
                }
                let found = accuracy(&model, &case.test_x, &case.test_y);
                if (found - share).abs() > 1e-3 + near_ties(&model, &case.test_x) {
                    faults.push(format!("{what}: accuracy {found}, expected {share}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "largest excess {worst:.1e}\n{}", faults.join("\n"));
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let case = case("features_tall");
    for method in METHODS {
        let fit = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| params(0.01, method).fit_rows(&case.x, &case.y)).unwrap()
        };
        assert_eq!(fit(1), fit(2), "{method:?}");
    }
}

#[test]
fn selections_storages_and_arrays_are_alike() {
    let case = case("features_tall");
    let rows: Vec<usize> = (0..case.x.len()).rev().step_by(3).collect();
    let labels: Vec<usize> = rows.iter().map(|&row| case.y[row]).collect();
    let selected = case.x.select(&rows);
    let mut scratch = Vec::new();
    let values = selected.block(0..rows.len(), &mut scratch).to_vec();
    let copied = Features::from_f32(values.clone(), selected.width()).unwrap();
    let array = Array2::from_shape_vec((rows.len(), selected.width()), values).unwrap();
    let targets = Array1::from(labels.clone());
    for method in METHODS {
        let params = params(0.1, method);
        let model = params.fit_rows(&selected, &labels).unwrap();
        assert_eq!(model, params.fit_rows(&copied, &labels).unwrap());
        // linfa's traits, on checked and unchecked parameters.
        let unchecked = SvmParams::new().c(0.1).method(method);
        let by_trait: LinearSvm =
            unchecked.fit(&DatasetBase::new(selected.clone(), targets.clone())).unwrap();
        assert_eq!(model, by_trait);
        assert_eq!(model, params.fit(&DatasetBase::new(array.clone(), targets.clone())).unwrap());
        let predicted: Result<Array1<usize>, SvmError> = Predict::predict(&model, &array);
        assert_eq!(predicted.unwrap(), model.predict(&selected).unwrap());
    }
    let gram = Gram::new(&case.x).unwrap().select(&rows);
    let shared = params(0.1, Method::Gram).fit_rows(&gram, &labels).unwrap();
    let own = params(0.1, Method::Gram).fit_rows(&selected, &labels).unwrap();
    for (a, b) in shared.exits.iter().zip(&own.exits) {
        assert!((a.objective - b.objective).abs() <= 1e-5 * b.objective, "{a:?} {b:?}");
    }
    let narrow: Vec<half::bf16> = scratch.iter().map(|&value| half::bf16::from_f32(value)).collect();
    let widened = narrow.iter().map(|value| value.to_f32()).collect();
    let narrow = Features::from_bf16(narrow, copied.width()).unwrap();
    let widened = Features::from_f32(widened, copied.width()).unwrap();
    let params = params(0.1, Method::Features);
    assert_eq!(params.fit_rows(&narrow, &labels).unwrap(), params.fit_rows(&widened, &labels).unwrap());
}

#[test]
fn a_path_of_c_takes_fewer_passes_from_the_fit_before() {
    for (name, method) in [("features_tall", Method::Features), ("features_wide", Method::Gram)] {
        let case = case(name);
        let mut start: Option<LinearSvm> = None;
        let (mut cold, mut warm) = (0, 0);
        for (&c, expected) in case.c.iter().zip(&case.objectives) {
            let params = params(c, method);
            let mut last = 0;
            params.fit_with(&case.x, &case.y, None, &mut |progress| last = progress.passes).unwrap();
            cold += last;
            let mut events = Vec::new();
            let on_progress = &mut |progress| events.push(progress);
            let model = params.fit_with(&case.x, &case.y, start.as_ref(), on_progress).unwrap();
            warm += events.len();
            let last = events.last().unwrap();
            assert_eq!((last.passes, last.converged, last.problems), (events.len(), 10, 10));
            for ((found, _), expected) in plain_objectives(&model, &case.x, &case.y).iter().zip(expected) {
                assert!(*found <= expected * (1.0 + 1e-4), "{name}, c {c}: {found}, expected {expected}");
            }
            start = Some(model);
        }
        assert!(warm < cold, "{name}: {warm} passes, from zero {cold}");
        // A fit that starts at its solution takes few passes.
        let model = start.unwrap();
        let mut passes = 0;
        let params = params(model.c, method);
        params.fit_with(&case.x, &case.y, Some(&model), &mut |progress| passes = progress.passes).unwrap();
        assert!(passes < 60, "{name}: {passes}");
    }
}

#[test]
fn the_iteration_limit_is_reported() {
    let case = case("features_tall");
    let few = SvmParams::new().c(1.0).max_iterations(7).method(Method::Features).check().unwrap();
    let model = few.fit_rows(&case.x, &case.y).unwrap();
    for (exit, (objective, _)) in model.exits.iter().zip(plain_objectives(&model, &case.x, &case.y)) {
        assert_eq!(exit.reason, ExitReason::IterationLimit);
        assert!(
            exit.products <= 8 && (exit.objective - objective).abs() <= 1e-4 * objective,
            "{exit:?} {objective}"
        );
        // Better than weights of zero.
        assert!(objective < case.x.len() as f64);
    }
}

#[test]
fn linfas_svm_predicts_alike() {
    for (name, c) in [("two_tall", 0.1), ("features_wide", 0.01), ("constant_columns", 0.1)] {
        let case = case(name);
        let ours = params(c, Method::Automatic).fit_rows(&case.x, &case.y).unwrap();
        let theirs = hinge::fit(&params(c, Method::Automatic), &case.x, &case.y).unwrap();
        assert_eq!((&ours.classes, ours.weights.dim()), (&theirs.classes, theirs.weights.dim()));
        let (a, b) =
            (accuracy(&ours, &case.test_x, &case.test_y), accuracy(&theirs, &case.test_x, &case.test_y));
        assert!((a - b).abs() <= 0.1, "{name}: {a} and {b}");
    }
    let many = Features::from_f32(vec![0.0; 8193], 1).unwrap();
    let rejected = hinge::fit(&params(1.0, Method::Automatic), &many, &vec![0; 8193]);
    assert!(matches!(rejected, Err(SvmError::TooManyRows { rows: 8193, .. })), "{rejected:?}");
}

#[test]
fn invalid_fits_are_rejected() {
    let x = Features::from_f32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2).unwrap();
    let check = |params: SvmParams, x: &Features, y: &[usize], expected: &str| {
        for method in METHODS {
            let found =
                params.clone().method(method).check().and_then(|params| params.fit_rows(x, y)).unwrap_err();
            assert!(found.to_string().starts_with(expected), "{found}");
        }
    };
    let new = SvmParams::new;
    for c in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        check(new().c(c), &x, &[0, 1, 1], &format!("c is {c}, expected"));
    }
    for tolerance in [0.0, 1.0, f64::NAN] {
        check(new().tolerance(tolerance), &x, &[0, 1, 1], &format!("the tolerance is {tolerance}, expected"));
    }
    check(new().max_iterations(0), &x, &[0, 1, 1], "the iteration limit is 0");
    check(new(), &x, &[3, 3, 3], "the labels have 1 class");
    check(new(), &x, &[0, 1], "there are 2 labels for 3 rows");
    check(new(), &Features::from_f32(vec![], 2).unwrap(), &[], "there are 0 rows of 2 features");
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let damaged = Features::from_f32(vec![1.0, 2.0, 3.0, 4.0, 5.0, value], 2).unwrap();
        check(new(), &damaged, &[0, 1, 1], &format!("feature 1 of row 2 is {value}"));
        let model = params(1.0, Method::Features).fit_rows(&x, &[0, 1, 1]).unwrap();
        let expected = FeaturesError::NotFinite { row: 2, column: 1, value: value.to_string() };
        assert_eq!(model.predict(&damaged).unwrap_err(), SvmError::Features(expected));
    }
    let large = Features::from_f32(vec![1e38, -1e38, 2e38, 1e38, 3e38, 1e38], 2).unwrap();
    let found = params(1e300, Method::Features).fit_rows(&large, &[0, 1, 1]).unwrap_err();
    assert!(found.to_string().contains("scale them down"), "{found}");

    let model = params(1.0, Method::Features).fit_rows(&x, &[7, 2, 2]).unwrap();
    assert_eq!((&model.classes[..], model.weights.dim()), (&[2, 7][..], (1, 2)));
    let other = Features::from_f32(vec![0.0; 9], 3).unwrap();
    assert_eq!(model.predict(&other).unwrap_err(), SvmError::Width { expected: 2, found: 3 });
    let start = params(1.0, Method::Features).fit_with(&other, &[0, 1, 2], Some(&model), &mut |_| {});
    assert_eq!(start.unwrap_err(), SvmError::Start { expected: 3, found: 2 });
}
