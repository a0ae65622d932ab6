//! Indexes of large datasets: they give the same dataset, and none after a change.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dcgan_data::{Dataset, OpenOptions};

use crate::fixtures::{Folder, pixels, png, read, shape};

/// Sets the time of a file or folder to `seconds` after one in 2023.
fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

fn options(indexes: &Folder) -> OpenOptions {
    let index_folder = Some(indexes.path().to_owned());
    OpenOptions { index_folder, index_from: 1, ..OpenOptions::new(shape(5, 4, 3)) }
}

fn open(path: &Path, indexes: &Folder) -> Dataset {
    Dataset::open(path, &options(indexes)).unwrap()
}

fn count(folder: &Folder) -> usize {
    std::fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn folders_are_listed_once() {
    let folder =
        Folder::new(&[("b/2.png", png(2)), ("a/1.png", png(1)), ("b/3.png", png(3)), ("notes.txt", vec![])]);
    let indexes = Folder::new(&[]);
    let settle = |seconds| {
        ["a", "b", "."].into_iter().for_each(|path| set_time(&folder.join(path), seconds));
    };
    // A folder that has just changed may change again with the same time.
    let first = open(folder.path(), &indexes);
    assert_eq!(count(&indexes), 0);
    settle(0);
    open(folder.path(), &indexes);
    assert_eq!(count(&indexes), 1);
    let check = |numbers: &[usize], labels: &[u32]| {
        let dataset = open(folder.path(), &indexes);
        assert_eq!((dataset.len(), dataset.labels()), (numbers.len(), Some(labels)));
        for (index, number) in numbers.iter().enumerate() {
            assert_eq!(read(&dataset, index), pixels(*number, shape(5, 4, 3)));
        }
        dataset
    };
    let again = check(&[1, 2, 3], &[0, 1, 1]);
    assert_eq!(again.fingerprint(), first.fingerprint());
    assert_eq!(again.report().to_string(), first.report().to_string());
    assert_eq!(again.name(2).unwrap(), "b/3.png");
    // A file that the folder's time does not tell is not seen: the index was used.
    folder.write("b/4.png", &png(4));
    settle(0);
    check(&[1, 2, 3], &[0, 1, 1]);
    settle(1);
    check(&[1, 2, 3, 4], &[0, 1, 1, 1]);
    // A file that was written in place has another time.
    folder.write("a/1.png", &png(9));
    settle(1);
    check(&[9, 2, 3, 4], &[0, 1, 1, 1]);
    // Labels beside the images, and a damaged index.
    let labels = r#"{"labels": [["a/1.png", 3], ["b/2.png", 2], ["b/3.png", 1], ["b/4.png", 0]]}"#;
    folder.write("dataset.json", labels.as_bytes());
    settle(2);
    check(&[9, 2, 3, 4], &[3, 2, 1, 0]);
    set_time(&folder.join("dataset.json"), 0);
    check(&[9, 2, 3, 4], &[3, 2, 1, 0]);
    check(&[9, 2, 3, 4], &[3, 2, 1, 0]);
    assert_eq!(count(&indexes), 1);
    let file = std::fs::read_dir(indexes.path()).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&file).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        std::fs::write(&file, &bytes[..length]).unwrap();
        check(&[9, 2, 3, 4], &[3, 2, 1, 0]);
    }
}

/// The journal of a listing that was interrupted ends with the next one, also where no index is written.
#[test]
fn journals_end_with_the_listing() {
    let folder = Folder::new(&[("a/1.png", png(1)), ("b/2.png", png(2))]);
    let indexes = Folder::new(&[]);
    ["a", "b", "."].into_iter().for_each(|path| set_time(&folder.join(path), 0));
    open(folder.path(), &indexes);
    let index = std::fs::read_dir(indexes.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&index).unwrap();
    let journal = index.with_extension("partial");
    std::fs::write(&journal, "").unwrap();
    let few = OpenOptions { index_from: 100, ..options(&indexes) };
    assert_eq!(Dataset::open(folder.path(), &few).unwrap().len(), 2);
    assert!(!journal.exists() && !index.exists());
}

#[test]
fn archives_and_databases_are_read_once() {
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/written");
    for (files, order) in [
        (&["lsun/bedroom_train_lmdb/data.mdb", "lsun/church_outdoor_train_lmdb/data.mdb"][..], 43),
        (&["webdataset/train-000000.tar", "webdataset/train-000001.tar"], 3),
        (&["celeba/img_align_celeba.zip"], 5),
    ] {
        let (folder, indexes) = (Folder::new(&[]), Folder::new(&[]));
        for file in files {
            folder.write(file, &std::fs::read(written.join(file)).unwrap());
        }
        std::fs::create_dir(folder.join("later")).unwrap();
        let settle = |seconds| {
            set_time(&folder.join("later"), seconds);
            for file in files {
                folder.join(file).ancestors().take_while(|path| path.starts_with(folder.path())).for_each(
                    |path| {
                        set_time(path, seconds);
                    },
                );
            }
        };
        settle(0);
        let options = options(&indexes);
        let path = if files.len() == 1 { folder.join(files[0]) } else { folder.path().to_owned() };
        let first = Dataset::open(&path, &options).unwrap();
        assert_eq!((first.len(), count(&indexes)), (order, 1));
        let again = Dataset::open(&path, &options).unwrap();
        assert_eq!((again.fingerprint(), again.labels()), (first.fingerprint(), first.labels()));
        assert_eq!(again.class_names(), first.class_names());
        for index in 0..order {
            assert_eq!(again.name(index).unwrap(), first.name(index).unwrap());
            assert_eq!(read(&again, index), read(&first, index));
        }
        if let [first, second] = files {
            // One file more, in a folder that had none.
            let ending = second.rsplit('.').next().unwrap();
            std::fs::copy(folder.join(second), folder.join(&format!("later/train.{ending}"))).unwrap();
            set_time(&folder.join("later"), 3);
            assert!(Dataset::open(folder.path(), &options).unwrap().len() > order);
            // One file less.
            std::fs::remove_dir_all(folder.join("later")).unwrap();
            std::fs::remove_file(folder.join(second)).unwrap();
            settle_first(&folder, first);
            assert!(Dataset::open(folder.path(), &options).unwrap().len() < order);
        }
    }
}

/// Sets the times as they were, but for the folders of the file that is gone.
fn settle_first(folder: &Folder, file: &str) {
    folder.join(file).ancestors().skip(1).take_while(|path| path.starts_with(folder.path())).for_each(
        |path| {
            set_time(path, 5);
        },
    );
}

#[test]
fn lists_of_splits_are_watched() {
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/written/celeba");
    let (folder, indexes) = (Folder::new(&[]), Folder::new(&[]));
    for file in ["img_align_celeba.zip", "list_eval_partition.txt"] {
        folder.write(file, &std::fs::read(written.join(file)).unwrap());
        set_time(&folder.join(file), 0);
    }
    set_time(folder.path(), 0);
    let numbers = || open40(folder.path(), &indexes).len();
    assert_eq!((numbers(), count(&indexes), numbers()), (2, 1, 2));
    folder.write("list_eval_partition.txt", b"000001.png 0\n000002.png 1\n");
    set_time(folder.path(), 0);
    assert_eq!(numbers(), 1);
}

fn open40(path: &Path, indexes: &Folder) -> Dataset {
    Dataset::open(path, &OpenOptions { shape: shape(40, 20, 3), ..options(indexes) }).unwrap()
}
