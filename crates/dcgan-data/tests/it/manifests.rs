//! Manifests and `verify`.

use std::path::Path;

use dcgan_data::{FileStatus, Manifest, manifests, verify};

use crate::fixtures::Folder;

#[test]
fn manifests_are_valid() {
    for manifest in manifests().unwrap() {
        for text in [&manifest.license, &manifest.homepage, &manifest.get, &manifest.splits] {
            assert!(!text.is_empty(), "{}", manifest.name);
        }
        for file in &manifest.files {
            for (hash, length) in [(&file.sha256, 64), (&file.content_sha256, 64), (&file.md5, 32)] {
                let Some(hash) = hash else { continue };
                let digits = hash.bytes().filter(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).count();
                assert_eq!((digits, hash.len()), (length, length), "{}", file.name);
            }
        }
    }
}

#[test]
fn files_are_verified_by_their_hashes() {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/digits");
    let statuses =
        |path: &Path| -> Vec<FileStatus> { verify(path).unwrap().1.iter().map(|file| file.status).collect() };
    assert_eq!(statuses(&digits), [FileStatus::Ok, FileStatus::Ok]);

    let images = std::fs::read(digits.join("images-idx3-ubyte.gz")).unwrap();
    let mut inflated = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*images), &mut inflated).unwrap();
    let folder = Folder::new(&[("images-idx3-ubyte", inflated)]);
    assert_eq!(statuses(folder.path()), [FileStatus::OkContent, FileStatus::Missing]);
    folder.write("labels-idx1-ubyte.gz", b"other");
    assert_eq!(statuses(folder.path()), [FileStatus::OkContent, FileStatus::Differs]);
    assert_eq!(statuses(&folder.join("labels-idx1-ubyte.gz")), [FileStatus::Differs]);

    let others = Folder::new(&[
        ("test_batch.bin", b"x".to_vec()),
        ("test_batch", b"x".to_vec()),
        ("bedroom_val_lmdb.zip", b"x".to_vec()),
    ]);
    assert_eq!(statuses(&others.join("test_batch.bin")), [FileStatus::Differs]);
    assert_eq!(statuses(&others.join("test_batch")), [FileStatus::Differs]);
    assert_eq!(statuses(&others.join("bedroom_val_lmdb.zip")), [FileStatus::NotRecorded]);
    let message = verify(&Folder::new(&[]).join(".")).unwrap_err().to_string();
    assert!(message.contains("has no file of a known dataset; known datasets: MNIST"), "{message}");
}

#[test]
fn the_old_spelling_of_license_is_read() {
    let manifest = |key: &str| -> Manifest {
        let text =
            format!("name = 'n'\n{key} = 'MIT'\nhomepage = 'h'\nget = 'g'\nsplits = 's'\nfiles = []\n");
        toml::from_str(&text).unwrap()
    };
    assert_eq!(manifest("licence"), manifest("license")); // old name
    assert_eq!(manifest("licence").license, "MIT"); // old name
}
