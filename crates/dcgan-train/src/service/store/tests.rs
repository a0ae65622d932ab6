//! Transitions that no request brings about: deaths of the service, a full disk, another version's file.

use super::*;
use std::fs;

#[test]
fn jobs_that_take_the_service_down_wait_for_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let first = store.submit("{}", "", 10).unwrap().id;
    let second = store.submit("{}", "", 10).unwrap().id;
    let claim = || store.claim().unwrap().unwrap().id;
    for _ in 0..PATIENCE {
        assert_eq!(claim(), first, "an interrupted job goes on before those that wait");
        assert_eq!(store.recover().unwrap(), 1);
    }
    assert_eq!(claim(), second);
    assert_eq!(store.end(&second, &Outcome::Done).unwrap(), JobState::Done);
    assert_eq!(claim(), first, "and is not forgotten");
    store.set_progress(&first, 9, 144).unwrap();
    // What was wanted of a running job holds across a death.
    for (ask, state) in [(Ask::Pause, JobState::Paused), (Ask::Cancel, JobState::Cancelled)] {
        let before = store.get(&first).unwrap();
        assert_eq!(store.recall(&first), Some(before));
        assert_eq!(store.ask(&first, ask).unwrap().state, JobState::Running);
        assert_eq!(store.recall(&first), None, "what is known is not out of date");
        assert_eq!(store.recover().unwrap(), 1);
        let job = store.get(&first).unwrap();
        assert_eq!((job.state, job.wanted, job.step), (state, None, 9));
        assert_eq!(job.ended_ms.is_some(), state.is_final());
        if state == JobState::Paused {
            store.ask(&first, Ask::Resume).unwrap();
            assert_eq!(claim(), first);
        }
    }
    assert_eq!(store.recover().unwrap(), 0);
}

#[test]
fn a_full_disk_changes_nothing_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let limit = |pages: u32| store.lock().pragma_update(None, "max_page_count", pages).unwrap();
    let options = "x".repeat(10_000);
    limit(20);
    let mut taken = 0;
    let error = loop {
        match store.submit(&options, "", 1000) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 100);
    };
    assert!(matches!(error, StoreError::DiskFull), "{error:?}");
    assert_eq!(store.list(None, None, 100).unwrap().len(), taken);
    limit(1_000_000);
    store.submit(&options, "", 1000).unwrap();
}

#[cfg(unix)]
#[test]
fn room_is_kept_for_changes_and_not_given_to_new_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let file = folder.path().join(RESERVE);
    assert!(!file.exists() && store.has_room());
    let bytes = fs::metadata(&file).unwrap().len();
    assert!(bytes >= 1 << 20 && store.reserve.spend() && !store.reserve.spend() && !file.exists());
    // The next try meets a full disk.
    std::os::unix::fs::symlink("/dev/full", folder.path().join(format!(".tmp-{RESERVE}"))).unwrap();
    assert!(matches!(store.submit("{}", "", 10), Err(StoreError::DiskFull)));
    assert!(store.list(None, None, 10).unwrap().is_empty() && !file.exists());
    store.submit("{}", "", 10).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), bytes);
}

#[test]
fn ids_sort_and_other_versions_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.sqlite");
    let store = Store::open(&path).unwrap();
    let ids: Vec<String> = (0..20).map(|_| store.submit("{}", "", 100).unwrap().id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b) && ids.iter().all(|id| id.len() == 16), "{ids:?}");
    assert_eq!(next_id(Some("ffffffffffff0000")), "ffffffffffff0001", "also when the clock was set back");
    assert!(matches!(store.submit("{}", "", 20), Err(StoreError::QueueFull { queued: 20 })));
    drop(store);
    assert_eq!(Store::open(&path).unwrap().list(None, None, 100).unwrap().len(), 20);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Newer { .. })));
}
