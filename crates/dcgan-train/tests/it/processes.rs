//! Runs of several processes, as threads: the same bytes as one process, and an end of all when one cannot continue.

use crate::defaults::write_images;
use crate::support::{TINY, assert_same_run};
use dcgan_data::ImageShape;
use dcgan_ops::Device;
use dcgan_train::config::{Plan, RunOptions};
use dcgan_train::error::TrainError;
use dcgan_train::inputs::{self, Opening};
use dcgan_train::options::{self, Values};
use dcgan_train::run_folder::RunFolder;
use dcgan_train::trainer::{self, Inputs, RunEnd};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

#[path = "../../../dcgan-ops/tests/threads/mod.rs"]
mod threads;

const SHARDS: usize = 4;

/// The plan of a run on the images in `data`.
fn plan(data: &Path, more: &Value) -> Plan {
    let mut options = json!({
        "data": data, "steps": 6, "batch_size": 8, "shards": SHARDS, "checkpoint_every": 3, "sample_every": 4,
        "log_every": 2, "device": "cpu", "seed": 5,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        options[name] = value.clone();
    }
    let name_of = |name: &String| options::all().find(|option| option.name == name).unwrap().name;
    let given = options.as_object().unwrap().iter();
    let values: Values = given.map(|(name, value)| (name_of(name), value.clone())).collect();
    let config = Some((PathBuf::from("tiny.toml"), TINY.to_owned()));
    Plan::resolve(&RunOptions::new(values, config).unwrap()).unwrap()
}

/// What the ranks of a run end with. The process `stopped.0` is asked to stop at step `stopped.1`; `spoil` gets the
/// run folder before the first step.
fn run(
    folder: &Path,
    processes: usize,
    plan_of: impl Fn(usize) -> Plan + Sync,
    stopped: Option<(usize, u64)>,
    spoil: impl Fn(&Path) + Sync,
) -> Vec<Result<Option<RunEnd>, TrainError>> {
    threads::in_processes(processes, |group, rank| {
        let mut plan = plan_of(rank);
        let opened = inputs::open(&mut plan, Device::Cpu, &Opening { is_new: true, ..Opening::default() });
        let inputs = Inputs { group, ..opened.unwrap() };
        let step = AtomicU64::new(0);
        let mut progress = |taken: u64, _: u64| step.store(taken, Ordering::Relaxed);
        let cancelled = || stopped.is_some_and(|(of, at)| of == rank && step.load(Ordering::Relaxed) >= at);
        if rank > 0 {
            return trainer::follow(&plan, inputs, &mut progress, &cancelled).map(|_| None);
        }
        let folder = if folder.exists() {
            RunFolder::open(folder).unwrap().0
        } else {
            let new = RunFolder::create(folder).unwrap();
            new.begin(&plan).unwrap();
            new
        };
        spoil(folder.path());
        trainer::run(&folder, &plan, inputs, &mut |_| {}, &mut progress, &cancelled).map(Some)
    })
}

fn images(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    write_images(&data, 20, ImageShape { height: 8, width: 8, channels: 1 });
    data
}

#[test]
fn any_number_of_processes_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = images(here);
    let rows = [
        json!({ "ema": 0.5, "mirror": true }),
        json!({ "order": "alternate", "dtype": "bf16", "weight_decay": 1e-4 }),
        json!({ "batch_norm": "shard" }),
    ];
    for (row, more) in rows.iter().enumerate() {
        let path = |name: &str| here.join(format!("{name}-{row}"));
        let ends = run(&path("one"), 1, |_| plan(&data, more), None, |_| {});
        assert!(matches!(ends[0], Ok(Some(RunEnd::Finished(_)))), "{ends:?}");
        for processes in [2, 4] {
            let out = path(&format!("of-{processes}"));
            let ends = run(&out, processes, |_| plan(&data, more), None, |_| {});
            assert!(ends.iter().all(Result::is_ok), "{ends:?}");
            assert_same_run(&path("one"), &out);
        }
        // Any process may be asked to stop; others may continue.
        let out = path("stopped");
        for (processes, rank, at) in [(4, 3, 2), (2, 0, 4)] {
            let ends = run(&out, processes, |_| plan(&data, more), Some((rank, at)), |_| {});
            assert!(matches!(ends[0], Ok(Some(RunEnd::Interrupted { .. }))), "{ends:?}");
        }
        run(&out, 1, |_| plan(&data, more), None, |_| {});
        assert_same_run(&path("one"), &out);
    }
    for (row, text) in [(0, "batch norm over all of them"), (2, "in 4 shards, batch norm over the 2 of each")]
    {
        let card = fs::read_to_string(here.join(format!("of-4-{row}/best/README.md"))).unwrap();
        assert!(card.contains(text), "{card}");
    }
    // One shard has the bytes of before there were shards, which are others.
    let whole = json!({ "ema": 0.5, "mirror": true, "shards": 1 });
    run(&here.join("whole"), 1, |_| plan(&data, &whole), None, |_| {});
    let weights = |run: &str| fs::read(here.join(run).join("best/discriminator.safetensors")).unwrap();
    assert!(weights("whole") != weights("one-0"));
}

#[test]
fn a_process_that_cannot_go_on_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = images(here);
    // Another plan; fewer shards than processes.
    let ends = run(&here.join("a"), 2, |rank| plan(&data, &json!({ "seed": rank })), None, |_| {});
    for end in &ends {
        let Err(TrainError::OtherSetup { process, what: "plan" }) = end else { panic!("{end:?}") };
        assert_eq!(process, "rank 1");
    }
    let ends = run(&here.join("b"), 4, |_| plan(&data, &json!({ "shards": 2 })), None, |_| {});
    assert!(ends.iter().all(|end| matches!(end, Err(TrainError::Processes { processes: 4, shards: 2 }))));
    // Rank 0 cannot write: before the first step, and in the middle of the run.
    for (name, file) in [("c", "samples"), ("d", "samples/00000032.png")] {
        let out = here.join(name);
        let spoil = |folder: &Path| match file {
            "samples" => fs::write(folder.join(file), "").unwrap(),
            _ => fs::create_dir_all(folder.join(file)).unwrap(),
        };
        let ends = run(&out, 2, |_| plan(&data, &Value::Null), None, spoil);
        assert!(matches!(ends[0], Err(TrainError::Folder { .. })), "{ends:?}");
        let Err(TrainError::OtherProcess { process }) = &ends[1] else { panic!("{ends:?}") };
        assert_eq!(process, "rank 0");
    }
    // The steps before the failure are saved, and any number of processes resumes.
    let checkpoints = dcgan_model::checkpoints::list(&here.join("d/checkpoints")).unwrap();
    assert_eq!(checkpoints.last(), Some(&4));
    fs::remove_dir(here.join("d/samples/00000032.png")).unwrap();
    run(&here.join("d"), 4, |_| plan(&data, &Value::Null), None, |_| {});
    run(&here.join("whole"), 1, |_| plan(&data, &Value::Null), None, |_| {});
    assert_same_run(&here.join("whole"), &here.join("d"));
}
