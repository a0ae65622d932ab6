//! Transitions that no request causes: crashes of the service, a full disk, a newer schema.

use super::*;
use crate::service::keep_done::KeepDone;
use crate::service::record::{Command, Remedy};
use dcgan_model::{Device, DeviceChoice};
use std::fs;

fn job(options: &str) -> NewJob {
    NewJob { options: options.to_owned(), ..NewJob::default() }
}

fn device(choice: DeviceChoice) -> WorkerDevice {
    WorkerDevice { label: choice.to_string(), choice, device: Device::Cpu, threads: None }
}

fn cpu() -> Vec<WorkerDevice> {
    vec![device(DeviceChoice::Cpu)]
}

#[test]
fn jobs_that_crash_the_service_are_claimed_after_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let first = store.submit(&job("{}"), 10).unwrap().id;
    let second = store.submit(&job("{}"), 10).unwrap().id;
    let device = cpu();
    let claim = || store.claim(&device[0], &device).unwrap().unwrap().id;
    for _ in 0..MAX_CRASHES {
        assert_eq!(claim(), first, "an interrupted job precedes queued ones");
        assert_eq!(store.recover().unwrap(), 1);
    }
    assert_eq!(claim(), second);
    assert_eq!(store.finish(&second, &Outcome::Done).unwrap(), JobState::Done);
    assert_eq!(claim(), first, "it stays in the queue");
    store.set_progress(&first, 9, 144, None).unwrap();
    // The pending state of a running job survives a crash.
    for (command, state) in [(Command::Pause, JobState::Paused), (Command::Cancel, JobState::Cancelled)] {
        let before = store.get(&first).unwrap();
        assert_eq!(store.get_cached(&first), Some(before));
        assert_eq!(store.apply(&first, command).unwrap().state, JobState::Running);
        assert_eq!(store.get_cached(&first), None, "the cache is not stale");
        assert_eq!(store.recover().unwrap(), 1);
        let job = store.get(&first).unwrap();
        assert_eq!((job.state, job.pending_state, job.step), (state, None, 9));
        assert_eq!(job.ended_ms.is_some(), state.is_final());
        if state == JobState::Paused {
            store.apply(&first, Command::Resume).unwrap();
            assert_eq!(claim(), first);
        }
    }
    assert_eq!(store.recover().unwrap(), 0);
}

#[test]
fn what_a_resumed_job_does_once_lasts_until_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let id = store.submit(&job("{}"), 10).unwrap().id;
    let device = cpu();
    let claim = || store.claim(&device[0], &device).unwrap().unwrap();
    assert_eq!(claim().once, Once::default());
    let remedy = Remedy { option: "skip_bad".into(), effect: "an \"effect\"".into() };
    let failed = || Outcome::Failed { error: "an error".into(), remedy: Some(remedy.clone()) };
    store.finish(&id, &failed()).unwrap();
    assert_eq!(store.get(&id).unwrap().remedy, Some(remedy.clone()));
    let resume = |once| {
        let change = Change {
            options: "{}".into(),
            plan: String::new(),
            requested_device: None,
            total_steps: None,
            once,
        };
        store.resume_with(&id, &change, || Ok(())).unwrap()
    };
    let both = Once { accept_data_change: true, skip_again: true };
    let queued = resume(both);
    assert_eq!((queued.once, queued.remedy, queued.error), (both, None, None));
    // It lasts over crashes, pauses and other resumes.
    for _ in 0..2 {
        assert_eq!(claim().once, both);
        store.recover().unwrap();
    }
    claim();
    store.apply(&id, Command::Pause).unwrap();
    assert_eq!(store.finish(&id, &Outcome::Stopped).unwrap(), JobState::Paused);
    assert_eq!(resume(Once::default()).once, both);
    claim();
    store.end_once(&id).unwrap();
    assert_eq!(store.get(&id).unwrap().once, Once::default());
    store.finish(&id, &Outcome::Stopped).unwrap();
    // It ends with the job.
    for (end, state) in [(failed(), JobState::Failed), (Outcome::Done, JobState::Done)] {
        resume(both);
        assert_eq!(claim().once, both);
        assert_eq!(store.finish(&id, &end).unwrap(), state);
        let job = store.get(&id).unwrap();
        assert_eq!((job.once, job.remedy.is_some()), (Once::default(), state == JobState::Failed));
    }
}

#[test]
fn a_submission_on_a_full_disk_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let limit = |pages: u32| store.lock().pragma_update(None, "max_page_count", pages).unwrap();
    let options = "x".repeat(10_000);
    limit(20);
    let mut accepted = 0;
    let error = loop {
        match store.submit(&job(&options), 1000) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100);
    };
    assert!(matches!(error, StoreError::DiskFull), "{error:?}");
    assert_eq!(store.list(None, None, 100).unwrap().len(), accepted);
    limit(1_000_000);
    store.submit(&job(&options), 1000).unwrap();
}

#[test]
fn the_disk_reserve_is_for_transitions_and_not_for_new_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let file = folder.path().join(RESERVE);
    assert!(!file.exists() && store.has_room());
    let bytes = fs::metadata(&file).unwrap().len();
    assert!(bytes >= 1 << 20 && store.reserve.release() && !store.reserve.release() && !file.exists());
    // The next allocation fails, as on a full disk: its temporary file cannot be created.
    let temporary = folder.path().join(format!(".tmp-{RESERVE}"));
    fs::create_dir(&temporary).unwrap();
    assert!(matches!(store.submit(&job("{}"), 10), Err(StoreError::DiskFull)));
    fs::remove_dir(&temporary).unwrap();
    assert!(store.list(None, None, 10).unwrap().is_empty() && !file.exists());
    store.submit(&job("{}"), 10).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), bytes);
}

#[test]
fn ids_sort_by_time_and_a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.sqlite");
    let store = Store::open(&path).unwrap();
    let ids: Vec<String> = (0..20).map(|_| store.submit(&job("{}"), 100).unwrap().id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b) && ids.iter().all(|id| id.len() == 16), "{ids:?}");
    assert_eq!(next_id(Some("ffffffffffff0000")), "ffffffffffff0001", "even if the clock was set back");
    assert!(matches!(store.submit(&job("{}"), 20), Err(StoreError::QueueFull { queued: 20 })));
    drop(store);
    assert_eq!(Store::open(&path).unwrap().list(None, None, 100).unwrap().len(), 20);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::NewerSchema { .. })));
}

#[test]
fn jobs_wait_for_their_device_and_stay_on_its_kind() {
    use DeviceChoice::{Cpu, Cuda};
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let submit = |requested: Option<&str>| {
        let job = NewJob { requested_device: requested.map(str::to_owned), ..job("{}") };
        store.submit(&job, 10).unwrap().id
    };
    let all = [device(Cuda(0)), device(Cuda(1)), device(Cpu)];
    let claim =
        |index: usize| store.claim(&all[index], &all).unwrap().map(|job| (job.id, job.device.unwrap()));
    let (second_gpu, any, cpu) = (submit(Some("cuda:1")), submit(None), submit(Some("cpu")));
    assert_eq!(claim(0), Some((any.clone(), "cuda:0".into())));
    assert_eq!(claim(0), None, "the other jobs name other devices");
    assert_eq!(claim(2), Some((cpu, "cpu".into())));
    assert_eq!(claim(1), Some((second_gpu, "cuda:1".into())));
    // A job that has run on a GPU continues on one, on whichever is free.
    assert_eq!(store.recover().unwrap(), 3);
    assert_eq!(claim(2).unwrap().1, "cpu");
    assert_eq!(claim(2), None);
    assert_eq!(claim(1).unwrap().1, "cuda:1");
    store.recover().unwrap();
    // Where another kind is requested, it does not wait for the kind that it ran on.
    store.apply(&any, Command::Pause).unwrap();
    let change = |device: &str| Change {
        options: "{}".to_owned(),
        plan: String::new(),
        requested_device: Some(device.to_owned()),
        total_steps: None,
        once: Once::default(),
    };
    store.resume_with(&any, &change("cpu"), || Ok(())).unwrap();
    assert_eq!(store.get(&any).unwrap().device, None);
    assert_eq!(claim(2).unwrap().0, any);
    store.recover().unwrap();
    // Devices that the service no longer has are ignored.
    let cpus = super::tests::cpu();
    for _ in 0..3 {
        assert_eq!(store.claim(&cpus[0], &cpus).unwrap().unwrap().device.unwrap(), "cpu");
    }
    assert_eq!(store.get(&any).unwrap().device.as_deref(), Some("cpu"));
}

#[test]
fn old_databases_get_names_and_keep_their_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.sqlite");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(schema::VERSION_1).unwrap();
    let rows = [
        ("1", r#"{"preset":"digits"}"#, "[model]\nname = \"digits\"", "digits on the embedded digits"),
        ("2", r#"{"data":"faces"}"#, "[model]\nname = \"faces64\"", "faces64 on faces"),
        ("3", "not JSON", "not TOML", "digits on the embedded digits"),
    ];
    for (id, options, plan, _) in rows {
        let insert =
            "INSERT INTO jobs (id, state, options, plan, created_ms) VALUES (?1, 'done', ?2, ?3, 86399000)";
        old.execute(insert, params![id, options, plan]).unwrap();
    }
    old.pragma_update(None, "user_version", 1).unwrap();
    drop(old);
    for _ in 0..2 {
        let store = Store::open(&path).unwrap();
        for (id, _, _, name) in rows {
            let job = store.get(id).unwrap();
            assert_eq!((job.name.as_str(), job.created.as_str()), (name, "1970-01-01T23:59:59Z"));
            assert_eq!((job.state, job.device.clone(), job.optimizer_dropped), (JobState::Done, None, false));
        }
    }
}

#[test]
fn done_jobs_beyond_the_policy_lose_their_optimizer_state() {
    const DAY: i64 = 86_400_000;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let ids: Vec<String> = (0..5).map(|_| store.submit(&job("{}"), 10).unwrap().id).collect();
    for (id, (state, days)) in
        ids.iter().zip([("done", 40), ("failed", 39), ("done", 20), ("done", 1), ("paused", 50)])
    {
        let ended = now_ms() - days * DAY;
        let update = "UPDATE jobs SET state = ?2, ended_ms = ?3 WHERE id = ?1";
        store.lock().execute(update, params![id, state, ended]).unwrap();
    }
    for (policy, expected) in [
        (KeepDone::Jobs(3), vec![]),
        (KeepDone::Jobs(2), vec![0]),
        (KeepDone::Jobs(0), vec![0, 2, 3]),
        (KeepDone::Days(60), vec![]),
        (KeepDone::Days(30), vec![0]),
        (KeepDone::Days(0), vec![0, 2, 3]),
        (KeepDone::Days(u32::MAX), vec![]),
    ] {
        let expected: Vec<&String> = expected.iter().map(|i: &usize| &ids[*i]).collect();
        assert_eq!(store.beyond(policy).unwrap().iter().collect::<Vec<_>>(), expected, "{policy}");
    }
    assert!(store.drop_optimizer(&ids[0]).unwrap().optimizer_dropped);
    assert_eq!(store.beyond(KeepDone::Jobs(2)).unwrap(), Vec::<String>::new());
    assert_eq!(store.dropped().unwrap(), [ids[0].clone()]);
    for id in [&ids[1], &ids[4]] {
        assert!(matches!(store.drop_optimizer(id), Err(StoreError::Conflict { .. })), "it can be resumed");
    }
    assert!(matches!(store.apply(&ids[0], Command::Resume), Err(StoreError::OptimizerDropped)));
}
