//! `dcgan-eval dedup` finds planted near-duplicates and nothing else; `dcgan-train run --exclude` reads its list.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{json, run};
use dcgan_data::{Dataset, ImageShape};
use image::imageops::{FilterType, resize};
use image::{ImageFormat, Rgb, RgbImage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const IMAGES: u64 = 60;
const PLANTED: u64 = 8;

/// Smooth noise.
fn noise(seed: u64) -> RgbImage {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let cells = RgbImage::from_fn(8, 8, |_, _| Rgb(std::array::from_fn(|_| rng.random())));
    resize(&cells, 64, 64, FilterType::CatmullRom)
}

/// The same moved by a pixel and brighter.
fn changed(image: &RgbImage) -> RgbImage {
    let brighter = |value: u8| value.saturating_add(20);
    RgbImage::from_fn(64, 64, |x, y| Rgb(image.get_pixel((x + 1).min(63), y).0.map(brighter)))
}

fn write(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for i in 0..IMAGES {
        let image = noise(i);
        image.save(folder.join(format!("{i:02}.png"))).unwrap();
        if i < PLANTED {
            changed(&image).save(folder.join(format!("{i:02}-moved.png"))).unwrap();
            image.save_with_format(folder.join(format!("{i:02}-again.jpg")), ImageFormat::Jpeg).unwrap();
        }
    }
}

#[test]
fn planted_near_duplicates_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(&here.join("images"));
    let options = ["dedup", "images", "--steps", "100", "--tables", "40"];
    let line = json(here, &[&options[..], &["--out", "list", "--montage", "pairs.png"]].concat());
    let whole = run(here, &["dedup", "images", "--split", "test"]);
    let message = String::from_utf8_lossy(&whole.stderr);
    assert!(whole.status.code() == Some(2) && message.contains("no test images of its own"), "{message}");
    let (images, planted) = (IMAGES + 2 * PLANTED, 2 * PLANTED);
    assert_eq!(
        (line["images"].as_u64(), line["duplicates"].as_u64()),
        (Some(images), Some(planted)),
        "{line}"
    );
    assert_eq!(line["kept"], PLANTED);
    for (rule, least) in [("equal_codes", 0), ("perceptual_hashes", PLANTED)] {
        let both = line["compared"][rule]["in_both"].as_u64();
        assert!(both.is_some_and(|both| both >= least), "{rule}: {line}");
    }
    let list = fs::read_to_string(here.join("list")).unwrap();
    let rows =
        list.lines().filter(|row| !row.starts_with('#')).map(|row| row.split('\t').collect::<Vec<_>>());
    let kept: BTreeMap<String, String> = rows.map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    assert_eq!(kept.len() as u64, planted);
    for (removed, kept) in &kept {
        // Names are sorted: the first of a group is the JPEG.
        assert!(removed[..2] == kept[..2] && kept.ends_with("-again.jpg"), "{removed} like {kept}");
    }
    let montage = image::open(here.join("pairs.png")).unwrap();
    assert!(montage.width() > 4 * 2 * 64 && montage.height() > 4 * 64, "{montage:?}");
    // The same list again, whatever the number of threads.
    let again = [&options[..], &["--out", "again", "--threads", "1", "--quiet"]].concat();
    assert!(run(here, &again).status.success());
    assert_eq!(fs::read_to_string(here.join("again")).unwrap(), list);
}

#[test]
fn invalid_options_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir(here.join("empty")).unwrap();
    let shape = ImageShape { height: 64, width: 64, channels: 3 };
    let digits = Dataset::embedded_digits(shape).unwrap();
    dcgan_data::pack(&digits, &here.join("digits.cache"), |_| ()).unwrap();
    for (arguments, part) in [
        (&["dedup", "empty"][..], "found 0 images"),
        (&["dedup", "gone"], "cannot read"),
        (&["dedup", "digits.cache"], "digits.cache is a cache of 64x64x3 images: name the folder or file"),
        (
            &["dedup", "empty", "--min-correlation", "2"],
            "--min-correlation is 2, expected a number from -1 to 1",
        ),
        (&["dedup", "empty", "--montage", "pairs.txt"], "pairs.txt"),
        (&["dedup", "gone.zip", "--out", "./gone.zip"], "the dataset and --out are the same file"),
        (&["dedup", "gone", "--out", "x", "--montage", "x"], "--out and --montage are the same file"),
        (&["dedup", "empty", "--steps", "0", "--tables", "0"], "--tables is 0, expected 1 to 1000"),
    ] {
        let output = run(here, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}
