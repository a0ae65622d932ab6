//! Tests of inference from damaged files, and of strides. `tests/it/inferred.rs` compares outputs with PyTorch.

use std::path::PathBuf;

use super::super::geometry::{Block, Problem, blocks};
use super::super::names::NetworkKind::{self, Discriminator, Generator};
use super::super::{ImportError, ImportOptions, Imported, read_model};
use crate::weights::{HostTensor, Precision, Weights, write_safetensors};
use crate::{Model, ModelConfig, Preset};

fn tensor(shape: &[usize]) -> HostTensor {
    HostTensor { shape: shape.to_vec(), data: vec![0.5; shape.iter().product()] }
}

/// A network of pytorch/examples with these channels, from the input to the output.
fn network(kind: NetworkKind, channels: &[usize]) -> Weights {
    let mut weights = Weights::new();
    let (mut module, layers) = (0, channels.len() - 1);
    for i in 0..layers {
        let (input, output) = (channels[i], channels[i + 1]);
        let (shape, has_norm) = match kind {
            Generator => ([input, output, 4, 4], i + 1 < layers),
            Discriminator => ([output, input, 4, 4], i > 0 && i + 1 < layers),
        };
        weights.insert(format!("main.{module}.weight"), tensor(&shape));
        if has_norm {
            for leaf in ["weight", "bias", "running_mean", "running_var"] {
                weights.insert(format!("main.{}.{leaf}", module + 1), tensor(&[output]));
            }
        }
        module += if has_norm { 3 } else { 2 };
    }
    weights
}

fn imported(weights: &[&Weights], options: &ImportOptions) -> Result<(Model, Imported), ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let write = |(i, weights): (usize, &&Weights)| {
        let path = folder.path().join(format!("{}.safetensors", ["a", "b"][i]));
        write_safetensors(&path, weights, Precision::F32).unwrap();
        path
    };
    let paths: Vec<PathBuf> = weights.iter().enumerate().map(write).collect();
    read_model(&paths, options)
}

/// A change of a tensor by name: removed, or with another shape; `main.4.*` is every tensor of a module.
type Change<'a> = (&'a str, Option<&'a [usize]>);

#[test]
fn names_what_is_missing_or_misshapen() {
    let g = network(Generator, &[5, 8, 4, 2, 3]);
    let d = network(Discriminator, &[3, 2, 4, 8, 1]);
    let rows: [(&Weights, &[Change], &[&str]); 14] = [
        (&g, &[("main.4.weight", None)], &["missing main.4.weight (blocks.0.norm.weight) (4)"]),
        (
            &g,
            &[("main.7.running_var", None)],
            &["missing main.7.running_var (blocks.1.norm.running_var) (2)"],
        ),
        (&g, &[("main.3.weight", None)], &["missing main.3.weight (blocks.0.conv.weight) (8, 4, 4, 4)"]),
        (&g, &[("main.0.weight", None)], &["missing main.0.weight (project.conv.weight) (100, 8, 4, 4)"]),
        (&g, &[("main.9.weight", None)], &["missing main.9.weight (blocks.2.conv.weight) (2, 3, 4, 4)"]),
        (
            &g,
            &[("main.3.weight", None), ("main.4.*", None)],
            &[
                "missing main.3.weight (blocks.0.conv.weight) (8, 4, 4, 4)",
                "missing main.4.weight (blocks.0.norm.weight) (4)",
                "missing main.4.running_var",
            ],
        ),
        (
            &g,
            &[("main.6.weight", Some(&[5, 2, 4, 4])), ("main.1.bias", Some(&[3]))],
            &[
                "main.1.bias (project.norm.bias): expected (8), found (3)\n",
                "main.6.weight (blocks.1.conv.weight): expected (4, 2, 4, 4), found (5, 2, 4, 4)",
            ],
        ),
        (
            &g,
            &[("main.3.weight", Some(&[8, 64]))],
            &["main.3.weight (blocks.0.conv.weight): expected (8, 4, 4, 4)"],
        ),
        (
            &g,
            &[("main.0.weight", Some(&[128, 5]))],
            &["main.0.weight (project.conv.weight)", "found (128, 5)\na weight"],
        ),
        (
            &g,
            &[("main.3.scale", Some(&[4]))],
            &["main is not a whole generator:\n  unexpected main.3.scale (4)"],
        ),
        (&d, &[("main.0.weight", None)], &["missing main.0.weight (blocks.0.conv.weight) (2, 3, 4, 4)"]),
        (&d, &[("main.2.weight", None)], &["missing main.2.weight (blocks.1.conv.weight) (4, 2, 4, 4)"]),
        (&d, &[("main.5.weight", None)], &["missing main.5.weight (blocks.2.conv.weight) (8, 4, 4, 4)"]),
        (&d, &[("main.8.weight", None)], &["missing main.8.weight (head.conv.weight) (1, 8, 4, 4)"]),
    ];
    for (whole, changes, parts) in rows {
        let mut weights = whole.clone();
        for (name, shape) in changes {
            match (name.strip_suffix('*'), shape) {
                (Some(module), _) => weights.retain(|name, _| !name.starts_with(module)),
                (None, Some(shape)) => drop(weights.insert((*name).to_owned(), tensor(shape))),
                (None, None) => assert!(weights.remove(*name).is_some(), "{name}"),
            }
        }
        let error = imported(&[&weights], &ImportOptions::default()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{changes:?}: no {part:?} in {error}");
        }
        let order: Vec<usize> = parts.iter().filter_map(|part| error.find(part)).collect();
        assert!(order.is_sorted(), "{error}");
    }
}

#[test]
fn two_files_give_one_model_in_any_order() {
    let g = network(Generator, &[100, 512, 256, 128, 64, 3]);
    let d = network(Discriminator, &[3, 64, 128, 256, 512, 1]);
    let narrow = network(Discriminator, &[3, 16, 32, 7, 1]);
    let options = ImportOptions::default();
    for files in [[&g, &d], [&d, &g]] {
        let (model, found) = imported(&files, &options).unwrap();
        assert_eq!(model.config(), Preset::named("pytorch64").unwrap().model().unwrap().config());
        assert!(found.generator.is_some() && found.discriminator.is_some());
        assert!(found.notes.iter().any(|note| note.contains("the preset pytorch64")), "{:?}", found.notes);
    }
    let grey = (network(Generator, &[9, 8, 4, 2, 1]), network(Discriminator, &[1, 2, 4, 8, 1]));
    // Both in one list: their layers would connect to one longer network, too.
    let join = |prefix: &str, weights: &Weights| -> Weights {
        weights.iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor.clone())).collect()
    };
    let both: Weights = join("first", &grey.1).into_iter().chain(join("second", &grey.0)).collect();
    let (model, found) = imported(&[&both], &options).unwrap();
    assert_eq!((model.config().image_shape(), model.config().latent.size), ((32, 32, 1), 9));
    assert!(found.generator.is_some() && found.discriminator.is_some());
    let error = imported(&[&g, &narrow], &options).unwrap_err().to_string();
    assert!(error.contains("64x64 with 3 channel(s), the discriminator takes 32x32"), "{error}");
    let error = imported(&[&g, &g], &options).unwrap_err().to_string();
    assert!(error.contains("a.safetensors and ") && error.contains("both hold a generator"), "{error}");
}

/// Biases that a configuration does not have: folded where batch norm follows, added elsewhere.
#[test]
fn keeps_biases_beside_a_configuration() {
    let mut g = network(Generator, &[4, 8, 4, 2, 3]);
    for (module, channels) in [(0, 8), (3, 4), (6, 2), (9, 3)] {
        g.insert(format!("main.{module}.bias"), tensor(&[channels]));
    }
    let (inferred, _) = imported(&[&g], &ImportOptions::default()).unwrap();
    let mut config: ModelConfig = inferred.config().clone();
    assert_eq!(config.generator.bias, true.into());
    config.generator.bias = false.into();
    let model = Model::new(config).unwrap();
    let options = ImportOptions { model: Some(&model), ..ImportOptions::default() };
    let (adapted, found) = imported(&[&g], &options).unwrap();
    let weights = found.generator.unwrap();
    assert_eq!(adapted.config().generator.bias, [false, false, false, true].as_slice().into());
    assert_eq!(weights["blocks.2.conv.bias"].data, [0.5; 3]);
    assert_eq!(weights["project.norm.running_mean"].data, [0.0; 8]);
    assert!(
        found.notes.iter().any(|note| note.contains("biases of 3 convolutions are folded")),
        "{:?}",
        found.notes
    );
}

/// A network, the side of its small map, its kernels, the side of the images if it is known; and the side of the images
/// with stride, padding and output padding of each layer.
type Row<'a> = (NetworkKind, usize, &'a [usize], Option<usize>, Result<Ways<'a>, Problem>);
type Ways<'a> = (usize, &'a [(usize, usize, usize)]);

#[test]
fn strides_follow_from_kernels_and_sizes() {
    let several = |sizes: &[usize]| Err(Problem::Several(sizes.iter().map(|side| (*side, *side)).collect()));
    let rows: [Row; 12] = [
        (Generator, 4, &[4, 4], None, Ok((16, &[(2, 1, 0), (2, 1, 0)]))),
        (Discriminator, 4, &[4, 4], None, Ok((16, &[(2, 1, 0), (2, 1, 0)]))),
        (Generator, 7, &[4, 4], None, Ok((28, &[(2, 1, 0), (2, 1, 0)]))),
        // Three halvings leave 3 x 3 of 28 x 28 as well as of 24 x 24.
        (Discriminator, 3, &[4, 4, 4], None, several(&[24, 28])),
        (Discriminator, 3, &[4, 4, 4], Some(28), Ok((28, &[(2, 1, 0); 3]))),
        (Generator, 4, &[3, 4], None, several(&[8, 14, 16])),
        (Generator, 4, &[3, 4], Some(14), Ok((14, &[(2, 1, 0), (2, 1, 0)]))),
        (Generator, 4, &[5, 5], Some(16), Ok((16, &[(2, 2, 1), (2, 2, 1)]))),
        // The order of two strides is open.
        (Generator, 4, &[5, 5], Some(8), several(&[8])),
        // The anime faces of the PyTorch book.
        (Generator, 4, &[4, 4, 4, 5], Some(96), Ok((96, &[(2, 1, 0), (2, 1, 0), (2, 1, 0), (3, 1, 0)]))),
        (Generator, 4, &[4], Some(9), Err(Problem::NotThisSize((9, 9), vec![(8, 8)]))),
        (Generator, 4, &[9], None, Err(Problem::Kernel(9))),
    ];
    for (network, map, kernels, size, expected) in rows {
        let layers: Vec<Block> = kernels.iter().map(|kernel| (1, *kernel, None)).collect();
        let found = blocks(network, (map, map), &layers, size.map(|side| (side, side)));
        let found = found.map(|found| {
            let steps = found.blocks.iter().map(|block| (block.stride, block.padding, block.output_padding));
            (found.image, steps.collect::<Vec<_>>())
        });
        let expected = expected.map(|(side, steps)| ((side, side), steps.to_vec()));
        assert_eq!(found, expected, "{kernels:?} {size:?}");
    }
}
