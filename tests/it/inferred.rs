//! Networks whose configuration is inferred from the tensors of a file: import, network, forward pass.
//!
//! The files and the outputs come from PyTorch in eval mode (`golden/imports`, see `make.py` there).

#![allow(clippy::unwrap_used, reason = "a test stops at the first error")]

use candle_core::Device;
use dcgan_model::import::{ImportOptions, NetworkKind, StateDict, to_pytorch_names};
use dcgan_model::weights::{Precision, Weights, read_safetensors};
use dcgan_model::{Discriminator, Generator, Latents, Model, ModelFiles, Opened, open, open_files};
use dcgan_ops::{Activation, MapShape, Maps};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// `pattern` of `networks.py` for the first image or z.
fn pattern(c: usize, i: usize, j: usize) -> f32 {
    let value = u8::try_from((7 * c + 3 * i + 5 * j) % 11).unwrap();
    f32::from(value) / 5.0 - 1.0
}

/// max|a - b| / max|b|
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    difference / b.iter().fold(1e-20, |most: f32, b| most.max(b.abs()))
}

/// The values of G(z) that the golden file holds, in its order.
fn sampled(model: &Model, weights: &Weights) -> Vec<f32> {
    let z = (0..model.config().latent.size).map(|c| pattern(c, 0, 0)).collect();
    let latents = Latents::new(z, model.config().latent.size).unwrap();
    let mut generator = Generator::new(model, weights, &Device::Cpu).unwrap();
    let fake = generator.sample(&latents).unwrap();
    let (height, width, channels) = model.config().image_shape();
    let (rows, columns) = (height / 8, width / 8);
    let at = |c: usize, i: usize, j: usize| fake.values()[(i * width + j) * channels + c];
    let mut values = Vec::new();
    for c in 0..channels {
        for i in (0..height).step_by(rows) {
            values.extend((0..width).step_by(columns).map(|j| at(c, i, j)));
        }
    }
    values
}

fn logit(model: &Model, weights: &Weights) -> Vec<f32> {
    let (height, width, channels) = model.config().image_shape();
    let mut x = Vec::new();
    for i in 0..height {
        for j in 0..width {
            x.extend((0..channels).map(|c| pattern(c, i, j)));
        }
    }
    let mut discriminator = Discriminator::new(model, weights, &Device::Cpu).unwrap();
    discriminator.score(&Maps::new(x, 1, MapShape::new(channels, height, width)).unwrap()).unwrap()
}

/// The outputs of both networks are those of PyTorch, as far as the golden file has them.
fn check_outputs(name: &str, files: &ModelFiles, outputs: &Weights) {
    let ModelFiles { model, generator, discriminator } = files;
    let (fake, score) = (outputs.get(&format!("{name}.fake")), outputs.get(&format!("{name}.logit")));
    let found = (generator.is_some(), discriminator.is_some());
    assert_eq!(found, (fake.is_some(), score.is_some()), "{name}: networks");
    if let (Some(weights), Some(fake)) = (generator, fake) {
        let error = distance(&sampled(model, weights), &fake.data);
        assert!(error < 1e-5, "{name}: G(z) differs by {error}");
    }
    if let (Some(weights), Some(score)) = (discriminator, score) {
        let error = distance(&logit(model, weights), &score.data);
        assert!(error < 1e-5, "{name}: D(x) differs by {error}");
    }
}

/// A file of `golden/imports`, the height, width and channels of its images, the size of z, and part of a note.
type Row<'a> = (&'a str, (usize, usize, usize), usize, &'a str);

#[test]
fn inferred_networks_give_the_outputs_of_pytorch() {
    let outputs = read_safetensors(&golden("imports/outputs.safetensors")).unwrap();
    let rgb = (32, 32, 3);
    let rows: [Row; 29] = [
        ("bias_g.pth", rgb, 5, "4 with a bias"),
        ("bias_d.pth", rgb, 100, "4 with a bias"),
        ("bias_of_the_last.pth", (32, 32, 1), 5, "1 with a bias"),
        ("few_norms.pth", rgb, 5, "1 with batch norm"),
        ("norm_of_the_first.pth", rgb, 100, "3 with batch norm"),
        ("spectral_old.pth", rgb, 4, "netD/main: spectral norm of 4 layers is folded"),
        ("spectral_new.pth", rgb, 4, "netG/main: spectral norm of 4 layers is folded"),
        ("spectral_without_norm.pth", rgb, 100, "0 with batch norm"),
        ("weight_norm_old.pth", rgb, 4, "weight norm of 4 layers is folded"),
        ("weight_norm_new.pth", rgb, 4, "weight norm of 4 layers is folded"),
        ("weight_norm_of_all.pth", rgb, 100, "weight norm of 4 layers is folded"),
        ("pruned.pth", rgb, 4, "pruning masks of 4 layers"),
        ("size128.pth", (128, 128, 3), 7, "images of 128x128"),
        ("size28.pth", (28, 28, 1), 3, "images of 28x28 with 1 channel(s)"),
        ("wide.pth", (16, 24, 3), 3, "images of 16x24"),
        ("prefixes.pth", rgb, 5, "from _orig_mod.netG.module.main"),
        ("named.safetensors", rgb, 5, "from the file"),
        ("parts.safetensors", rgb, 5, "4 layers with 4, 3, 2 channels"),
        ("numpy_arrays.pth", rgb, 5, "from params/main"),
        ("average.pth", rgb, 5, "skipped G/main: G_ema/main is taken, the average of its weights"),
        ("objects.pth", rgb, 5, "opt: argparse.Namespace, settings: __main__.Settings"),
        ("whole_modules.pth", rgb, 5, "discriminator: 12 tensors from netD/module.main"),
        ("protocol3.pth", rgb, 5, "skipped opt: argparse.Namespace"),
        ("protocol5.pth", rgb, 5, "skipped opt: argparse.Namespace"),
        ("script_g.pt", rgb, 5, "a TorchScript archive: its tensors are read, its code is not executed"),
        ("script_d.pt", rgb, 100, "a TorchScript archive"),
        ("size28_kernel3.pth 28", (28, 28, 1), 3, "kernel 3 with stride 2 padding 1, kernel 4"),
        ("kernel5.pth 32", rgb, 3, "kernel 5 with stride 2 padding 2 output padding 1"),
        ("size128.pth 128", (128, 128, 3), 7, "assumed, since tensors do not say it"),
    ];
    for (file, shape, z, note) in rows {
        let (file, size) = file.split_once(' ').unwrap_or((file, ""));
        let size = size.parse().ok().map(|side| (side, side));
        let path = golden("imports").join(file);
        let options = ImportOptions { size, ..ImportOptions::default() };
        let Opened { files, notes, .. } = open_files(&[path], &options).unwrap();
        let config = files.model.config();
        assert_eq!((config.image_shape(), config.latent.size), (shape, z), "{file}");
        assert!(notes.iter().any(|found| found.contains(note)), "{file}: no {note:?} in {notes:#?}");
        let (name, _) = file.split_once('.').unwrap();
        check_outputs(name, &files, &outputs);
        round_trip(name, &files);
    }
}

/// Modules say what tensors do not: strides, paddings, eps and activations.
#[test]
fn networks_saved_as_modules_keep_their_strides() {
    let outputs = read_safetensors(&golden("modules/outputs.safetensors")).unwrap();
    let open = |name: &str| {
        let path = golden("modules").join(format!("{name}.pth"));
        open_files(&[path], &ImportOptions::default()).map_err(|error| error.to_string())
    };
    for (name, eps, slope, output) in [
        ("steps", (0.01, 0.1), 0.05, Activation::Tanh),
        ("legacy", (0.01, 0.1), 0.05, Activation::Tanh),
        ("same", (0.01, 1e-5), 0.3, Activation::Sigmoid),
    ] {
        let Opened { files, notes, .. } = open(name).unwrap();
        let config = files.model.config();
        assert_eq!(config.image_shape(), (24, 24, 3), "{name}");
        assert_eq!((config.generator.norm.eps, config.discriminator.norm.eps), eps, "{name}");
        assert_eq!((config.discriminator.negative_slope, config.generator.output), (slope, output), "{name}");
        assert!(notes.iter().any(|note| note.contains("are those of the modules")), "{name}: {notes:#?}");
        check_outputs(name, &files, &outputs);
        round_trip(name, &files);
    }
    // A configuration that is given decides, and a note says so.
    let mut config = open("steps").unwrap().files.model.config().clone();
    (config.generator.blocks[0].padding, config.generator.blocks[0].output_padding) = (2, 2);
    config.discriminator.negative_slope = 0.2;
    let model = Model::new(config).unwrap();
    let options = ImportOptions { model: Some(&model), ..ImportOptions::default() };
    let notes = open_files(&[golden("modules/steps.pth")], &options).unwrap().notes;
    for part in ["which is used: the stride or padding of 3;", "which is used: negative_slope;"] {
        assert!(notes.iter().any(|note| note.contains(part)), "no {part:?} in {notes:#?}");
    }
    for (name, part) in [
        ("state", "which fit several strides and paddings"),
        ("leaky", "module 2 of the generator has nn.LeakyReLU"),
        ("padded", "module 0 of the generator has padding 1"),
        ("pooled", "module 2 of the discriminator has nn.AvgPool2d"),
        ("dilated", "module 2 of the discriminator has dilation (2, 2)"),
        ("reflected", "module 2 of the discriminator has a padding_mode other than zeros"),
        ("slopes", "the discriminator has negative_slope 0.05 and 0.1"),
        ("order", "module 3 of the discriminator has nn.LeakyReLU before the batch norm 5"),
        ("strided", "module 2 of the discriminator has stride 1099511627776"),
    ] {
        let error = open(name).unwrap_err();
        assert!(error.contains(part), "{name}: no {part:?} in {error}");
    }
}

/// The order of the modules of a state dict is in their numbers.
#[test]
fn networks_with_the_activation_before_batch_norm_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let files = open_files(&[golden("imports/bias_d.pth")], &ImportOptions::default()).unwrap().files;
    let exported = to_pytorch_names(NetworkKind::Discriminator, &files.discriminator.unwrap()).unwrap();
    let moved = |name: String| name.replace("main.3.", "main.4.").replace("main.6.", "main.7.");
    let tensors = exported.tensors.into_iter().map(|(name, tensor)| (moved(name), tensor)).collect();
    let counters = exported.counters.into_iter().map(moved).collect();
    StateDict { tensors, counters, config: None }.write(&path).unwrap();
    let error = open_files(&[path], &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("batch norm main.4 is not next to its convolution main.2"), "{error}");
}

#[test]
fn a_size_that_is_not_that_of_a_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let file = folder.path().join("g.safetensors");
    let files = ModelFiles::embedded_digits().unwrap();
    std::fs::create_dir(&model).unwrap();
    files.write(&model, "", Precision::F32).unwrap();
    let weights = files.generator.as_ref().unwrap();
    let mut exported = to_pytorch_names(NetworkKind::Generator, weights).unwrap();
    exported.config = Some(files.model.config().clone());
    exported.write(&file).unwrap();
    for path in [model, file] {
        let options = |size| ImportOptions { size: Some(size), ..ImportOptions::default() };
        open_files(std::slice::from_ref(&path), &options((28, 28))).unwrap();
        let error = open_files(&[path], &options((64, 32))).unwrap_err().to_string();
        assert!(error.contains("images of 28x28, not of 64x32: omit the size"), "{error}");
    }
}

/// An export comes back as the same model, from its folder and from its files in any order.
fn round_trip(name: &str, files: &ModelFiles) {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    let networks =
        [(NetworkKind::Discriminator, &files.discriminator), (NetworkKind::Generator, &files.generator)];
    for (network, weights) in networks {
        let Some(weights) = weights else { continue };
        let mut exported = to_pytorch_names(network, weights).unwrap();
        exported.config = Some(files.model.config().clone());
        paths.push(folder.path().join(format!("{network}.safetensors")));
        exported.write(paths.last().unwrap()).unwrap();
    }
    for sources in [vec![folder.path().to_owned()], paths] {
        let again = open_files(&sources, &ImportOptions::default()).unwrap().files;
        assert_eq!(again.model, files.model, "{name}");
        assert_eq!(again.generator, files.generator, "{name}");
        assert_eq!(again.discriminator, files.discriminator, "{name}");
    }
}

#[test]
fn files_that_do_not_decide_are_refused_with_the_cure() {
    let rows: [(&[&str], Option<usize>, &[&str]); 9] = [
        (
            &["broken.pth"],
            None,
            &[
                "missing main.3.weight (blocks.0.conv.weight) (4, 3, 4, 4)\n",
                "missing main.7.running_mean (blocks.1.norm.running_mean) (2)\n",
                "main.9.weight (blocks.2.conv.weight): expected (2, 3, 4, 4), found (2, 3, 3, 4)",
            ],
        ),
        (&["nan.pth"], None, &["nan.pth", "2 in main.5.weight, 1 in main.6.bias", "--allow-non-finite"]),
        (&["quantized.pth"], None, &["main.0.weight", "quantized", "state_dict()"]),
        (&["frozen.pt"], None, &["a TorchScript archive without tensors", "state_dict()"]),
        (&["kernel5.pth"], None, &["kernels are 4x4, 5x5, 5x5, 5x5", "32x32", "--size", "--config"]),
        (&["size28_kernel3.pth"], None, &["3x3", "28x28", "--size"]),
        (&["bias_g.pth"], Some(64), &["64x64", "only to 32x32"]),
        (&["bias_g.pth", "few_norms.pth"], None, &["bias_g.pth and", "few_norms.pth both hold a generator"]),
        (&["bias_g.pth", "size28.pth"], None, &["both hold a generator"]),
    ];
    for (names, size, parts) in rows {
        let paths: Vec<PathBuf> = names.iter().map(|name| golden("imports").join(name)).collect();
        let size = size.map(|side| (side, side));
        let options = ImportOptions { size, ..ImportOptions::default() };
        let error = open_files(&paths, &options).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{names:?}: no {part:?} in {error}");
        }
    }
    let nan = ImportOptions { allow_non_finite: true, ..ImportOptions::default() };
    let opened = open_files(&[golden("imports/nan.pth")], &nan).unwrap();
    assert!(opened.notes.iter().any(|note| note.contains("contains NaN or infinity")), "{:?}", opened.notes);
}

/// Of numbered files, the newest that all series have are taken.
#[test]
fn a_folder_gives_its_newest_networks() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        std::fs::copy(golden("imports").join(from), folder.path().join(to)).unwrap();
    };
    copy("few_norms.pth", "netG_epoch_8.pth");
    copy("bias_g.pth", "netG_epoch_9.pth");
    copy("few_norms.pth", "netG_epoch_10.pth");
    copy("norm_of_the_first.pth", "netD_epoch_8.pth");
    copy("bias_d.pth", "netD_epoch_9.pth");
    std::fs::write(folder.path().join("log.txt"), "1 2 3").unwrap();
    std::fs::write(folder.path().join("other.pth"), "no weights").unwrap();
    std::fs::write(folder.path().join("losses.pkl"), b"\x80\x02](K\x01K\x02e.").unwrap(); // [1, 2]
    let Opened { files, notes, .. } = open(folder.path(), None).unwrap();
    let outputs = read_safetensors(&golden("imports/outputs.safetensors")).unwrap();
    check_outputs("bias_g", &ModelFiles { discriminator: None, ..files.clone() }, &outputs);
    check_outputs("bias_d", &ModelFiles { generator: None, ..files }, &outputs);
    for part in [
        "the newest are taken: netD_epoch_9.pth, netG_epoch_9.pth",
        "skipped other.pth",
        "skipped losses.pkl",
    ] {
        assert!(notes.iter().any(|note| note.contains(part)), "no {part:?} in {notes:#?}");
    }
    copy("few_norms.pth", "netG.pth");
    let error = open(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("netG.pth") && error.contains("both hold a generator"), "{error}");
}
