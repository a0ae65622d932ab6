//! The binary `dcgan-data`: output, exit codes, messages.

use std::process::Command;

use crate::fixtures::{Folder, png};

/// Runs `dcgan-data` and checks the exit code and substrings of stdout and stderr.
fn check(folder: &Folder, args: &[&str], code: i32, stdout: &[&str], stderr: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_dcgan-data"))
        .args(args)
        .current_dir(folder.path())
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    stdout.iter().for_each(|part| assert!(out.contains(part), "{part:?} is not in:\n{out}"));
    stderr.iter().for_each(|part| assert!(err.contains(part), "{part:?} is not in:\n{err}"));
    out
}

#[test]
fn inspect_pack_and_verify() {
    let folder = Folder::new(&[
        ("data/cat/1.png", png(0)),
        ("data/dog/2.png", png(1)),
        ("data/dog/bad.png", b"bad".to_vec()),
        ("data/notes.txt", b"text".to_vec()),
        ("empty/notes.txt", b"text".to_vec()),
    ]);
    let skipped = "1: not a PNG, JPEG, WebP, GIF, BMP, TIFF or PNM image (notes.txt)";
    check(
        &folder,
        &["inspect", "data/cat", "--size", "8"],
        0,
        &["images       1", "5x4x3  1.png", "labels       none"],
        &[],
    );
    let text = ["images       2", skipped, "(dog/bad.png)", "1  0 cat", "1  1 dog", "output shape 6x8x1"];
    check(&folder, &["inspect", "data", "--skip-bad", "--size", "6x8", "--channels", "1"], 0, &text, &[]);
    let json =
        check(&folder, &["inspect", "data", "--skip-bad", "--json", "--montage", "m.png"], 0, &[], &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["images"], &json["format"]), (&2.into(), &"image-folder".into()));
    assert_eq!(json["classes"][1]["name"], "dog");
    // `pictures` is the old name of `images`.
    assert_eq!((&json["pictures"], &json["classes"][1]["pictures"]), (&2.into(), &1.into())); // old name
    let montage = image::open(folder.join("m.png")).unwrap();
    assert_eq!((montage.width(), montage.height()), (128, 64));

    let pack = ["pack", "data", "--skip-bad", "--out", "cache"];
    check(&folder, &pack, 0, &["cache written: 2 images of 64x64x3"], &["2/2 images"]);
    check(&folder, &pack, 0, &["cache is up to date"], &[]);
    let json = check(&folder, &[&pack[..], &["--json"]].concat(), 0, &[], &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["images"], &json["pictures"]), (&2.into(), &2.into())); // old name
    let cache = ["format       cache", "images       2", "output shape 64x64x3", "1  1 dog"];
    check(&folder, &["inspect", "cache"], 0, &cache, &[]);
    check(
        &folder,
        &["pack", "data", "--skip-bad", "--size", "6x8", "--channels", "1", "--out", "c68"],
        0,
        &[],
        &[],
    );
    check(&folder, &["inspect", "c68"], 0, &["output shape 6x8x1"], &[]);
    check(&folder, &["inspect", "digits", "--json"], 0, &["\"images\":10000"], &[]);

    check(&folder, &["inspect", "data", "--crop", "-1"], 2, &[], &["'-1' for '--crop", "at least 1"]);
    check(
        &folder,
        &["inspect", "data", "--channels", "-3"],
        2,
        &[],
        &["'-3' for '--channels", "from 1 to 4"],
    );
    let faults = ["--channels is 2, expected 1, 3 or 4", "--crop is 0, expected 1 pixel or more"];
    check(&folder, &["inspect", "data", "--channels", "2", "--crop", "0"], 2, &[], &faults);
    check(&folder, &["inspect", "data", "--size", "0"], 2, &[], &["expected HEIGHTxWIDTH"]);
    check(&folder, &["inspect", "gone"], 2, &[], &["cannot read gone: No such file"]);
    check(
        &folder,
        &["inspect", "empty"],
        2,
        &[],
        &["found 0 images in empty (scanned 1 files; skipped 1: not a PNG"],
    );
    check(
        &folder,
        &["pack", "data", "--out", "x"],
        2,
        &[],
        &["data, image dog/bad.png: is not a PNG, JPEG, WebP"],
    );
    check(&folder, &["verify", "data"], 2, &[], &["has no file of a known dataset"]);
    folder.write("test_32x32.mat", b"other");
    check(
        &folder,
        &["verify", "test_32x32.mat"],
        1,
        &["test_32x32.mat               differs"],
        &["download them again"],
    );
}

#[test]
fn outputs_are_new_files_or_streams() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder =
        Folder::new(&[("data/1.png", png(0)), ("data/2.png", png(1)), ("notes.txt", b"mine".to_vec())]);
    let pack = ["pack", "data", "--size", "8", "--out"];
    let with = |out: &'static str| [&pack[..], &[out]].concat();
    check(&folder, &with("cache"), 0, &["cache written"], &[]);
    let cache = std::fs::read(folder.join("cache")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dcgan-data"))
        .args(with("-"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success() && output.stdout == cache, "a cache on standard output");
    let digits = ["pack", "digits", "--size", "8", "--channels", "1", "--out", "digits.cache"];
    check(&folder, &digits, 0, &["digits.cache written: 10000 images"], &[]);
    check(&folder, &digits, 0, &["digits.cache is up to date"], &[]);
    check(&folder, &with("/dev/null"), 0, &["/dev/null written: 2 images"], &[]);
    assert!(std::fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    symlink("cache", folder.join("link")).unwrap();
    symlink("absent", folder.join("dangling")).unwrap();
    check(&folder, &with("link"), 0, &["link is up to date"], &[]);
    assert!(std::fs::symlink_metadata(folder.join("link")).unwrap().is_symlink());
    for (out, part) in [
        ("dangling", "does not exist"),
        ("data", "is a folder"),
        ("notes.txt", "is not a cache"),
        ("nowhere/cache", "the folder nowhere does not exist"),
        ("cache.png", "not a .png file"),
    ] {
        check(&folder, &with(out), 2, &[], &[part]);
    }
    check(&folder, &[&with("-")[..], &["--json"]].concat(), 2, &[], &["standard output"]);
    assert_eq!(std::fs::read(folder.join("notes.txt")).unwrap(), b"mine");
    let montage = ["inspect", "data", "--size", "8", "--montage"];
    let montage = |out: &'static str| [&montage[..], &[out]].concat();
    check(&folder, &montage("m.jpg"), 0, &["images       2"], &[]);
    let jpeg = std::fs::read(folder.join("m.jpg")).unwrap();
    assert_eq!(image::guess_format(&jpeg).unwrap(), image::ImageFormat::Jpeg);
    check(&folder, &montage("m.tiff"), 2, &[], &["expected .png, .jpg, .jpeg, .webp"]);
    check(&folder, &montage("data"), 2, &[], &["is a folder"]);
    check(&folder, &montage("data/1.png"), 2, &[], &["--montage data/1.png is a file in the dataset"]);
    assert_eq!(std::fs::read(folder.join("data/1.png")).unwrap(), png(0));
}

#[test]
fn inspect_decodes_every_image_and_lists_the_unreadable_ones() {
    let folder = Folder::new(&[
        ("data/1.png", png(0)),
        ("data/2.png", png(1)[..50].to_vec()),
        ("data/3.jpg", b"\0\0\0\x18ftypheic".to_vec()),
        ("good/1.png", png(0)),
        ("splits/train/a/1.png", png(0)),
        ("splits/train/b/1.png", png(1)),
        ("splits/test/b/1.png", png(2)),
        ("bedroom_val_lmdb.zip", b"x".to_vec()),
    ]);
    let lines = [
        "checked      the pixels of all 3 images: 2 unreadable",
        "unreadable   2.png: cannot be decoded",
        "unreadable   3.jpg: is a HEIC image (convert it to JPEG",
    ];
    check(
        &folder,
        &["inspect", "data"],
        1,
        &lines,
        &["3/3 images", "2 of 3 images cannot be read", "--skip-bad"],
    );
    check(
        &folder,
        &["inspect", "data", "--skip-bad"],
        0,
        &["images       1", "0 unreadable", "(2.png)"],
        &[],
    );
    // The header of 2.png is intact.
    let headers =
        ["checked      the headers of all 3 images, not their pixels: 1 unreadable", "3.jpg: is a HEIC"];
    check(&folder, &["inspect", "data", "--headers"], 1, &headers, &["1 of 3 images"]);
    check(&folder, &["inspect", "good"], 0, &["the pixels of 1 image: 0 unreadable"], &[]);
    let json = check(&folder, &["inspect", "data", "--json"], 1, &[], &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["checked"], &json["unreadable"][0]["name"]), (&"pixels".into(), &"2.png".into()));

    let train = ["images       2", "split train; split folders: test, train", "1  1 b"];
    check(&folder, &["inspect", "splits"], 0, &train, &[]);
    for args in [&["--test"][..], &["--split", "test"], &["--split", "testing"]] {
        check(&folder, &[&["inspect", "splits"], args].concat(), 0, &["images       1", "1  1 b"], &[]);
    }
    let missing = "splits has no val split: expected a folder val, found test, train";
    check(&folder, &["inspect", "splits", "--split", "val"], 2, &[], &[missing]);
    check(&folder, &["inspect", "splits", "--split", "dev"], 2, &[], &["expected train, val or test"]);
    check(
        &folder,
        &["inspect", "good", "--background", "red"],
        2,
        &[],
        &["expected black, white or #rrggbb"],
    );
    check(&folder, &["inspect", "good", "--background", "#102030"], 0, &["images       1"], &[]);

    let unknown = ["bedroom_val_lmdb.zip         not recorded"];
    check(
        &folder,
        &["verify", "bedroom_val_lmdb.zip"],
        1,
        &unknown,
        &["nothing was verified: no hash is known"],
    );
}
