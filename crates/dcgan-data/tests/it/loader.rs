//! The loader: the same bytes for any number of threads and any start position, error handling, shutdown of threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dcgan_data::{
    Batch, BatchPart, DataError, Dataset, KeptImages, Loader, LoaderConfig, LoaderPosition, OpenOptions,
};

use crate::fixtures::{Folder, idx, idx_images, pixels, png, shape};

/// 11 images of 5 x 4; the label of an image is its index.
fn dataset() -> Arc<Dataset> {
    let labels: Vec<u8> = (0..11).collect();
    let folder = Folder::new(&[
        ("train-images-idx3-ubyte", idx_images(11)),
        ("train-labels-idx1-ubyte", idx(&[11], &labels)),
    ]);
    Arc::new(Dataset::open(folder.path(), &OpenOptions::new(shape(5, 4, 1))).unwrap())
}

fn config(batch_size: usize, threads: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size,
        seed: 9,
        mirror: false,
        threads,
        prefetch_bytes: 1 << 20,
        part: BatchPart::WHOLE,
    }
}

fn take(loader: &mut Loader, count: usize) -> Vec<Batch> {
    (0..count)
        .map(|_| {
            let position = loader.position();
            let batch = loader.next_batch().unwrap();
            assert_eq!(batch.position, position);
            batch
        })
        .collect()
}

#[test]
fn batches_depend_only_on_seed_and_position() {
    let dataset = dataset();
    let mut loader = Loader::new(Arc::clone(&dataset), config(3, 1), LoaderPosition::default()).unwrap();
    assert_eq!(loader.batches_per_epoch(), 3);
    let uninterrupted = take(&mut loader, 10);
    for threads in [0, 2, 5] {
        let mut other =
            Loader::new(Arc::clone(&dataset), config(3, threads), LoaderPosition::default()).unwrap();
        assert_eq!(take(&mut other, 10), uninterrupted, "{threads} threads");
    }
    for start in 0..10 {
        // The end of an epoch and the start of the next are the same position.
        let position = uninterrupted[start].position;
        let mut resumed = Loader::new(Arc::clone(&dataset), config(3, 2), position).unwrap();
        assert_eq!(take(&mut resumed, 10 - start), uninterrupted[start..], "from batch {start}");
    }
    let mut end =
        Loader::new(Arc::clone(&dataset), config(3, 1), LoaderPosition { epoch: 0, batch: 3 }).unwrap();
    assert_eq!(end.next_batch().unwrap(), uninterrupted[3]);
    let mut other_seed =
        Loader::new(dataset, LoaderConfig { seed: 10, ..config(3, 1) }, LoaderPosition::default()).unwrap();
    assert_ne!(take(&mut other_seed, 10), uninterrupted);
}

#[test]
fn an_epoch_contains_every_image_at_most_once_with_its_label() {
    let mut loader = Loader::new(dataset(), config(3, 2), LoaderPosition::default()).unwrap();
    for _ in 0..3 {
        let mut seen = Vec::new();
        for batch in take(&mut loader, 3) {
            let labels = batch.labels.unwrap();
            assert_eq!((batch.count, labels.len(), batch.pixels.len()), (3, 3, 3 * 20));
            for (image, label) in batch.pixels.chunks_exact(20).zip(&labels) {
                assert_eq!(image, pixels(*label as usize, shape(5, 4, 1)));
            }
            seen.extend(labels);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 9);
    }
}

#[test]
fn mirroring_depends_only_on_seed_and_position() {
    let image_shape = shape(5, 4, 3);
    let names: Vec<String> = (0..11).map(|number| format!("{number:02}.png")).collect();
    let files: Vec<_> = names.iter().enumerate().map(|(i, name)| (name.as_str(), png(i))).collect();
    let folder = Folder::new(&files);
    let dataset = Arc::new(Dataset::open(folder.path(), &OpenOptions::new(image_shape)).unwrap());
    let mut plain = Loader::new(Arc::clone(&dataset), config(4, 1), LoaderPosition::default()).unwrap();
    let mirroring = LoaderConfig { mirror: true, ..config(4, 2) };
    let mut loader = Loader::new(Arc::clone(&dataset), mirroring, LoaderPosition::default()).unwrap();
    let (plain, mirrored) = (take(&mut plain, 8), take(&mut loader, 8));
    let mut mirrored_count = 0;
    for (before, after) in plain.iter().zip(&mirrored) {
        for (before, after) in before.pixels.chunks_exact(60).zip(after.pixels.chunks_exact(60)) {
            let position = |i: usize| (i / 12, i / 3 % 4, i % 3);
            let mirror = |(row, column, channel)| before[row * 12 + (3 - column) * 3 + channel];
            let expected: Vec<u8> = (0..60).map(|i| mirror(position(i))).collect();
            assert!(after == before || after == expected);
            mirrored_count += usize::from(after == expected);
        }
    }
    assert!((8..24).contains(&mirrored_count), "{mirrored_count} of 32 mirrored");
    let mut resumed = Loader::new(dataset, mirroring, mirrored[5].position).unwrap();
    assert_eq!(take(&mut resumed, 3), mirrored[5..]);
}

#[test]
fn parts_of_batches_are_the_batches() {
    let mirroring = LoaderConfig { mirror: true, ..config(6, 1) };
    let mut whole = Loader::new(dataset(), mirroring, LoaderPosition::default()).unwrap();
    let whole = take(&mut whole, 4);
    for count in [2, 3, 6] {
        let mut parts: Vec<Vec<Batch>> = Vec::new();
        for index in 0..count {
            let config = LoaderConfig { part: BatchPart { index, count }, ..mirroring };
            parts.push(take(&mut Loader::new(dataset(), config, LoaderPosition::default()).unwrap(), 4));
        }
        for (i, batch) in whole.iter().enumerate() {
            let parts = || parts.iter().map(|batches| &batches[i]);
            assert!(parts().all(|part| part.count == 6 / count && part.position == batch.position));
            let pixels: Vec<u8> = parts().flat_map(|part| part.pixels.clone()).collect();
            let labels: Vec<u32> = parts().flat_map(|part| part.labels.clone().unwrap()).collect();
            assert_eq!((&pixels, Some(&labels)), (&batch.pixels, batch.labels.as_ref()), "{count} parts");
        }
    }
}

#[test]
fn kept_images_are_not_read_again() {
    let kept = Arc::new(KeptImages::new(&dataset()));
    assert_eq!(kept.capacity(), 11);
    let mirroring = LoaderConfig { mirror: true, prefetch_bytes: 1, ..config(3, 1) };
    let mut plain = Loader::new(dataset(), mirroring, LoaderPosition::default()).unwrap();
    let start = LoaderPosition::default();
    let mut loader = Loader::keeping(dataset(), mirroring, start, Some(Arc::clone(&kept))).unwrap();
    let mut store = vec![None; kept.capacity()];
    let mut reads = 0;
    for _ in 0..9 {
        let batch = loader.next_batch().unwrap();
        let expected = plain.next_batch().unwrap();
        assert_eq!((batch.position, &batch.labels), (expected.position, &expected.labels));
        for (i, (image, expected)) in batch.images.iter().zip(expected.pixels.chunks_exact(20)).enumerate() {
            let stored = &mut store[image.index as usize];
            if image.is_read {
                *stored = Some(batch.pixels[20 * i..20 * (i + 1)].to_vec());
                reads += 1;
            }
            let mut rows = stored.clone().expect("an image that is kept was read before");
            if image.is_mirrored {
                rows.chunks_exact_mut(4).for_each(<[u8]>::reverse);
            }
            assert_eq!(rows, expected);
        }
        kept.keep(&batch);
    }
    // A worker may be a few batches ahead of what is kept.
    assert!((11..27).contains(&reads), "{reads} of 27 images read");
}

/// Batches of several jobs: 50 images of which each worker takes 16.
#[test]
fn large_batches_are_the_same_for_any_number_of_workers() {
    let folder = Folder::new(&[("train-images-idx3-ubyte", idx_images(120))]);
    let dataset = Arc::new(Dataset::open(folder.path(), &OpenOptions::new(shape(5, 4, 1))).unwrap());
    let batches = |threads, mirror, index, count| {
        let part = BatchPart { index, count };
        let config = LoaderConfig { mirror, part, ..config(50, threads) };
        let mut loader = Loader::new(Arc::clone(&dataset), config, LoaderPosition::default()).unwrap();
        take(&mut loader, 7)
    };
    for mirror in [false, true] {
        let one = batches(1, mirror, 0, 1);
        assert_eq!(batches(5, mirror, 0, 1), one);
        let parts = [batches(3, mirror, 0, 2), batches(1, mirror, 1, 2)];
        for (i, whole) in one.iter().enumerate() {
            let images = [&parts[0][i].images[..], &parts[1][i].images].concat();
            let pixels = [&parts[0][i].pixels[..], &parts[1][i].pixels].concat();
            assert_eq!((&images, &pixels), (&whole.images, &whole.pixels));
        }
        assert_eq!(one[0].images.len(), 50);
        assert_eq!(one.iter().any(|batch| batch.images.iter().any(|image| image.is_mirrored)), mirror);
    }
}

#[test]
fn invalid_configurations_are_errors_with_numbers() {
    let rows: [(usize, LoaderPosition, &str); 3] = [
        (
            12,
            LoaderPosition::default(),
            "a batch of 12 images is larger than the dataset of 11: use --batch-size 11 or less",
        ),
        (0, LoaderPosition::default(), "the batch size is 0, expected 1 or more"),
        (
            3,
            LoaderPosition { epoch: 1, batch: 4 },
            "batch 4 is out of range: an epoch has 3 batches; did the dataset change?",
        ),
    ];
    for (batch_size, start, message) in rows {
        let error = Loader::new(dataset(), config(batch_size, 1), start).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn next_batch_returns_the_error_of_an_image_and_retries_the_batch() {
    let files: Vec<_> = (0..8).map(|index| (format!("{index}.png"), png(index))).collect();
    let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
    let folder = Folder::new(&files);
    folder.write("5.png", b"not an image");
    let dataset = Arc::new(Dataset::open(folder.path(), &OpenOptions::new(shape(5, 4, 3))).unwrap());
    let mut loader = Loader::new(dataset, config(1, 3), LoaderPosition::default()).unwrap();
    let mut results: Vec<_> = (0..8).map(|_| loader.next_batch()).collect();
    let first_error = results.iter().position(Result::is_err).unwrap();
    assert!(results.drain(first_error..).all(|result| {
        matches!(result, Err(DataError::InvalidRecord { record, .. }) if record == "5.png")
    }));
    assert_eq!(loader.position().batch, first_error as u64);
    // Once the image is repaired, the loader continues with the failed batch.
    folder.write("5.png", &png(5));
    assert_eq!(loader.next_batch().unwrap().pixels, pixels(5, shape(5, 4, 3)));
}

#[test]
fn dropping_a_loader_stops_its_threads_promptly() {
    let started = Instant::now();
    for _ in 0..20 {
        let mut loader = Loader::new(dataset(), config(3, 4), LoaderPosition::default()).unwrap();
        loader.next_batch().unwrap();
        assert!(loader.wait_time() > Duration::ZERO);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}
