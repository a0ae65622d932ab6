//! Caches: opening a cache gives the packed dataset, and other shapes are errors.

use dcgan_data::{Dataset, Format, OpenOptions, pack};

use crate::fixtures::{Folder, open, pixels, png, read, shape};

#[test]
fn a_cache_has_the_same_images_labels_and_fingerprint() {
    let folder = Folder::new(&[("data/a/1.png", png(0)), ("data/b/2.png", png(1)), ("data/b/3.png", png(2))]);
    let options = OpenOptions { crop: Some(3), ..OpenOptions::new(shape(4, 4, 3)) };
    let dataset = Dataset::open(&folder.join("data"), &options).unwrap();
    let out = folder.join("cache");
    let mut done = Vec::new();
    let packed = pack(&dataset, &out, |count| done.push(count)).unwrap();
    assert_eq!((packed.images, packed.up_to_date, done), (3, false, vec![3]));
    assert_eq!(packed.bytes, std::fs::metadata(&out).unwrap().len());
    for options in [options.clone(), OpenOptions { crop: None, ..options.clone() }] {
        let cache = Dataset::open(&out, &options).unwrap();
        assert_eq!(cache.report().format, Format::Cache);
        assert_eq!(cache.labels(), Some(&[0, 1, 1][..]));
        assert_eq!(cache.class_names(), dataset.class_names());
        assert_eq!(cache.fingerprint(), dataset.fingerprint());
        (0..3).for_each(|index| assert_eq!(read(&cache, index), read(&dataset, index)));
    }
    assert!(pack(&dataset, &out, |_| ()).unwrap().up_to_date);
    // A changed file, or only a changed modification time, makes the cache stale.
    folder.write("data/a/1.png", &png(5));
    let changed = Dataset::open(&folder.join("data"), &options).unwrap();
    assert!(!pack(&changed, &out, |_| ()).unwrap().up_to_date);
    assert_eq!(read(&open(&out, shape(4, 4, 3)), 0), read(&changed, 0));
}

#[test]
fn other_shapes_and_other_files_are_errors() {
    let folder = Folder::new(&[("data/1.png", png(0)), ("precious.txt", b"text".to_vec())]);
    let dataset = open(&folder.join("data"), shape(5, 4, 3));
    let out = folder.join("cache");
    pack(&dataset, &out, |_| ()).unwrap();
    for options in
        [OpenOptions::new(shape(8, 8, 3)), OpenOptions { crop: Some(2), ..OpenOptions::new(shape(5, 4, 3)) }]
    {
        let message = Dataset::open(&out, &options).unwrap_err().to_string();
        assert!(message.contains("contains images of 5x4x3, expected"), "{message}");
    }
    let message = pack(&dataset, &folder.join("precious.txt"), |_| ()).unwrap_err().to_string();
    assert!(message.ends_with("exists and is not a cache: choose another --out, or remove it"), "{message}");
    assert_eq!(std::fs::read(folder.join("precious.txt")).unwrap(), b"text");
    // After an unreadable image, neither a cache nor a temporary file remains.
    folder.write("data/1.png", b"damaged");
    let damaged = open(&folder.join("data"), shape(5, 4, 3));
    pack(&damaged, &folder.join("new"), |_| ()).unwrap_err();
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 3, "data, precious.txt, cache");
}

/// The header of a cache of an earlier version, which has the keys `pictures` and `labelled`.
#[test]
fn a_cache_with_the_old_header_keys_opens() {
    let header = concat!(
        r#"{"shape":{"height":5,"width":4,"channels":3},"crop":null,"pictures":2,"labelled":true,"#, // earlier
        r#""class_names":["cat","dog"],"fingerprint":"f","key":"k","source":"data"}"#
    );
    let mut cache = b"dcgan-pictures-1".to_vec();
    cache.extend(u32::try_from(header.len()).unwrap().to_le_bytes());
    cache.extend(header.bytes());
    cache.resize(cache.len().next_multiple_of(64), 0);
    let image_shape = shape(5, 4, 3);
    (0..2).for_each(|index| cache.extend(pixels(index, image_shape)));
    [1_u32, 0].iter().for_each(|label| cache.extend(label.to_le_bytes()));
    let folder = Folder::new(&[("cache", cache)]);
    let dataset = open(&folder.join("cache"), image_shape);
    assert_eq!((dataset.report().format, dataset.len(), dataset.fingerprint()), (Format::Cache, 2, "f"));
    assert_eq!(dataset.labels(), Some(&[1, 0][..]));
    assert_eq!(dataset.class_names().unwrap(), ["cat", "dog"]);
    (0..2).for_each(|index| assert_eq!(read(&dataset, index), pixels(index, image_shape)));
}

/// Decoded images are kept on disk where they do not fit into memory: the images need not be there any more.
#[test]
fn decoded_images_are_kept_on_disk() {
    let files: Vec<(String, Vec<u8>)> = (0..5).map(|index| (format!("{index}.png"), png(index))).collect();
    let folder =
        Folder::new(&files.iter().map(|(name, png)| (name.as_str(), png.clone())).collect::<Vec<_>>());
    let caches = Folder::new(&[]);
    let options = |height| OpenOptions {
        memory_limit_bytes: 0,
        cache_folder: Some(caches.path().to_owned()),
        ..OpenOptions::new(shape(height, 4, 3))
    };
    let open = |height| Dataset::open(folder.path(), &options(height)).unwrap();
    let files_of_caches = || std::fs::read_dir(caches.path()).unwrap().count();
    let dataset = open(5);
    assert!(dataset.is_cached() && files_of_caches() == 1);
    assert!(dataset.report().to_string().contains("decoded images are kept in "), "{}", dataset.report());
    (0..5).for_each(|index| assert_eq!(read(&dataset, index), pixels(index, shape(5, 4, 3))));
    // Same names, sizes and times, other content: only what was decoded is left.
    let path = folder.join("3.png");
    let before = std::fs::metadata(&path).unwrap();
    std::fs::write(&path, vec![0; usize::try_from(before.len()).unwrap()]).unwrap();
    let set_time = |path: &std::path::Path| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
    };
    set_time(&path);
    let again = open(5);
    assert!(again.report().to_string().contains("5 are there"), "{}", again.report());
    assert_eq!(read(&again, 3), pixels(3, shape(5, 4, 3)));
    // Another shape, or a file that was written since, is another cache.
    assert!(open(4).read(3, &mut [0; 48]).is_err() && files_of_caches() == 2);
    std::fs::write(&path, png(7)).unwrap();
    let changed = open(5);
    assert_eq!(read(&changed, 3), pixels(7, shape(5, 4, 3)));
    assert_eq!(files_of_caches(), 3);
    // A folder that cannot be written is a note.
    let file = OpenOptions { cache_folder: Some(path), ..options(5) };
    let without = Dataset::open(folder.path(), &file).unwrap();
    assert!(!without.is_cached());
    assert!(without.report().to_string().contains("decoded images are not kept on disk: cannot write"));
}

#[test]
fn cache_keys_tell_images_apart() {
    let ppm = |number: usize| [b"P6 5 4 255\n".to_vec(), pixels(number, shape(4, 5, 3))].concat();
    let folder = Folder::new(&[("a.ppm", ppm(1)), ("b.ppm", ppm(2))]);
    let open = |path: &std::path::Path| open(path, shape(4, 5, 3));
    let first = open(folder.path());
    assert_eq!(open(folder.path()).cache_key(), first.cache_key());
    let caches = Folder::new(&[]);
    let packed = caches.join("a.cache");
    pack(&first, &packed, |_| ()).unwrap();
    let packed = open(&packed);
    assert_eq!(packed.fingerprint(), first.fingerprint());
    assert_ne!(packed.cache_key(), first.cache_key(), "its images may be resized");
    // Names and sizes stay as they are.
    folder.write("b.ppm", &ppm(3));
    let changed = open(folder.path());
    assert_eq!(changed.fingerprint(), first.fingerprint());
    assert_ne!(changed.cache_key(), first.cache_key());
}
