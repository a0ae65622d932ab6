//! Transitions that no request causes: crashes of the service, a full disk, a newer schema.

use super::*;
use std::fs;

#[test]
fn jobs_that_crash_the_service_are_claimed_after_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let first = store.submit("{}", "", 10).unwrap().id;
    let second = store.submit("{}", "", 10).unwrap().id;
    let claim = || store.claim().unwrap().unwrap().id;
    for _ in 0..MAX_CRASHES {
        assert_eq!(claim(), first, "an interrupted job precedes queued ones");
        assert_eq!(store.recover().unwrap(), 1);
    }
    assert_eq!(claim(), second);
    assert_eq!(store.finish(&second, &Outcome::Done).unwrap(), JobState::Done);
    assert_eq!(claim(), first, "it stays in the queue");
    store.set_progress(&first, 9, 144).unwrap();
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
fn a_submission_on_a_full_disk_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let limit = |pages: u32| store.lock().pragma_update(None, "max_page_count", pages).unwrap();
    let options = "x".repeat(10_000);
    limit(20);
    let mut accepted = 0;
    let error = loop {
        match store.submit(&options, "", 1000) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100);
    };
    assert!(matches!(error, StoreError::DiskFull), "{error:?}");
    assert_eq!(store.list(None, None, 100).unwrap().len(), accepted);
    limit(1_000_000);
    store.submit(&options, "", 1000).unwrap();
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
    assert!(matches!(store.submit("{}", "", 10), Err(StoreError::DiskFull)));
    fs::remove_dir(&temporary).unwrap();
    assert!(store.list(None, None, 10).unwrap().is_empty() && !file.exists());
    store.submit("{}", "", 10).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), bytes);
}

#[test]
fn ids_sort_by_time_and_a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.sqlite");
    let store = Store::open(&path).unwrap();
    let ids: Vec<String> = (0..20).map(|_| store.submit("{}", "", 100).unwrap().id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b) && ids.iter().all(|id| id.len() == 16), "{ids:?}");
    assert_eq!(next_id(Some("ffffffffffff0000")), "ffffffffffff0001", "even if the clock was set back");
    assert!(matches!(store.submit("{}", "", 20), Err(StoreError::QueueFull { queued: 20 })));
    drop(store);
    assert_eq!(Store::open(&path).unwrap().list(None, None, 100).unwrap().len(), 20);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::NewerSchema { .. })));
}
