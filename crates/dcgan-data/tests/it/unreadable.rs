//! Unreadable images: found, skipped when a dataset is opened, left out later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dcgan_data::{
    BatchPart, DataError, Dataset, Loader, LoaderConfig, LoaderPosition, OpenOptions, SkippedImage,
    UnreadableImages,
};

use crate::fixtures::{Folder, png, shape, zip};

const SHAPE: dcgan_data::ImageShape = shape(5, 4, 3);

fn name(index: usize) -> String {
    format!("{index:02}.png")
}

/// `count` images, some of them cut short.
fn folder(count: usize, unreadable: &[usize]) -> Folder {
    let names: Vec<String> = (0..count).map(name).collect();
    let content = |i: usize| if unreadable.contains(&i) { png(i)[..40].to_vec() } else { png(i) };
    let files: Vec<_> = names.iter().enumerate().map(|(i, name)| (name.as_str(), content(i))).collect();
    Folder::new(&files)
}

fn skipping() -> OpenOptions {
    OpenOptions { unreadable_images: UnreadableImages::Skip, ..OpenOptions::new(SHAPE) }
}

fn names(images: &[SkippedImage]) -> Vec<&str> {
    images.iter().map(|image| image.name.as_str()).collect()
}

/// The images of `count` batches from `start` on, one after another.
fn images(dataset: &Arc<Dataset>, start: LoaderPosition, batches: usize, threads: usize) -> Vec<Vec<u8>> {
    let config = LoaderConfig {
        batch_size: 3,
        seed: 9,
        mirror: false,
        threads,
        prefetch_bytes: 1,
        part: BatchPart::WHOLE,
    };
    let mut loader = Loader::new(Arc::clone(dataset), config, start).unwrap();
    let mut images = Vec::new();
    for _ in 0..batches {
        let pixels = loader.next_batch().unwrap().pixels;
        images.extend(pixels.chunks_exact(SHAPE.bytes()).map(<[u8]>::to_vec));
    }
    images
}

#[test]
fn an_excluded_image_leaves_the_order_of_the_others() {
    let folder = folder(13, &[]);
    let whole = Arc::new(Dataset::open(folder.path(), &OpenOptions::new(SHAPE)).unwrap());
    let epochs: Vec<Vec<Vec<u8>>> =
        (0..3).map(|epoch| images(&whole, LoaderPosition { epoch, batch: 0 }, 4, 1)).collect();
    for record in 0..13 {
        let mut part = Dataset::open(folder.path(), &OpenOptions::new(SHAPE)).unwrap();
        let fingerprint = part.fingerprint().to_owned();
        let image = SkippedImage { record, name: name(record), problem: "cut short".to_owned() };
        part.exclude(vec![image.clone()]).unwrap();
        assert_eq!(
            (part.len(), part.excluded(), part.fingerprint()),
            (12, &[image][..], fingerprint.as_str())
        );
        assert!((0..12).all(|index| part.name(index).unwrap() != name(record)));
        let mut excluded = vec![0; SHAPE.bytes()];
        whole.read(record, &mut excluded).unwrap();
        let part = Arc::new(part);
        for (epoch, all) in (0..).zip(&epochs) {
            // The last image of an epoch of 13 is in no batch of the whole dataset.
            let expected: Vec<_> = all.iter().filter(|image| **image != excluded).cloned().collect();
            for threads in [1, 3] {
                let found = images(&part, LoaderPosition { epoch, batch: 0 }, 4, threads);
                assert_eq!(found[..expected.len()], expected, "image {record} of epoch {epoch}");
            }
        }
    }
    // One after another, or at once.
    let exclude = |parts: &[&[usize]]| {
        let mut part = Dataset::open(folder.path(), &OpenOptions::new(SHAPE)).unwrap();
        for part_records in parts {
            let image = |&record: &usize| SkippedImage { record, name: name(record), problem: String::new() };
            part.exclude(part_records.iter().map(image).collect()).unwrap();
        }
        images(&Arc::new(part), LoaderPosition::default(), 9, 2)
    };
    assert_eq!(exclude(&[&[3], &[7, 0]]), exclude(&[&[0, 3, 7]]));
    let mut none = Dataset::open(folder.path(), &OpenOptions::new(SHAPE)).unwrap();
    let all = (0..13).map(|record| SkippedImage { record, name: name(record), problem: String::new() });
    assert!(matches!(none.exclude(all.collect()), Err(DataError::NoImages { .. })));
}

#[test]
fn skipped_images_are_skipped_again_without_decoding() {
    let folder = folder(9, &[2, 5]);
    let decoded = AtomicUsize::new(0);
    let progress = |_: usize, total: usize| {
        assert_eq!(total, 9);
        decoded.fetch_add(1, Ordering::Relaxed);
        true
    };
    let first = Dataset::open_with_progress(folder.path(), &skipping(), &progress).unwrap();
    assert_eq!((names(first.skipped()), first.len()), (vec!["02.png", "05.png"], 7));
    assert_eq!(decoded.load(Ordering::Relaxed), 9);
    // Another image is damaged; the decision stays.
    folder.write("07.png", &vec![0; png(7).len()]);
    let options = OpenOptions { skipped_before: Some(first.skipped().to_vec()), ..skipping() };
    let again = Dataset::open_with_progress(folder.path(), &options, &|_, _| panic!("decoded")).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
    assert_eq!(again.skipped(), first.skipped());
    assert_eq!(names(&again.unreadable(&|_, _| true).unwrap()), ["07.png"]);
    assert_ne!(Dataset::open(folder.path(), &skipping()).unwrap().fingerprint(), first.fingerprint());
    // The record of another dataset.
    let other = OpenOptions { skipped_before: Some(vec![first.skipped()[1].clone()]), ..skipping() };
    let few = self::folder(3, &[]);
    assert_eq!(Dataset::open(few.path(), &other).unwrap().len(), 3);
}

#[test]
fn a_limit_of_skipped_images() {
    let folder = folder(20, &[2, 5, 6, 7, 8, 9]);
    for (limit, error) in [
        (Some(6), None),
        (None, None),
        (Some(5), Some("6 of 20 images cannot be read: 02.png (cannot be decoded")),
        (Some(0), Some("--skip-bad=0 allows 0")),
    ] {
        let options = OpenOptions { max_skipped: limit, ..skipping() };
        let result = Dataset::open(folder.path(), &options);
        match error {
            None => assert_eq!(result.unwrap().len(), 14),
            Some(part) => {
                let text = result.unwrap_err().to_string();
                assert!(text.contains(part) && !text.contains("09.png"), "{text}");
            }
        }
    }
    let cancelled = Dataset::open_with_progress(folder.path(), &skipping(), &|_, _| false);
    assert!(matches!(cancelled, Err(DataError::Cancelled)));
    let dataset = Dataset::open(folder.path(), &OpenOptions::new(SHAPE)).unwrap();
    assert!(dataset.is_encoded() && dataset.is_cached() && dataset.decode_time().as_secs() < 60);
    let unreadable = dataset.unreadable(&|_, _| true).unwrap();
    assert_eq!(names(&unreadable), ["02.png", "05.png", "06.png", "07.png", "08.png", "09.png"]);
    let error = dataset.unreadable_error(&unreadable, None).to_string();
    assert!(error.contains("6 of 20 images") && error.contains("--skip-bad"), "{error}");
}

#[test]
fn listings_change_with_the_images() {
    let listing = |folder: &Folder, path: &str| open(folder, path).listing(10);
    let open_shape = OpenOptions::new(SHAPE);
    fn open(folder: &Folder, path: &str) -> Dataset {
        Dataset::open(&folder.join(path), &OpenOptions::new(SHAPE)).unwrap()
    }
    let folder = folder(3, &[]);
    let before = listing(&folder, ".").unwrap();
    assert_eq!(
        before.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["00.png", "01.png", "02.png"]
    );
    folder.write("01.png", b"shorter");
    let after = listing(&folder, ".").unwrap();
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
    assert_ne!(before[1], after[1]);
    assert_eq!(Dataset::open(folder.path(), &open_shape).unwrap().listing(2), None);
    let archives = Folder::new(&[
        ("a.zip", zip(&[("1.png", png(1)), ("2.png", png(2))])),
        ("b.zip", zip(&[("1.png", png(1)), ("2.png", png(3))])),
    ]);
    let (a, b) = (listing(&archives, "a.zip").unwrap(), listing(&archives, "b.zip").unwrap());
    assert!(a[0] == b[0] && a[1] != b[1] && a[1].0 == "2.png");
}

#[test]
fn images_are_left_out_by_name() {
    let folder = folder(6, &[4]);
    let excluding = |names: &[&str]| {
        let excluded_names = names.iter().map(|name| (*name).to_owned()).collect();
        Dataset::open(folder.path(), &OpenOptions { excluded_names, ..skipping() })
    };
    let dataset = excluding(&["01.png", "gone.png", "04.png"]).unwrap();
    let left: Vec<String> = (0..dataset.len()).map(|index| dataset.name(index).unwrap()).collect();
    assert_eq!(left, ["00.png", "02.png", "03.png", "05.png"]);
    let report = dataset.report().to_string();
    for part in ["2 images are left out (--exclude)", "1 images to leave out are not there"] {
        assert!(report.contains(part), "{report}");
    }
    assert_eq!(names(dataset.skipped()), ["04.png"]);
    let all = excluding(&[]).unwrap();
    assert_ne!(dataset.fingerprint(), all.fingerprint());
    assert_eq!(dataset.fingerprint(), excluding(&["04.png", "01.png"]).unwrap().fingerprint());
    assert_ne!(dataset.fingerprint(), excluding(&["02.png"]).unwrap().fingerprint());
    let error = excluding(&["elsewhere.png"]).unwrap_err().to_string();
    assert!(
        error.contains("has none of the 1 images to leave out: is the list of another dataset?"),
        "{error}"
    );
}
