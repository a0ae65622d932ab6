//! Invalid input: messages that name the fix, exit code 2, nothing written.

use crate::{run, sample_images, small_model};
use dcgan_explore::latent::LatentSet;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file below `folder` with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else if path.exists() {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn invalid_input_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    small_model(here, "small", true);
    small_model(here, "no-discriminator", false);
    fs::remove_file(small_model(here, "no-generator", true).join("generator.safetensors")).unwrap();
    sample_images(here, 4);
    LatentSet::new(vec![0.5; 30], 10, "a test").unwrap().write(&here.join("ten.safetensors")).unwrap();
    for (name, value) in [("far", 3e38), ("near", -3e38)] {
        let z = LatentSet::new(vec![value; 64], 64, "a test").unwrap();
        z.write(&here.join(format!("{name}.safetensors"))).unwrap();
    }
    let nothing = r#"{"block": "blocks.0", "channels": 8, "maps": []}"#;
    fs::write(here.join("nothing.json"), nothing).unwrap();
    fs::write(here.join("text"), "no z").unwrap();
    fs::copy(here.join("small/generator.safetensors"), here.join("weights.safetensors")).unwrap();
    fs::create_dir(here.join("empty")).unwrap();
    std::os::unix::fs::symlink("nothing", here.join("dangling")).unwrap();
    let before = contents(here);
    let rows: &[(&str, &[&str])] = &[
        ("sample --seed -1", &["'-1' for '--seed", "an integer of at least 0"]),
        ("sample --n -3", &["'-3' for '--n", "an integer of at least 1"]),
        ("interpolate --gif x.gif --rate -5", &["'-5' for '--rate", "from 1 to 50"]),
        ("invert --images 1,-2", &["'-2' for '--images", "an integer of at least 0"]),
        ("sample --model small --truncate -1", &["--truncate", "at least 0.01"]),
        ("sample --model absent", &["absent does not exist"]),
        ("sample --preset digits", &["--preset", "--model"]),
        ("sample --class 3", &["models/mnist-cond does not exist", "--model"]),
        ("interpolate --z seed:1:0@3 --z seed:1:1@4", &["models/mnist-cond does not exist", "--model"]),
        ("sample --model text", &["text", "unknown format"]),
        (
            "sample --n 0 --out nowhere/x.png",
            &["--n 0: expected at least 1", "--out nowhere/x.png: the folder nowhere does not exist"],
        ),
        ("sample --grid 3by4", &["3by4", "RxC"]),
        ("sample --grid 0x4", &["0x4"]),
        ("sample --grid 2x2 --n 5", &["--grid 2x2: 5 images do not fit"]),
        ("sample --truncate 1", &["--truncate", "uniform in [-1, 1]"]),
        ("sample --model small --truncate 0", &["--truncate", "at least 0.01"]),
        ("sample --model small --truncate nan", &["--truncate", "at least 0.01"]),
        ("sample --model small --truncate 1 --numbers", &["--numbers with --truncate", "--save-z"]),
        ("sample --z seed:1:4 --numbers", &["--numbers with --z", "--save-z"]),
        (
            "sample --model no-discriminator --sort-by-score",
            &["no-discriminator has no discriminator", "score"],
        ),
        ("sample --model no-generator", &["no-generator has no generator"]),
        ("sample --z ten.safetensors", &["ten.safetensors has z of size 10, the model takes 64"]),
        (
            "sample --model small --z ten.safetensors:1,3",
            &["ten.safetensors: there is no z 3", "from 0 to 2"],
        ),
        ("sample --model small --z ten.safetensors:one", &["ten.safetensors:one", "FILE:i,j,k"]),
        ("sample --z seed:3", &["seed:3", "seed:S:i,j,k"]),
        ("sample --z seed:3:", &["seed:S:i,j,k"]),
        (
            "sample --z text --z weights.safetensors",
            &["--z text", "--z weights.safetensors", "expected one tensor z"],
        ),
        ("sample --z absent.safetensors", &["absent.safetensors"]),
        ("sample --n 3 --z seed:1:1", &["--n with --z"]),
        ("sample --without text", &["--without", "text"]),
        ("sample --without absent.json", &["--without", "absent.json"]),
        ("sample --out same --save-z same", &["--out and --save-z are the same file"]),
        ("sample --out same --save-z ./same", &["--out and --save-z are the same file"]),
        ("sample --out same --save-z empty/../same", &["--out and --save-z are the same file"]),
        ("sample --z ten.safetensors --save-z ./ten.safetensors", &["--z and --save-z are the same file"]),
        ("sample --without text --out text", &["--without and --out are the same file"]),
        (
            "invert --data weights.safetensors --out weights.safetensors",
            &["--data and --out are the same file"],
        ),
        ("sample --model small --out small/config.json", &["--out small/config.json is a file in --model"]),
        ("sample --without nothing.json", &["--without: nothing.json", "maps is empty"]),
        ("arithmetic --plus far.safetensors --plus far.safetensors", &["--plus and --minus", "is inf"]),
        ("turn --left far.safetensors --right near.safetensors", &["is inf"]),
        ("sample --out empty/..", &["--out empty/..: is a folder, expected a file"]),
        ("sample --out new/", &["--out new/: does not name a file"]),
        ("sample --out empty", &["--out empty: is a folder"]),
        (
            "sample --out a.tiff --save-z z.npz",
            &["a.tiff: .tiff is not written, expected .png, .jpg", ".safetensors"],
        ),
        ("interpolate --gif a.png", &["--gif a.png: .png is not written, expected .gif"]),
        ("sample --out - --save-z -", &["standard output"]),
        ("invert --out - --json", &["standard output"]),
        ("sample --out dangling", &["--out dangling: is a link to", "nothing, which does not exist"]),
        ("sample --threads 0", &["--threads is 0"]),
        (
            "interpolate --steps 1 --rows 0",
            &["--steps 1: expected 2 to 1000", "--rows 0: expected 1 to 1000"],
        ),
        ("interpolate --z seed:1:4", &["at least 2"]),
        ("interpolate --z seed:1:4,5 --rows 3", &["--rows 3: expected 1 for 2 z"]),
        ("interpolate --spherical --linear", &["--linear"]),
        ("interpolate --rate 5", &["--gif"]),
        // 28 x 28 pixels and 64 values of z are 1040 bytes.
        ("interpolate --rows 1000 --steps 1000", &["--rows x --steps: 1000000 x 1040 bytes", "516222"]),
        ("sample --n 600000", &["--n: 600000 x 1040 bytes exceed 512 MiB, use at most 516222"]),
        ("sample --n 700000 --model small --truncate 1", &["--n: 700000 x 824 bytes", "use at most 651542"]),
        ("neighbours --model absent --data missing --n 0", &["absent does not", "--data missing", "--n 0"]),
        ("invert --n 0 --data empty --restarts 0", &["empty", "--n 0", "--restarts 0"]),
        (
            "turn --left seed:1:1 --right seed:1 --steps 1 --model absent",
            &["--right seed:1", "--steps 1", "absent"],
        ),
        (
            "sample --model no-generator --z ten.safetensors --n 0",
            &["--n 0", "--n with --z", "has no generator"],
        ),
        ("arithmetic --minus seed:1:1", &["--plus"]),
        ("arithmetic --plus seed:1:1 --noise -1", &["--noise"]),
        (
            "arithmetic --plus seed:1: --minus ten.safetensors",
            &["--plus seed:1:", "--minus ten.safetensors", "the model takes 64"],
        ),
        ("turn --left seed:1:1", &["--right"]),
        ("turn --left seed:1:1 --right ten.safetensors", &["--right ten.safetensors", "the model takes 64"]),
        ("neighbours --model no-discriminator", &["no-discriminator has no discriminator", "feature"]),
        ("neighbours --data empty", &["empty"]),
        ("neighbours --data absent", &["absent"]),
        ("neighbours --n 0 --nearest 0 --among 0", &["--n 0", "--nearest 0", "--among 0"]),
        ("invert --data images --images 1,4", &["--images 4: expected 0 to 3, the dataset has 4 images"]),
        ("invert --data images --restarts 0 --learning-rate 0", &["--restarts 0", "--learning-rate 0"]),
        ("invert --data images --crop 0", &["--crop is 0"]),
    ];
    for (line, expected) in rows {
        let output = run(here, &line.split(' ').collect::<Vec<_>>());
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {message}");
        assert!(expected.iter().all(|part| message.contains(part)), "{line}: {message}");
        assert!(output.stdout.is_empty());
    }
    let now = contents(here);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&now), names(&before), "refused commands wrote or deleted files");
    assert!(now == before, "refused commands changed files");
}
