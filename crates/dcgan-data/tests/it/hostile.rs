//! Damaged and malicious input: an error with the file's name or a counted skip, no panic, no unbounded memory.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::LazyLock;

use dcgan_data::{DataError, Dataset, ImageShape, OpenOptions, UnreadableImages, pack};
use image::ImageFormat;
use proptest::prelude::*;

use crate::fixtures::{
    CIFAR, Folder, MI_UINT8, PickleStyle, cifar_pickle, cifar_record, cifar10, encoded, gzip, idx,
    idx_images, mat5, npy, open, png, shape, svhn, zip,
};

const SMALL: ImageShape = shape(5, 4, 3);

/// Opens the dataset at `path` and reads all images.
fn read_all(path: &Path, options: &OpenOptions) -> Result<usize, DataError> {
    let dataset = Dataset::open(path, options)?;
    let mut pixels = vec![0; dataset.shape().bytes()];
    (0..dataset.len()).try_for_each(|index| {
        dataset.info(index)?;
        dataset.read(index, &mut pixels)
    })?;
    Ok(dataset.len())
}

/// A small file of every format, with the name that selects its reader.
static SAMPLES: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let source = Folder::new(&[("a/1.png", png(0)), ("b/2.png", png(1))]);
    pack(&open(source.path(), SMALL), &source.join("cache"), |_| ()).unwrap();
    vec![
        ("one.bin", cifar_record(&[3], 0)),
        ("train-images-idx3-ubyte", idx_images(2)),
        ("train-images-idx3-ubyte.gz", gzip(&idx_images(2))),
        ("train_32x32.mat", svhn(2, SMALL, MI_UINT8, true)),
        ("plain.mat", svhn(2, SMALL, MI_UINT8, false)),
        ("x.zip", zip(&[("1.png", png(0)), ("dataset.json", br#"{"labels": [["1.png", 2]]}"#.to_vec())])),
        ("1.png", png(0)),
        ("1.jpg", encoded(0, SMALL, ImageFormat::Jpeg)),
        ("1.webp", encoded(0, SMALL, ImageFormat::WebP)),
        ("1.bmp", encoded(0, SMALL, ImageFormat::Bmp)),
        ("1.gif", encoded(0, SMALL, ImageFormat::Gif)),
        ("1.tiff", encoded(0, SMALL, ImageFormat::Tiff)),
        ("1.ppm", encoded(0, SMALL, ImageFormat::Pnm)),
        ("gzip.jpg", gzip(&encoded(0, SMALL, ImageFormat::Jpeg))),
        ("x.npy", npy("|u1", &[2, 5, 4, 3], &[7; 120])),
        (
            "x.npz",
            zip(&[("x.npy", npy("|u1", &[2, 5, 4, 3], &[7; 120])), ("y.npy", npy("|u1", &[2], &[3, 4]))]),
        ),
        ("test_batch", cifar_pickle(PickleStyle::Python2, "labels", &[(3, 0)])),
        ("cache", std::fs::read(source.join("cache")).unwrap()),
    ]
});

#[test]
fn every_truncation_of_every_format_is_an_error_with_the_name() {
    for (name, content) in SAMPLES.iter() {
        let folder = Folder::new(&[(*name, content.clone())]);
        let path = folder.join(name);
        let file = File::options().write(true).open(&path).unwrap();
        assert!(read_all(&path, &OpenOptions::new(SMALL)).unwrap() > 0, "{name} complete");
        for length in (0..content.len()).rev() {
            file.set_len(length as u64).unwrap();
            match read_all(&path, &OpenOptions::new(SMALL)) {
                Err(error) => assert!(error.to_string().contains(name), "{name} cut to {length}: {error}"),
                // A MATLAB file is complete without the padding of its last array.
                Ok(_) if *name == "plain.mat" && content.len() - length < 8 => {}
                // A GIF's first frame is complete before its trailer.
                Ok(_) if *name == "1.gif" && content.len() - length == 1 => {}
                // A PNG's pixels are complete before its last chunk.
                Ok(_) if *name == "1.png" && content.len() - length <= 12 => {}
                Ok(images) => {
                    panic!("{name} cut to {length} of {} gives {images} images", content.len())
                }
            }
        }
    }
}

/// A flipped bit anywhere in a format with checksums: the images are unchanged, or reading them is an error.
#[test]
fn damage_to_checksummed_data_never_changes_an_image() {
    for (name, content) in SAMPLES.iter() {
        if !["train-images-idx3-ubyte.gz", "train_32x32.mat", "x.zip", "1.png"].contains(name) {
            continue;
        }
        let folder = Folder::new(&[(*name, content.clone())]);
        let path = folder.join(name);
        let images = || -> Result<Vec<Vec<u8>>, DataError> {
            let dataset = Dataset::open(&path, &OpenOptions::new(SMALL))?;
            let image = |index| {
                let mut pixels = vec![0; SMALL.bytes()];
                dataset.read(index, &mut pixels).map(|()| pixels)
            };
            (0..dataset.len()).map(image).collect()
        };
        let expected = images().unwrap();
        let mut file = File::options().write(true).open(&path).unwrap();
        let mut put = |offset: usize, byte: u8| {
            file.seek(SeekFrom::Start(offset as u64)).unwrap();
            file.write_all(&[byte]).unwrap();
        };
        let mut errors = 0;
        for (offset, byte) in content.iter().enumerate() {
            put(offset, byte ^ 0x10);
            match images() {
                Ok(found) => assert_eq!(found, expected, "{name}, byte {offset}"),
                Err(_) => errors += 1,
            }
            put(offset, *byte);
        }
        assert!(errors > content.len() / 4, "{name}: {errors} errors");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A few bytes of any format are overwritten: opening and reading return a value or an error.
    #[test]
    fn damaged_bytes_never_panic(
        which in 0..SAMPLES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        skip in any::<bool>(),
    ) {
        let (name, mut content) = SAMPLES[which].clone();
        for (index, byte) in damage {
            let offset = index.index(content.len());
            content[offset] = byte;
        }
        let folder = Folder::new(&[(name, content)]);
        let unreadable_images = if skip { UnreadableImages::Skip } else { UnreadableImages::Fail };
        let options = OpenOptions { unreadable_images, ..OpenOptions::new(SMALL) };
        if let Err(error) = read_all(&folder.join(name), &options) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// Arbitrary bytes after the magic number of each format.
    #[test]
    fn arbitrary_bytes_never_panic(which in 0..8_usize, tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut matlab = mat5(&[], false);
        matlab.extend(&tail);
        let magic_numbers: [&[u8]; 8] = [b"", b"PK\x03\x04", b"PK\x05\x06", b"\0\0\x08\x03", b"\x1f\x8b\x08\0",
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\x10\0\0\0WEBP", b"dcgan-pictures-1"];
        let content = if which == 0 { matlab } else { [magic_numbers[which], &tail].concat() };
        let folder = Folder::new(&[("file", content)]);
        let _ = read_all(&folder.join("file"), &OpenOptions::new(SMALL));
    }
}

/// Writes `files` (name, content) to a folder and opens `path` in it: the error message contains all `parts`.
fn check_error(files: &[(&str, Vec<u8>)], path: &str, parts: &[&str]) {
    let folder = Folder::new(files);
    let error = read_all(&folder.join(path), &OpenOptions::new(SMALL)).unwrap_err().to_string();
    parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in: {error}"));
}

#[test]
fn inconsistent_raw_files_are_errors() {
    let matlab = |sizes: &[i32], labels: &[u8]| {
        let count = i32::try_from(labels.len()).unwrap();
        mat5(&[("X", sizes, MI_UINT8, vec![0; 120]), ("y", &[count, 1], MI_UINT8, labels.to_vec())], true)
    };
    // An element that declares 4 GB of values in a file of a few hundred bytes.
    let mut bomb = mat5(&[("X", &[65535, 65535, 1, 1], MI_UINT8, vec![0; 120])], false);
    let declared = u32::MAX - 131_070;
    let at = bomb.len() - 124;
    bomb[at..at + 4].copy_from_slice(&declared.to_le_bytes());
    check_error(
        &[("x.mat", bomb)],
        "x.mat",
        &["x.mat: array X:", "declares 4294836225 bytes of data, the limit is"],
    );
    check_error(
        &[("x.mat", matlab(&[5, 4, 3, 9], &[1, 2]))],
        "x.mat",
        &["array X of sizes [5, 4, 3, 9] does not match"],
    );
    check_error(&[("x.mat", matlab(&[5, 4, 3, -2], &[1, 2]))], "x.mat", &["array X has a negative size"]);
    check_error(&[("x.mat", matlab(&[5, 4, 3, 2], &[1, 2, 3]))], "x.mat", &["contains 3 labels, expected 2"]);
    check_error(
        &[("x.mat", matlab(&[5, 4, 3, 2], &[1, 11]))],
        "x.mat",
        &["image 1: label 11 is not a digit"],
    );
    check_error(&[("x.mat", matlab(&[120, 1], &[1]))], "x.mat", &["array X has sizes [120, 1], expected"]);
    check_error(&[("x.mat", mat5(&[], true))], "x.mat", &["contains no array X"]);
    let mut hdf = b"MATLAB 7.3 MAT-file".to_vec();
    hdf.resize(512, 0);
    check_error(&[("x.mat", hdf)], "x.mat", &["is an HDF5 file (in MATLAB, save with -v7)"]);

    let images = "train-images-idx3-ubyte";
    let huge = idx(&[60_000, 28, 28], &[0; 100]);
    check_error(&[(images, huge.clone())], images, &["expected 47040000 bytes of data", "found 100"]);
    check_error(
        &[(images, gzip(&huge))],
        images,
        &["declares 47040000 bytes of data, but", "inflate to at most"],
    );
    check_error(
        &[(images, gzip(&idx(&[1, 5, 4], &[0; 21])))],
        images,
        &["contains more data than the 20 bytes"],
    );
    check_error(
        &[(images, idx(&[u32::MAX, u32::MAX, u32::MAX], &[]))],
        images,
        &["declares an invalid size"],
    );
    check_error(&[(images, idx(&[1, 9000, 1], &[0; 9000]))], images, &["declares images of 9000x1 pixels"]);
    check_error(&[(images, idx(&[0, 5, 4], &[]))], images, &["found 0 images"]);
    check_error(
        &[("train-labels-idx1-ubyte", idx(&[1], &[3]))],
        "train-labels-idx1-ubyte",
        &["contains labels or vectors"],
    );
    let labels = [(images, idx_images(2)), ("train-labels-idx1-ubyte", idx(&[2, 0], &[]))];
    check_error(&labels, ".", &["train-labels-idx1-ubyte: contains 0 labels, expected 2"]);
    let labels = [(images, idx_images(2)), ("train-labels-idx1-ubyte", idx(&[3], &[0; 3]))];
    check_error(&labels, ".", &["train-labels-idx1-ubyte: contains [3] labels, expected 2"]);

    check_error(
        &[("data_batch_1.bin", vec![0; 3072])],
        ".",
        &["3072 bytes are not a whole number of records of 3073"],
    );
    check_error(
        &[("data_batch_1.bin", cifar_record(&[10], 0))],
        ".",
        &["image 0: label 10 is not one of the 10"],
    );
}

#[test]
fn errors_of_other_files_name_their_format() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let mut lmdb = vec![0; 4000];
    lmdb[16..20].copy_from_slice(&[0xde, 0xc0, 0xef, 0xbe]);
    let rows: [(&str, Vec<u8>, &str); 17] = [
        ("x.zip", b"Rar!\x1a\x07\x01\0rest".to_vec(), "is a RAR archive (unpack it"),
        ("x.zip", b"7z\xbc\xaf\x27\x1c\0\x04rest".to_vec(), "is a 7z archive (unpack it"),
        ("data.mdb", lmdb, "is a damaged LMDB database"),
        ("x.h5", b"\x89HDF\r\n\x1a\nrest".to_vec(), "HDF5 file"),
        ("x.jpg", b"PAR1rest".to_vec(), "Parquet file"),
        ("x", b"\x80\x02}.".to_vec(), "is a pickle without a list `labels`"),
        ("x.avif", b"\0\0\0\x1cftypavif".to_vec(), "is an AVIF image (convert it to PNG"),
        ("x.png", b"8BPS\0\x01".to_vec(), "is a Photoshop file (export it as PNG)"),
        ("x.tar.gz", gzip(b"x"), "is a compressed tar archive"),
        ("x", Vec::new(), "is an empty file"),
        ("x", b"hello".to_vec(), "is of unknown format; supported formats: a folder or zip of PNG"),
        ("x.tar", tar.clone(), "is a damaged tar archive"),
        ("x.tar.gz", gzip(&tar), "is a compressed tar archive (unpack it first, with tar xf FILE"),
        ("x.gz", gzip(b"hello"), "is gzip data that contains no images but unknown content"),
        ("x.zip", b"<html>".to_vec(), "is a web page or XML"),
        ("x.bin", b"version https://git-lfs.github.com/spec/v1".to_vec(), "is a Git LFS pointer"),
        ("x.zip", b"PK\x03\x04rest".to_vec(), "is a damaged zip"),
    ];
    for (name, content, part) in rows {
        check_error(&[(name, content)], name, &[name, part]);
    }
    check_error(&[], "gone", &["cannot read", "gone"]);
    check_error(&[], ".", &["found 0 images", "scanned 0 files"]);
}

#[test]
fn images_over_the_limits_are_errors_before_memory_is_allocated() {
    let mut bmp = encoded(0, SMALL, ImageFormat::Bmp);
    bmp[18..26].copy_from_slice(&[0x60, 0xea, 0, 0, 0x60, 0xea, 0, 0]);
    let mut gif = encoded(0, SMALL, ImageFormat::Gif);
    let mut no_rows = gif.clone();
    no_rows[8..10].fill(0);
    check_error(&[("a.gif", no_rows)], ".", &["image a.gif: declares 0x", "expected at least one"]);
    gif[6..10].copy_from_slice(&[0x60, 0xea, 0x60, 0xea]);
    for (name, content) in [("a.bmp", bmp), ("a.gif", gif), ("a.ppm", b"P6 60000 60000 255\n".to_vec())] {
        let parts = ["declares 60000x60000 pixels (", "the limit is 32768 per side"];
        check_error(&[(name, content)], ".", &parts);
    }
    let mut giant = png(0);
    // Width and height in the IHDR chunk, with a matching CRC.
    giant[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    let crc = crc32(&giant[12..29]);
    giant[29..33].copy_from_slice(&crc.to_be_bytes());
    check_error(
        &[("a/giant.png", giant)],
        ".",
        &[
            "image a/giant.png: declares 100000x100000 pixels (30000000000 bytes), the limit is 32768 per side",
            "--skip-bad",
        ],
    );

    let archive = zip(&[("1.png", png(0))]);
    let central = archive.windows(4).position(|mark| mark == b"PK\x01\x02").unwrap();
    for (declared, part) in [
        (u32::MAX - 1, "declares 4294967294 bytes, the limit is"),
        (10, "inflates to more or fewer bytes than the declared"),
        (500, "inflates to more or fewer bytes"),
    ] {
        let mut inconsistent = archive.clone();
        inconsistent[central + 24..central + 28].copy_from_slice(&declared.to_le_bytes());
        check_error(&[("x.zip", inconsistent)], "x.zip", &["x.zip, image 1.png:", part]);
    }
}

/// The CRC-32 of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The reasons and counts of the report, in order of occurrence.
fn skipped(dataset: &Dataset) -> Vec<(String, usize)> {
    dataset.report().skipped.iter().map(|skipped| (skipped.reason.clone(), skipped.count)).collect()
}

#[test]
fn names_outside_the_zip_and_clutter_are_skipped_and_reported() {
    let files = [
        ("../evil.png", png(0)),
        ("/abs.png", png(0)),
        ("c:/x.png", png(0)),
        ("a\\..\\..\\b.png", png(0)),
        ("__MACOSX/._1.png", png(0)),
        ("1.png", png(0)),
        ("readme.txt", b"x".to_vec()),
    ];
    let folder = Folder::new(&[("x.zip", zip(&files)), (".hidden/1.png", png(0))]);
    let dataset = open(&folder.join("x.zip"), SMALL);
    assert_eq!((dataset.len(), dataset.info(0).unwrap().name), (1, "1.png".to_owned()));
    let reasons = skipped(&dataset);
    assert!(reasons.contains(&("a name that points outside the zip".to_owned(), 4)), "{reasons:?}");
    assert!(reasons.contains(&("a hidden file or folder".to_owned(), 1)), "{reasons:?}");
    assert!(
        reasons.contains(&("not a PNG, JPEG, WebP, GIF, BMP, TIFF or PNM image".to_owned(), 1)),
        "{reasons:?}"
    );
}

#[test]
fn an_unreadable_image_is_an_error_or_is_skipped_and_counted() {
    let names: Vec<String> = (0..50).map(|index| format!("{:02}.png", index)).collect();
    let files: Vec<_> = names.iter().enumerate().map(|(index, name)| (name.as_str(), png(index))).collect();
    let folder = Folder::new(&files);
    folder.write("17.png", &png(17)[..40]);
    let archive = Folder::new(&[("x.zip", zip(&[("00.png", png(0)), ("17.png", png(17)[..40].to_vec())]))]);
    for (path, total) in [(folder.path().to_owned(), 50), (archive.join("x.zip"), 2)] {
        let error = read_all(&path, &OpenOptions::new(SMALL)).unwrap_err().to_string();
        assert!(
            error.contains(&*path.to_string_lossy()) && error.contains("image 17.png: cannot be decoded"),
            "{error}"
        );
        for memory_limit_bytes in [0, 1 << 20] {
            let options = OpenOptions {
                unreadable_images: UnreadableImages::Skip,
                memory_limit_bytes,
                ..OpenOptions::new(SMALL)
            };
            let dataset = Dataset::open(&path, &options).unwrap();
            assert_eq!(dataset.len(), total - 1);
            assert_eq!(dataset.report().skipped.iter().map(|skipped| skipped.count).sum::<usize>(), 1);
            assert_eq!(dataset.report().skipped[0].examples, ["17.png"]);
            assert_eq!(read_all(&path, &options).unwrap(), total - 1);
        }
    }
    let cifar =
        Folder::new(&[("data_batch_1.bin", [cifar10(0, 2), cifar_record(&[77], 5), cifar10(2, 1)].concat())]);
    let options = OpenOptions { unreadable_images: UnreadableImages::Skip, ..OpenOptions::new(CIFAR) };
    let dataset = Dataset::open(cifar.path(), &options).unwrap();
    assert_eq!((dataset.len(), dataset.labels()), (3, Some(&[0, 1, 2][..])));
    assert_eq!(skipped(&dataset), [("label 77 is not one of the 10 classes".to_owned(), 1)]);
    let all_unreadable = Folder::new(&[("1.png", b"x".to_vec())]);
    let error = Dataset::open(all_unreadable.path(), &options).unwrap_err().to_string();
    assert!(error.contains("found 0 images") && error.contains("(1.png)"), "{error}");
}

#[cfg(unix)]
#[test]
fn cycles_of_symbolic_links_end() {
    let folder = Folder::new(&[("a/1.png", png(0)), ("b/2.png", png(1))]);
    std::os::unix::fs::symlink("..", folder.join("a/up")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.join("dead.png")).unwrap();
    let dataset = open(folder.path(), SMALL);
    assert_eq!(dataset.len(), 2);
    assert_eq!(skipped(&dataset).len(), 2, "{:?}", dataset.report());
}

#[test]
fn options_out_of_range_are_errors() {
    let folder = Folder::new(&[("1.png", png(0))]);
    for (height, width, channels) in
        [(0, 4, 3), (4, 0, 3), (4, 4, 2), (8193, 4, 3), (usize::MAX, usize::MAX, 4)]
    {
        let error =
            Dataset::open(folder.path(), &OpenOptions::new(shape(height, width, channels))).unwrap_err();
        assert!(matches!(error, DataError::InvalidShape(_)), "{error}");
    }
    let error =
        Dataset::open(folder.path(), &OpenOptions { crop: Some(0), ..OpenOptions::new(SMALL) }).unwrap_err();
    assert!(error.to_string().contains("--crop is 0"), "{error}");
    let dataset = open(folder.path(), SMALL);
    assert!(matches!(dataset.read(1, &mut [0; 60]), Err(DataError::IndexOutOfRange { index: 1, len: 1 })));
    assert!(matches!(dataset.read(0, &mut [0; 59]), Err(DataError::BufferSize { expected: 60, found: 59 })));
}

/// Names and contents of files.
type Files = Vec<(&'static str, Vec<u8>)>;

/// A file of `tests/written`.
fn written(path: &str) -> Vec<u8> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/written");
    std::fs::read(root.join(path)).unwrap()
}

#[test]
fn damaged_databases_are_errors() {
    const PAGE: usize = 4096;
    let data = written("lsun/bedroom_train_lmdb/data.mdb");
    let u64_at = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
    // The newest of the two meta pages has the root of the main database and the transaction at these offsets.
    let meta = usize::from(u64_at(PAGE + 144) > u64_at(144)) * PAGE;
    let root = usize::try_from(u64_at(meta + 16 + 24 + 48 + 40)).unwrap() * PAGE;
    let changed = |at: usize, bytes: &[u8]| {
        let mut data = data.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        vec![("data.mdb", data)]
    };
    let node = root + usize::from(u16::from_le_bytes([data[root + 16], data[root + 17]]));
    let own_number = u16::try_from(root / PAGE).unwrap().to_le_bytes();
    let rows: [(Files, &str); 8] = [
        (changed(node, &own_number), "the pages refer to each other in a cycle"),
        (changed(node, &[0xff, 0xff]), "refers to page 65535, but the file has 7 pages"),
        (changed(root + 10, &[0x40, 0]), "is neither a branch nor a leaf of the tree"),
        (changed(root + 16, &[0xff, 0xff]), "is damaged"),
        (changed(root + 12, &[0xff, 0xff]), "is damaged"),
        (changed(20, &[2]), "is an LMDB database of data version 2, expected 1"),
        (changed(40, &[1]), "declares pages of 4097 bytes"),
        (vec![("data.mdb", data[..3 * PAGE].to_vec())], "(truncated?)"),
    ];
    for (files, part) in rows {
        check_error(&files, "data.mdb", &["data.mdb: ", part]);
    }
    // A value on overflow pages that are missing.
    let churches = written("lsun/church_outdoor_train_lmdb/data.mdb");
    check_error(&[("data.mdb", churches[..3 * PAGE].to_vec())], "data.mdb", &["(truncated?)"]);
}

#[test]
fn damaged_archives_are_errors() {
    let tar = written("tar/pax.tar");
    // The header of the second entry, after that of a folder: its size is an octal number, or one in binary.
    let sized = |size: &[u8]| {
        let mut tar = tar.clone();
        tar[512 + 124..512 + 124 + size.len()].copy_from_slice(size);
        tar[512 + 148..512 + 156].fill(b' ');
        let sum: u32 = tar[512..1024].iter().map(|byte| u32::from(*byte)).sum();
        tar[512 + 148..512 + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        vec![("x.tar", tar)]
    };
    let rows: [(Files, &str); 4] = [
        (sized(b"77777777777\0"), "declares 8589934591 bytes"),
        (sized(&[0x80, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0]), "declares 1152921504606846976 bytes"),
        (vec![("x.tar", tar[..700].to_vec())], "is a damaged tar archive"),
        (vec![("x.tar", tar[..1100].to_vec())], "(truncated?)"),
    ];
    for (files, part) in rows {
        check_error(&files, "x.tar", &["x.tar", part]);
    }
}

#[test]
#[cfg(feature = "parquet")]
fn damaged_parquet_files_are_errors() {
    let file = written("parquet_plain/zstd.parquet");
    let mut damaged_page = file.clone();
    damaged_page[4..400].fill(0xff);
    let length = file.len();
    let mut long_footer = file.clone();
    long_footer[length - 8..length - 4].fill(0xff);
    for (content, part) in [
        (file[..length - 1].to_vec(), "its end is missing"),
        (long_footer, "its end is missing"),
        ([&file[..2000], &file[3000..]].concat(), "damaged"),
        (damaged_page, "damaged"),
    ] {
        check_error(&[("x.parquet", content)], "x.parquet", &["x.parquet", part]);
    }
}
