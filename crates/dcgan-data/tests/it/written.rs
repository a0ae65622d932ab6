//! Files that other programs wrote (`tests/written/make.py`) give the pixels and labels that were written, in place.

use std::path::PathBuf;

use dcgan_data::{Dataset, Format, ImageShape, OpenOptions, Split};

use crate::fixtures::{Folder, pixels, read, shape};

const USUAL: ImageShape = shape(40, 20, 3);
const IMAGENET: ImageShape = shape(8, 8, 3);

/// What opening a path gives: format, numbers of the images, labels, class names, a part of the report; or a part of
/// the error.
type Expected<'a> = Result<(Format, &'a [usize], Option<&'a [u32]>, &'a [&'a str], &'a str), &'a str>;

fn check(path: &str, split: Split, shape: ImageShape, expected: Expected<'_>) {
    let whole = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/written").join(path);
    let opened = Dataset::open(&whole, &OpenOptions { split, ..OpenOptions::new(shape) });
    match (opened, expected) {
        (Ok(dataset), Ok((format, numbers, labels, names, part))) => {
            let report = dataset.report().to_string();
            assert_eq!(dataset.report().format, format, "{path}: {report}");
            assert_eq!(
                (dataset.len(), dataset.labels()),
                (numbers.len(), labels),
                "{path} {split}: {report}"
            );
            let class_names: Vec<&str> =
                dataset.class_names().unwrap_or_default().iter().map(String::as_str).collect();
            assert_eq!(class_names, names, "{path}");
            for (index, number) in numbers.iter().enumerate() {
                assert_eq!(read(&dataset, index), pixels(*number, shape), "{path}: image {index}");
                let info = dataset.info(index).unwrap();
                assert_eq!((info.height, info.width), (shape.height, shape.width), "{path}: {}", info.name);
            }
            assert!(report.contains(part), "{part:?} is not in: {report}");
        }
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{path} {split}: {error}"),
        (opened, expected) => panic!("{path} {split}: {opened:?}, expected {expected:?}"),
    }
}

/// A row: path, split, expected.
type Row<'a> = (&'a str, Split, Expected<'a>);

const TRAIN: Split = Split::Train;
const TEST: Split = Split::Test;
const VAL: Split = Split::Val;

#[test]
fn lmdb_databases() {
    let bedrooms: Vec<usize> = (0..40).collect();
    // The key of bytes 00 ff comes first.
    let both = [&bedrooms[..], &[42, 40, 41]].concat();
    let labels: Vec<u32> = (0..43).map(|index| u32::from(index >= 40)).collect();
    let classes = &["bedroom", "church_outdoor"][..];
    let rows: &[Row<'_>] = &[
        ("lsun/bedroom_train_lmdb", TRAIN, Ok((Format::Lmdb, &bedrooms, None, &[], ""))),
        ("lsun/bedroom_train_lmdb/data.mdb", TRAIN, Ok((Format::Lmdb, &bedrooms, None, &[], ""))),
        ("lsun", TRAIN, Ok((Format::Lmdb, &both, Some(&labels), classes, "split train: 2 of 3 files"))),
        ("lsun", VAL, Ok((Format::Lmdb, &[43], None, &[], "split val: 1 of 3 files"))),
        ("lsun", TEST, Ok((Format::Lmdb, &[43], None, &[], "split val in place of test"))),
        (
            "mixed_lmdb/all.lmdb",
            TRAIN,
            Ok((Format::Lmdb, &[0, 1], None, &[], "skipped 2: a value that is not an image (length, note)")),
        ),
        ("mixed_lmdb", TRAIN, Ok((Format::Lmdb, &[0, 1], None, &[], "skipped 2: a named database"))),
    ];
    rows.iter().for_each(|(path, split, expected)| check(path, *split, USUAL, *expected));
}

#[test]
fn tar_archives() {
    let animals = &["cat", "dog"][..];
    let ilsvrc = &["n01440764", "n01443537"][..];
    let rows: &[Row<'_>] = &[
        ("tar/pax.tar", TRAIN, Ok((Format::Tar, &[0, 1, 2], Some(&[0, 0, 1]), animals, "1: a link"))),
        ("tar/gnu.tar", TRAIN, Ok((Format::Tar, &[0, 1, 2], Some(&[0, 0, 1]), animals, "1: a hidden file"))),
        // In the order of the archive.
        ("tar/ilsvrc.tar", TRAIN, Ok((Format::Tar, &[4, 5, 3], Some(&[1, 1, 0]), ilsvrc, "from 2 folders"))),
        ("classes_of_tar", TRAIN, Ok((Format::Tar, &[3, 4, 5], Some(&[0, 1, 1]), ilsvrc, ""))),
        (
            "webdataset",
            TRAIN,
            Ok((Format::WebDataset, &[0, 1, 2], Some(&[7, 6, 5]), &[], "3 further images of samples")),
        ),
        ("webdataset", VAL, Ok((Format::WebDataset, &[3], Some(&[4]), &[], "split val: 1 of 3 files"))),
        ("webdataset/train-000001.tar", TRAIN, Ok((Format::WebDataset, &[2], Some(&[5]), &[], ""))),
        (
            "webdataset_json",
            TRAIN,
            Ok((Format::WebDataset, &[4, 5], None, &[], "unlabeled: 1 of 2 samples have no label")),
        ),
    ];
    rows.iter().for_each(|(path, split, expected)| check(path, *split, USUAL, *expected));
}

#[test]
#[cfg(feature = "parquet")]
fn parquet_files() {
    let names = &["cat", "dog", "owl"][..];
    let labels = &[0, 1, 2, 0, 1, 2, 0][..];
    let all: Vec<usize> = (0..9).collect();
    let rows: &[Row<'_>] = &[
        ("parquet", TRAIN, Ok((Format::Parquet, &all[..7], Some(labels), names, "the column image.bytes"))),
        ("parquet/data", TEST, Ok((Format::Parquet, &[8], Some(&[2]), names, "split test: 1 of 3 files"))),
        ("parquet", VAL, Err("has no val split: expected files with val in their names, found train, test")),
        (
            "parquet/data/train-00001-of-00002.parquet",
            TRAIN,
            Ok((Format::Parquet, &[5, 6], Some(&[2, 0]), names, "labels from the column label")),
        ),
    ];
    rows.iter().for_each(|(path, split, expected)| check(path, *split, USUAL, *expected));
    for compression in ["none", "snappy", "gzip", "zstd", "lz4"] {
        let path = format!("parquet_plain/{compression}.parquet");
        check(&path, TRAIN, USUAL, Ok((Format::Parquet, &all, Some(&[1; 9]), &[], "the column jpg")));
    }
    let nulls = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/written/parquet_nulls");
    let dataset = Dataset::open(&nulls, &OpenOptions::new(USUAL)).unwrap();
    assert_eq!(read(&dataset, 0), pixels(0, USUAL));
    for index in 1..3 {
        let error = dataset.read(index, &mut vec![0; USUAL.bytes()]).unwrap_err().to_string();
        assert!(error.contains(&format!("image nulls.parquet[{index}]: has no bytes")), "{error}");
    }
}

/// A folder with a single shard of a split has no other split; the file by itself has no split.
#[test]
fn a_single_shard_of_a_folder_names_its_split() {
    let written = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/written");
    for (shard, name) in [
        ("lsun/bedroom_train_lmdb/data.mdb", "bedroom_train_lmdb/data.mdb"),
        ("webdataset/train-000001.tar", "train-000001.tar"),
        #[cfg(feature = "parquet")]
        ("parquet/data/train-00001-of-00002.parquet", "train-00001-of-00002.parquet"),
    ] {
        let folder = Folder::new(&[(name, std::fs::read(written.join(shard)).unwrap())]);
        let open =
            |path: PathBuf, split| Dataset::open(&path, &OpenOptions { split, ..OpenOptions::new(USUAL) });
        assert!(!open(folder.path().to_owned(), TRAIN).unwrap().is_empty(), "{name}");
        let error = open(folder.path().to_owned(), TEST).unwrap_err().to_string();
        assert!(error.contains("has no test split: expected files with test"), "{name}: {error}");
        let report = open(folder.join(name), TEST).unwrap().report().to_string();
        assert!(report.contains("all") && report.contains("test"), "{name}: {report}");
    }
}

/// Tables without images beside archives, and links to a folder with shards.
#[test]
fn other_files_beside_shards() {
    let written = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/written");
    let tar = std::fs::read(written.join("webdataset/train-000001.tar")).unwrap();
    let folder =
        Folder::new(&[("2024/000000.tar", tar), ("2024/000000.parquet", b"PAR1 no images".to_vec())]);
    #[cfg(unix)]
    for (target, link) in [("2024", "1-latest"), ("..", "2024/up")] {
        std::os::unix::fs::symlink(target, folder.join(link)).unwrap();
    }
    let dataset = Dataset::open(folder.path(), &OpenOptions::new(USUAL)).unwrap();
    assert_eq!((dataset.report().format, dataset.len()), (Format::WebDataset, 1), "{}", dataset.report());
}

#[test]
fn arrays_of_imagenet_in_batches() {
    for root in ["imagenet8", "imagenet8_pickles"] {
        let batches = Format::ImageNetBatches;
        let labels = &[0, 1, 2][..];
        check(
            root,
            TRAIN,
            IMAGENET,
            Ok((batches, &[0, 1, 2], Some(labels), &[], "only 2 of the 10 training batches")),
        );
        for split in [VAL, TEST] {
            check(root, split, IMAGENET, Ok((batches, &[999], Some(&[999]), &[], "")));
        }
        let single = if root == "imagenet8" { "train_data_batch_2.npz" } else { "train_data_batch_2" };
        check(&format!("{root}/{single}"), TRAIN, IMAGENET, Ok((batches, &[2], Some(&[2]), &[], "")));
    }
}

#[test]
fn celeba_as_published() {
    let rows: &[Row<'_>] = &[
        ("celeba", TRAIN, Ok((Format::CelebA, &[0, 1], None, &[], "split train: 2 of 5 images"))),
        ("celeba", VAL, Ok((Format::CelebA, &[2], None, &[], "1 images are not in the list of splits"))),
        ("celeba", TEST, Ok((Format::CelebA, &[3], None, &[], ""))),
        ("celeba/img_align_celeba.zip", TRAIN, Ok((Format::ImageZip, &[0, 1, 2, 3, 4], None, &[], ""))),
        ("celeba_kaggle", TRAIN, Ok((Format::CelebA, &[1, 2], None, &[], ""))),
        ("celeba_kaggle", VAL, Ok((Format::CelebA, &[0], None, &[], ""))),
    ];
    rows.iter().for_each(|(path, split, expected)| check(path, *split, USUAL, *expected));
}

#[test]
#[cfg(feature = "hdf5")]
fn hdf5_files() {
    let labels = &[0, 1, 2, 3, 0, 1, 2][..];
    let rows = [
        ("lzf.hdf5", "imgs"),
        ("gzip.hdf5", "imgs"),
        ("plain.hdf5", "imgs"),
        ("column.hdf5", "x"),
        ("patches.hdf5", "x"),
        ("split_train_x.h5", "x"),
    ];
    for (name, array) in rows {
        let path = format!("hdf5/{name}");
        let (numbers, note) = (&[0, 1, 2, 3, 4, 5, 6][..], format!("the array {array}"));
        check(&path, TRAIN, shape(8, 6, 3), Ok((Format::Hdf5, numbers, Some(labels), &[], &note)));
    }
}
