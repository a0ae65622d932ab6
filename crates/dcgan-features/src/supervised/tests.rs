//! The search on images of stripes: it learns, is reproducible, and rejects invalid input.

use super::*;
use dcgan_model::Preset;
use rand::RngCore;

const SIDE: usize = 8;
const CLASSES: usize = 3;

/// D of 8 x 8 grey images with blocks of 4 and 8 channels.
fn model() -> Model {
    let mut config = Preset::named("pytorch32").unwrap().model;
    (config.height, config.width, config.channels) = (SIDE, SIDE, 1);
    config.generator.blocks.truncate(1);
    config.generator.blocks[0].channels = 1;
    config.generator.project_channels = 1;
    config.discriminator.blocks.truncate(2);
    for (block, channels) in config.discriminator.blocks.iter_mut().zip([4, 8]) {
        block.channels = channels;
    }
    Model::new(config).unwrap()
}

/// `n` images of horizontal, vertical or crossed stripes with noise, and their labels in turn.
fn stripes(n: usize, seed: u64) -> (Vec<u8>, Vec<u32>) {
    let mut rng = random::stream(seed, Purpose::SyntheticImages, 0);
    let labels: Vec<u32> = (0..3).cycle().take(n).collect();
    let mut pixels = Vec::new();
    for label in &labels {
        for (y, x) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y, x))) {
            let on = match label {
                0 => y % 2,
                1 => x % 2,
                _ => (x + y) % 2,
            };
            let noise = u8::try_from(rng.next_u32() % 120).unwrap();
            pixels.push(if on == 1 { 135 + noise } else { noise });
        }
    }
    (pixels, labels)
}

fn ranges() -> Ranges {
    Ranges { learning_rate: [2e-3, 2e-2], batch_size: [8, 16], epochs: [3, 5], ..Ranges::default() }
}

/// Calls `body` with a task of 45 training and 30 validation images.
fn with_task<T>(body: impl FnOnce(Task<'_>) -> T) -> T {
    let model = model();
    let (training, validation) = (stripes(45, 1), stripes(30, 2));
    body(Task {
        model: &model,
        classes: CLASSES,
        training: LabeledImages { pixels: &training.0, labels: &training.1 },
        validation: LabeledImages { pixels: &validation.0, labels: &validation.1 },
        evaluate_every: 2,
        device: &Device::Cpu,
    })
}

fn on(
    threads: usize,
    task: &Task<'_>,
    seed: u64,
    trials: std::ops::Range<u64>,
) -> (SearchResult, Vec<Event>) {
    let mut events = Vec::new();
    let mut on_event = |event| {
        events.push(event);
        ControlFlow::Continue(())
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let found = pool.install(|| search(task, &ranges(), seed, trials, &mut on_event)).unwrap();
    (found, events)
}

#[test]
fn a_search_learns_and_is_reproducible() {
    with_task(|task| {
        let (found, events) = on(1, &task, 5, 0..4);
        assert!(found.validation_error_percent < 20.0, "{found:?}"); // chance: 66.7
        assert_eq!(found.best.best.unwrap().validation_error_percent, found.validation_error_percent);
        // A search that was interrupted after some trials, or after all of them.
        for known in [2, 4] {
            let mut finished = 0;
            let mut on_event = |event| {
                finished += usize::from(matches!(event, Event::Finished(_)));
                ControlFlow::Continue(())
            };
            let trials = (0..4, &found.trials[..known]);
            let continued = search_from(&task, &ranges(), 5, trials, &mut on_event).unwrap();
            assert_eq!((finished, continued.trials.as_slice()), (4 - known, found.trials.as_slice()));
            assert_eq!((continued.best, &continued.weights), (found.best, &found.weights));
        }
        // The returned weights are the evaluated ones and generalize to new images.
        let mut classifier = Classifier::new(task.model, CLASSES, &found.weights, task.device).unwrap();
        let again = error_percent(&mut classifier, task.model, task.validation).unwrap();
        assert_eq!(again, found.validation_error_percent);
        let (pixels, labels) = stripes(60, 3);
        let test = LabeledImages { pixels: &pixels, labels: &labels };
        assert!(error_percent(&mut classifier, task.model, test).unwrap() < 25.0);
        // Every trial has events; its best evaluation is the lowest, the first of equal ones.
        let evaluated = |summary: &TrialSummary| {
            let errors = events.iter().filter_map(|event| match event {
                Event::Evaluated { index, evaluation } if *index == summary.index => Some(*evaluation),
                _ => None,
            });
            errors.collect::<Vec<_>>()
        };
        for summary in &found.trials {
            let evaluations = evaluated(summary);
            let epochs: Vec<usize> = evaluations.iter().map(|evaluation| evaluation.epoch).collect();
            let expected = [&[2, 3][..], &[2, 4], &[2, 4, 5]];
            assert_eq!(epochs, expected[summary.trial.epochs - 3]);
            let error = |evaluation: &&Evaluation| evaluation.validation_error_percent;
            let lowest = evaluations.iter().min_by(|a, b| error(a).total_cmp(&error(b))).unwrap();
            assert_eq!(summary.best.unwrap(), *lowest);
            assert!(events.contains(&Event::Finished(*summary)));
            assert!(lowest.validation_error_percent >= found.validation_error_percent);
        }
        // The same on two threads and in two halves, different for another seed.
        let (same, same_events) = on(2, &task, 5, 0..4);
        assert_eq!((&same.weights, same.best, &same_events), (&found.weights, found.best, &events));
        let (half, _) = on(2, &task, 5, 2..4);
        assert_eq!(half.trials, found.trials[2..]);
        let (other, _) = on(2, &task, 6, 0..1);
        assert_ne!(other.trials[0].trial, found.trials[0].trial);
    });
}

#[test]
fn trials_are_within_their_ranges_and_differ() {
    let ranges = Ranges::default();
    let trials: Vec<Trial> = (0..64).map(|index| ranges.draw(9, index)).collect();
    for trial in &trials {
        trial.check().unwrap();
        assert!(trial.learning_rate >= 1e-4 && trial.learning_rate <= 1e-2);
        assert!(trial.beta1 >= 0.5 && trial.beta1 <= 0.9);
        assert!((16..=128).contains(&trial.batch_size) && (20..=100).contains(&trial.epochs));
    }
    // Log-uniform: half of the draws lie below the geometric mean.
    let low = trials.iter().filter(|trial| trial.learning_rate < 1e-3).count();
    assert!((20..=44).contains(&low), "{low} of 64");
    let seeds: std::collections::BTreeSet<u64> = trials.iter().map(|trial| trial.seed).collect();
    assert_eq!(seeds.len(), trials.len());
    let same = Ranges { epochs: [7, 7], ..ranges };
    assert_eq!(same.draw(0, 0).epochs, 7);
}

#[test]
fn diverged_training_ends_and_is_reported() {
    with_task(|task| {
        // The head has no batch norm: a step this large overflows it.
        let trial = Trial { learning_rate: 1e38, ..ranges().draw(0, 0) };
        let ended = train(&task, &trial, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(ended.diverged_in_epoch.is_some(), "{ended:?}");
        let ranges = Ranges { learning_rate: [1e38, 1e38], ..ranges() };
        let all = search(&task, &ranges, 0, 0..2, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(all, Err(SupervisedError::AllDiverged { trials: 2 })), "{all:?}");
    });
}

#[test]
fn invalid_tasks_are_rejected() {
    let (pixels, labels) = stripes(6, 4);
    let rejects = |change: &dyn for<'a> Fn(&mut Task<'a>, LabeledImages<'a>), expected: &str| {
        let given = LabeledImages { pixels: &pixels, labels: &labels };
        with_task(|task| {
            let mut task = Task { training: given, ..task };
            change(&mut task, given);
            let found = search(&task, &ranges(), 0, 0..1, &mut |_| ControlFlow::Continue(()));
            assert_eq!(found.unwrap_err().to_string(), expected);
        });
    };
    rejects(
        &|task, _| task.validation = LabeledImages { pixels: &[], labels: &[] },
        "there are no validation images",
    );
    rejects(
        &|task, given| task.training.labels = &given.labels[..5],
        "384 bytes of training pixels for 5 labels, expected 320: 64 per image",
    );
    rejects(
        &|task, given| {
            task.training = LabeledImages { pixels: &given.pixels[..128], labels: &given.labels[..2] };
        },
        "class 2 has no training image",
    );
    rejects(&|task, _| task.classes = 2, "training image 2 has label 2, expected below 2");
    rejects(
        &|task, _| task.classes = 1,
        "the network configuration has 1 fault(s): a classifier of 1 class(es), expected at least 2",
    );
    rejects(&|task, _| task.evaluate_every = 0, "evaluate_every is 0, expected at least 1");
    with_task(|task| {
        let run = |ranges: Ranges, trials| search(&task, &ranges, 0, trials, &mut |_| ControlFlow::Break(()));
        let message = |ranges, trials| run(ranges, trials).unwrap_err().to_string();
        assert_eq!(message(ranges(), 3..3), "trials is 3..3, expected at least one");
        let reversed = Ranges { beta1: [0.9, 0.5], ..ranges() };
        assert_eq!(message(reversed, 0..1), "beta1 is 0.9 to 0.5, expected the lower end first");
        let zero = Ranges { batch_size: [0, 8], ..ranges() };
        assert_eq!(message(zero, 0..1), "batch_size is 0, expected at least 1");
        assert_eq!(message(ranges(), 0..1), "stopped");
    });
}

#[test]
fn batches_have_nearly_equal_sizes() {
    let rows: Vec<usize> = (0..1000).collect();
    for (n, size, expected) in [(1000, 128, 8), (10, 128, 1), (129, 128, 2), (3, 1, 3), (128, 128, 1)] {
        let batches: Vec<&[usize]> = batches(&rows[..n], size).collect();
        let sizes = batches.iter().map(|batch| batch.len());
        assert_eq!(batches.concat(), rows[..n]);
        assert_eq!(batches.len(), expected);
        assert!(
            sizes.clone().max().unwrap() <= size && sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1
        );
    }
}
