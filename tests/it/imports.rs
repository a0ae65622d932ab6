//! Weights of other programs from the file to images: import, network, forward pass.
//!
//! The files and the values come from PyTorch (`golden/pytorch_files`), and from the authors' released weights with
//! values computed by numpy (`golden/authors`); see `make.py` in these folders.

#![allow(clippy::unwrap_used, reason = "a test stops at the first error")]

use crate::support::values as flat;
use candle_core::{Device, Tensor};
use dcgan_model::import::{self, Expected, NetworkKind, to_pytorch_names};
use dcgan_model::weights::{Weights, read_safetensors};
use dcgan_model::{Discriminator, Generator, Latents, Model, ModelConfig, Preset};
use dcgan_ops::{Keep, Maps};
use std::path::{Path, PathBuf};

/// max|a - b| / max|b|
fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (flat(a), flat(b));
    let difference = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    difference / b.iter().fold(1e-20, |most: f32, b| most.max(b.abs()))
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn tensor(weights: &Weights, name: &str) -> Tensor {
    let tensor = &weights[name];
    Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), &Device::Cpu).unwrap()
}

fn latents(z: &Tensor) -> Latents {
    Latents::new(flat(z), z.dim(1).unwrap()).unwrap()
}

/// A preset with other channel counts.
fn narrow(preset: &str, z: usize, generator: &[usize], discriminator: &[usize]) -> Model {
    let mut config: ModelConfig = Preset::named(preset).unwrap().model;
    config.latent.size = z;
    config.generator.project_channels = generator[0];
    config.generator.blocks.iter_mut().zip(&generator[1..]).for_each(|(block, c)| block.channels = *c);
    config.discriminator.blocks.iter_mut().zip(discriminator).for_each(|(block, c)| block.channels = *c);
    Model::new(config).unwrap()
}

fn expected(model: &Model) -> Expected {
    Expected { generator: model.generator_tensors(), discriminator: model.discriminator_tensors() }
}

#[test]
fn pytorch_networks_give_the_same_images() {
    let model = narrow("pytorch64", 4, &[16, 8, 4, 2, 3], &[1, 2, 4, 8]);
    let values = read_safetensors(&golden("pytorch_files/forward.safetensors")).unwrap();
    let z = latents(&tensor(&values, "z").flatten_from(1).unwrap());
    for (file, g, d) in [
        ("netG.pth", true, false),
        ("netG_legacy.pth", true, false),
        ("netG.safetensors", true, false),
        ("netD.pth", false, true),
        ("netD_data_parallel.pth", false, true),
        ("netD_wrapped.pth", false, true),
        ("netD_legacy_strided.pth", false, true),
        ("both.pth", true, true),
        ("both_flat_legacy.pth", true, true),
    ] {
        let imported = import::read(&golden("pytorch_files").join(file), &expected(&model)).unwrap();
        assert_eq!((imported.generator.is_some(), imported.discriminator.is_some()), (g, d), "{file}");
        if let Some(weights) = &imported.generator {
            let mut generator = Generator::new(&model, weights, &Device::Cpu).unwrap();
            let error =
                distance(&generator.sample(&z).unwrap().to_tensor().unwrap(), &tensor(&values, "fake"));
            assert!(error < 1e-5, "{file}: G(z) differs by {error}");
            // Export and import under PyTorch's names.
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("netG.safetensors");
            to_pytorch_names(NetworkKind::Generator, weights).unwrap().write(&path).unwrap();
            assert_eq!(
                import::read(&path, &expected(&model)).unwrap().generator.as_ref(),
                Some(weights),
                "{file}"
            );
        }
        if let Some(weights) = &imported.discriminator {
            let mut discriminator = Discriminator::new(&model, weights, &Device::Cpu).unwrap();
            let blocks = std::sync::Mutex::new(std::collections::BTreeSet::new());
            let note = |block: usize, _: usize, _: &[f32]| {
                blocks.lock().unwrap().insert(block);
            };
            let x = Maps::from_tensor(&tensor(&values, "x")).unwrap();
            let logits = discriminator.forward_with_hook(&x, &note).unwrap();
            let logits = Tensor::new(logits, &Device::Cpu).unwrap();
            let error = distance(&logits, &tensor(&values, "logit"));
            assert!(error < 1e-5, "{file}: D(x) differs by {error}");
            assert!(blocks.into_inner().unwrap().into_iter().eq(0..4), "{file}");
        }
    }
}

/// A call in a pickle is recorded and named, and gives no tensors. A whole module is read as data.
#[test]
fn pickles_with_calls_give_no_weights() {
    let model = narrow("pytorch64", 4, &[16, 8, 4, 2, 3], &[1, 2, 4, 8]);
    for (file, reason) in [
        ("hostile_call.pth", "posix.system"),
        ("hostile_call_legacy.pth", "posix.system"),
        ("hostile_whole_module.pth", "found (1, 1, 4, 4)"),
    ] {
        let error =
            import::read(&golden("pytorch_files").join(file), &expected(&model)).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(file), "{file}: {error}");
    }
}

#[test]
fn the_authors_networks_agree_with_numpy() {
    let model = narrow("svhn32", 10, &[8, 6, 4, 3], &[4, 6, 8]);
    let imported = import::read(&golden("authors"), &expected(&model)).unwrap();
    let values = read_safetensors(&golden("authors/expected.safetensors")).unwrap();
    let (g, d) = (imported.generator.unwrap(), imported.discriminator.unwrap());

    // The authors normalize by minibatch statistics, so the layers are compared in training mode.
    let mut generator = Generator::new(&model, &g, &Device::Cpu).unwrap();
    let z = latents(&tensor(&values, "z"));
    let maps = generator.train(&z, Keep::Activations).unwrap().activations;
    for (name, map) in ["g.project", "g.blocks.0", "g.blocks.1", "fake"].iter().zip(&maps) {
        let error = distance(&map.to_tensor().unwrap(), &tensor(&values, name));
        assert!(error < 1e-5, "{name} differs by {error}");
    }
    let mut discriminator = Discriminator::new(&model, &d, &Device::Cpu).unwrap();
    let x = Maps::from_tensor(&tensor(&values, "x")).unwrap();
    let pass = discriminator.network_mut().train(&x, Keep::Activations).unwrap();
    for (name, map) in ["d.blocks.0", "d.blocks.1", "d.blocks.2"].iter().zip(&pass.activations) {
        let error = distance(&map.to_tensor().unwrap(), &tensor(&values, name));
        assert!(error < 1e-5, "{name} differs by {error}");
    }
    let error =
        distance(&Tensor::new(pass.output.values(), &Device::Cpu).unwrap(), &tensor(&values, "logit"));
    assert!(error < 1e-5, "the logit differs by {error}");

    // The files have no batch norm statistics, so evaluation fails until they are recalibrated. Recalibrated on the
    // same batch, it gives the same images.
    assert!(generator.sample(&z).unwrap_err().to_string().contains("recalibrate"));
    generator.network_mut().recalibrate([Ok::<_, dcgan_ops::OpsError>(z.clone().into_maps())]).unwrap();
    let error = distance(&generator.sample(&z).unwrap().to_tensor().unwrap(), &tensor(&values, "fake"));
    assert!(error < 1e-5, "G(z) with recalibrated statistics differs by {error}");
}

#[test]
fn a_mismatch_lists_every_tensor() {
    let model = narrow("pytorch64", 4, &[16, 8, 4, 2, 3], &[1, 2, 4, 8]);
    let wide = narrow("pytorch64", 4, &[16, 8, 5, 2, 3], &[1, 2, 4, 8]);
    let file = golden("pytorch_files/netG.pth");
    let error = import::read(&file, &expected(&wide)).unwrap_err().to_string();
    for part in [
        "netG.pth",
        "blocks.1.conv.weight",
        "blocks.1.norm.weight",
        "blocks.1.norm.running_var",
        "blocks.2.conv.weight",
    ] {
        assert!(error.contains(part), "no {part} in {error}");
    }
    let weights = import::read(&file, &expected(&model)).unwrap().generator.unwrap();
    let error = Generator::new(&wide, &weights, &Device::Cpu).unwrap_err().to_string();
    for part in ["blocks.1.conv.weight", "blocks.1.norm.weight", "(8, 5, 4, 4)", "(8, 4, 4, 4)"] {
        assert!(error.contains(part), "no {part} in {error}");
    }
}
