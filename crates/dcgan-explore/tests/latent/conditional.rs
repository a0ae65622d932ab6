//! z with classes of a conditional model: drawn, named, interpolated, added, saved.

use super::{cell, grey, run, succeed};
use dcgan_explore::arithmetic::{combine, perturb, turn};
use dcgan_explore::interpolation::{Interpolation, walks};
use dcgan_explore::latent::{LatentSet, LatentSpec, concat};
use dcgan_model::weights::Precision;
use dcgan_model::{Classes, Model, ModelFiles, Preset};
use std::fs;
use std::path::Path;

/// A folder with an untrained conditional model of 28 x 28 grey images with z of 5 and the classes a, b and c.
fn model(folder: &Path) -> Model {
    let mut config = Preset::named("mnist-cond").unwrap().model;
    config.latent.size = 5;
    config.classes = 3;
    config.class_names = ["a", "b", "c"].map(str::to_owned).to_vec();
    (config.generator.dense, config.discriminator.dense) = (vec![6], vec![6]);
    config.generator.project_channels = 4;
    config.generator.blocks[0].channels = 4;
    config.discriminator.blocks.iter_mut().for_each(|block| block.channels = 4);
    let model = Model::new(config).unwrap();
    let files = ModelFiles {
        generator: Some(model.initial_generator(3, 0.5, 0.02)),
        discriminator: Some(model.initial_discriminator(3, 0.1, 0.02)),
        model: model.clone(),
    };
    fs::create_dir(folder.join("model")).unwrap();
    files.write(&folder.join("model"), "", Precision::F32).unwrap();
    model
}

/// The label vector of each row.
fn labels(set: &LatentSet) -> Vec<Vec<f32>> {
    set.rows().map(|row| row[set.z_size()..].to_vec()).collect()
}

#[test]
fn classes_follow_their_z() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let config = model.config();
    let resolve = |text: &str| LatentSpec::parse_and_resolve(text, config);
    let (a, b) = (vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0]);
    let turns = LatentSet::draw(2, 4, config, Classes::InTurn).unwrap();
    assert_eq!((turns.z_size(), turns.classes(), turns.size()), (5, 3, 8));
    assert_eq!(labels(&turns), [a.clone(), b.clone(), vec![0.0, 0.0, 1.0], a.clone()]);
    // Names and numbers; the z are those without a class.
    let named = resolve("seed:2:1,3@a").unwrap();
    assert_eq!(labels(&named), [a.clone(), a.clone()]);
    assert_eq!(named, resolve("seed:2:1,3@0").unwrap());
    assert_eq!(named.rows().next().unwrap()[..5], turns.rows().nth(1).unwrap()[..5]);
    for (text, part) in
        [("seed:2:1@d", "one of a, b, c"), ("seed:2:1@", "expected FILE"), ("@a", "expected FILE")]
    {
        let message = resolve(text).unwrap_err().to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
    // A file keeps the classes; @ replaces them.
    let path = folder.path().join("z.safetensors");
    turns.write(&path).unwrap();
    assert_eq!(LatentSet::read(&path).unwrap(), turns);
    let file = path.to_str().unwrap();
    assert_eq!(labels(&resolve(&format!("{file}:2,0@b")).unwrap()), [b.clone(), b.clone()]);
    LatentSet::new(vec![0.5; 5], 5, "a test").unwrap().write(&path).unwrap();
    assert!(resolve(file).unwrap_err().to_string().contains("append @CLASS"));
    assert_eq!(labels(&resolve(&format!("{file}@b")).unwrap()), std::slice::from_ref(&b));

    // Walks mix the classes linearly, on any path of z.
    let ends = concat(&[resolve("seed:2:0@a").unwrap(), resolve("seed:2:0@b").unwrap()]).unwrap();
    for way in [Interpolation::Linear, Interpolation::Spherical] {
        let walk = walks(&ends, 3, way).unwrap();
        assert_eq!(labels(&walk), [a.clone(), vec![0.5, 0.5, 0.0], b.clone()]);
    }
    // Arithmetic adds classes, noise leaves them alone, a turn moves them.
    let [from, to] = ["seed:1:0,1@a", "seed:1:2,3@b"].map(|spec| resolve(spec).unwrap());
    let sum = combine(&[to.clone(), ends.select(&[0], "x").unwrap()], std::slice::from_ref(&from)).unwrap();
    assert_eq!(labels(&sum), std::slice::from_ref(&b));
    let copies = perturb(&sum, 0.25, 2, 0).unwrap();
    assert_eq!(labels(&copies), [b.clone(), b.clone(), b.clone()]);
    assert_ne!(copies.rows().nth(1).unwrap()[..5], sum.values()[..5]);
    let turned = turn(&ends.select(&[0], "x").unwrap(), (&to, &from), 3, 1.0).unwrap();
    assert_eq!(labels(&turned), [b.clone(), a.clone(), vec![2.0, -1.0, 0.0]]);
}

#[test]
fn commands_take_classes() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    model(here);
    succeed(here, "sample --model model --grid 1x3 --seed 4 --out turns.png");
    succeed(here, "sample --model model --grid 1x3 --seed 4 --class c --save-z c.safetensors --out c.png");
    let (turns, c) = (grey(&here.join("turns.png")), grey(&here.join("c.png")));
    // Sample i has class i mod 3 by default.
    assert!(cell(&turns, 0, 2) == cell(&c, 0, 2) && cell(&turns, 0, 0) != cell(&c, 0, 0));
    succeed(here, "interpolate --model model --z seed:4:0@a --z c.safetensors:0 --steps 4 --out walk.png");
    let walk = grey(&here.join("walk.png"));
    assert!(cell(&walk, 0, 0) == cell(&turns, 0, 0) && cell(&walk, 0, 3) == cell(&c, 0, 0));
    succeed(
        here,
        "arithmetic --model model --plus seed:4:0,1,2@a --minus seed:4:0,1,2@b --plus seed:4:3,4,5@b",
    );
    succeed(here, "turn --model model --left seed:4:0@a --right seed:4:0@b --class c");
    // Commands without classes say so; nothing is written.
    let refused = |line: &str, part: &str| {
        let output = run(here, &line.split(' ').collect::<Vec<_>>());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{line}: {message}");
        assert!(message.contains(part), "{line}: {message}");
    };
    for line in [
        "sample --model model --sort-by-score --out x.png",
        "guided --model model --out x.png",
        "maxact --model model --out x.png",
        "neighbours --model model --out x.png",
        "invert --model model --out x.png",
        "ablate --model model --boxes b.json --out x.png",
    ] {
        refused(line, "model is conditional");
    }
    refused("sample --model model --class d --out x.png", "one of a, b, c");
    refused("sample --class 3 --out x.png", "models/mnist-cond does not exist");
    assert!(!here.join("x.png").exists());
    // z with classes need a conditional model, also without --model.
    fs::create_dir(here.join("models")).unwrap();
    refused("interpolate --z c.safetensors:0,1 --out x.png", "models/mnist-cond does not exist");
    fs::rename(here.join("model"), here.join("models/mnist-cond")).unwrap();
    succeed(here, "interpolate --z c.safetensors:0,1 --steps 4 --out shipped.png");
}
