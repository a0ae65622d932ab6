//! The protocols with a learner that records its fits.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small whole numbers kept as f32"
)]

use super::draws::Classes;
use super::*;
use std::cell::RefCell;
use std::rc::Rc;

/// Rows and C of every fit.
type Fits = Rc<RefCell<Vec<(Vec<usize>, f64)>>>;

/// Records the rows and C of every fit; its predictions are correct if C is near 0.01.
struct Recorder {
    fitted: Fits,
}

struct Constant(f64);

impl Learner for Recorder {
    fn path(&mut self, examples: &Examples, grid: &[f64]) -> Result<Vec<Box<dyn Predictor>>, ProtocolError> {
        let mut row = vec![0.0; examples.features.width()];
        let rows: Vec<usize> = (0..examples.features.len())
            .map(|i| {
                examples.features.copy_row(i, &mut row);
                row[0] as usize
            })
            .collect();
        Ok(grid
            .iter()
            .map(|&c| {
                self.fitted.borrow_mut().push((rows.clone(), c));
                Box::new(Constant(c)) as Box<dyn Predictor>
            })
            .collect())
    }
}

impl Predictor for Constant {
    /// Feature 1 is the class. The prediction is correct if feature 2 is above the distance of C from 0.01 in decades.
    fn predict(&self, features: &Features) -> Result<Vec<usize>, ProtocolError> {
        let mut row = vec![0.0; features.width()];
        let distance = (self.0 / 0.01).log10().abs();
        Ok((0..features.len())
            .map(|i| {
                features.copy_row(i, &mut row);
                let correct = f64::from(row[2]) > distance;
                if correct { row[1] as usize } else { usize::MAX }
            })
            .collect())
    }
}

/// Rows (index, class, ease) of `n` images of three classes.
fn examples(n: usize, first: usize) -> Examples {
    let labels: Vec<usize> = (0..n).map(|i| (i + first) % 3).collect();
    let values = (0..n).flat_map(|i| [(i + first) as f32, labels[i] as f32, 0.5 + (i % 4) as f32]).collect();
    Examples { features: Features::from_f32(values, 3).unwrap(), labels }
}

fn names() -> Vec<String> {
    ["cat", "dog", "elk"].map(String::from).into()
}

fn grid() -> Grid {
    Grid { values: vec![1e-4, 1e-3, 1e-2, 1e-1], open: false }
}

#[test]
fn few_labels_choose_c_on_held_out_images_and_test_on_new_draws() {
    let (pool, held_out) = examples(90, 0).split_last(30).unwrap();
    let test = examples(40, 1000);
    let splits = few::Splits { pool, held_out, test, class_names: names() };
    let protocol = few::FewLabels { per_class: 5, selection_draws: 3, repeats: 4, seed: 7 };
    let fitted = Rc::new(RefCell::new(Vec::new()));
    let run = || {
        fitted.borrow_mut().clear();
        let mut learner = Recorder { fitted: fitted.clone() };
        few::run(&protocol, &grid(), &splits, &mut learner, &mut NoProgress).unwrap()
    };
    let outcome = run();
    let first = fitted.borrow().clone();
    // Three draws for each of four C, then four draws at the best.
    assert_eq!(first.len(), 3 * 4 + 4);
    for (rows, c) in &first {
        let mut classes: Vec<usize> = rows.iter().map(|row| row % 3).collect();
        classes.sort_unstable();
        assert_eq!(classes, [[0; 5], [1; 5], [2; 5]].concat(), "five per class");
        assert!(rows.iter().all(|&row| row < 60), "held-out and test images are not fitted");
        let distinct: std::collections::BTreeSet<_> = rows.iter().collect();
        assert_eq!(distinct.len(), 15, "drawn without replacement");
        assert!(grid().values.contains(c));
    }
    assert!(first[12..].iter().all(|(_, c)| *c == 1e-2));
    assert_ne!(first[0].0, first[12].0, "test draws are new");
    assert_ne!(first[12].0, first[13].0);
    assert_eq!((outcome.c, outcome.train, outcome.held_out, outcome.test), (1e-2, 15, 30, 40));
    // At the best C every prediction is correct; one decade off, those of ease 0.5 are wrong: every fourth.
    assert_eq!((outcome.error_percent, outcome.interval95), (0.0, Some(0.0)));
    assert_eq!(outcome.per_class_accuracy, [Some(100.0); 3]);
    let errors: Vec<f64> = outcome.validation.iter().map(|v| v.1).collect();
    assert_eq!(errors[2], 0.0);
    assert!(errors[0] > errors[1] && errors[1] > 20.0 && errors[3] == errors[1]);
    run();
    assert_eq!(*fitted.borrow(), first, "the same seed draws the same");
}

#[test]
fn all_labels_refit_all_training_images_at_the_best_c() {
    let (train, test) = (examples(90, 0), examples(40, 1000));
    let fitted = Rc::new(RefCell::new(Vec::new()));
    let mut learner = Recorder { fitted: fitted.clone() };
    let outcome = all::run(20, &grid(), (&train, &test), &names(), &mut learner, &mut NoProgress).unwrap();
    let fitted = fitted.borrow();
    assert_eq!(fitted.len(), 5);
    assert!(fitted[..4].iter().all(|(rows, _)| *rows == (0..70).collect::<Vec<_>>()));
    assert_eq!(fitted[4], ((0..90).collect(), 1e-2));
    assert_eq!((outcome.c, outcome.error_percent, outcome.train, outcome.held_out), (1e-2, 0.0, 90, 20));
    let mut learner = Recorder { fitted: Rc::default() };
    let fixed = Grid { values: vec![1e-1], open: false };
    let outcome = all::run(20, &fixed, (&train, &test), &names(), &mut learner, &mut NoProgress).unwrap();
    assert_eq!((outcome.error_percent, outcome.validation.len()), (25.0, 0));
    let expected = 196.0 * (0.25_f64 * 0.75 / 40.0).sqrt();
    assert!((outcome.interval95.unwrap() - expected).abs() < 1e-9);
}

#[test]
fn errors_name_the_class_and_the_numbers() {
    let mut learner = Recorder { fitted: Rc::default() };
    let train = examples(30, 0);
    let short = Classes::new(&train.labels, &[names(), vec!["fox".into()]].concat(), 1).unwrap_err();
    assert!(
        short.to_string().contains("class 3 (fox) has 0 training images, expected at least 1"),
        "{short}"
    );
    let short = Classes::new(&train.labels, &names(), 11).unwrap_err();
    assert!(
        short.to_string().contains("class 0 (cat) has 10 training images, expected at least 11"),
        "{short}"
    );
    for held_out in [0, 30, 31] {
        assert!(matches!(train.split_last(held_out), Err(ProtocolError::TooFew { images: 30, .. })));
    }
    let none = examples(0, 0);
    let found = all::run(5, &grid(), (&train, &none), &names(), &mut learner, &mut NoProgress);
    assert!(matches!(found, Err(ProtocolError::NoTest)));
}
