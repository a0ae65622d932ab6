//! Small models and datasets, and the binary.

use candle_core::{Device, Tensor};
use dcgan_model::random::{self, Purpose};
use dcgan_model::weights::{self, HostTensor, Weights};
use dcgan_model::{Discriminator, Generator, Latents, Model, ModelConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of a golden.
pub(crate) fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case)
}

/// The model of the guided golden and its tensors.
pub(crate) fn guided_case() -> (Model, Weights) {
    let text = std::fs::read_to_string(golden("guided/config.json")).unwrap();
    let model = Model::new(serde_json::from_str::<ModelConfig>(&text).unwrap()).unwrap();
    (model, weights::read_safetensors(&golden("guided/case.safetensors")).unwrap())
}

/// Random weights and statistics, such that every tensor has an effect.
pub(crate) fn random_weights(mut weights: Weights, specs: &[weights::TensorSpec], seed: u64) -> Weights {
    for (i, spec) in specs.iter().enumerate() {
        let n = spec.shape.iter().product();
        let mut rng = random::stream(seed, Purpose::SyntheticImages, i as u64);
        let data = if spec.name.ends_with("running_var") {
            random::normal(&mut rng, n, 0.0, 0.3).iter().map(|v| 0.2 + v.abs()).collect()
        } else if spec.name.ends_with("norm.weight") {
            random::normal(&mut rng, n, 1.0, 0.2)
        } else {
            random::normal(&mut rng, n, 0.0, 0.2)
        };
        weights.insert(spec.name.clone(), HostTensor { shape: spec.shape.clone(), data });
    }
    weights
}

/// G and D of the guided golden's shape with random weights.
pub(crate) fn networks(seed: u64) -> (Model, Generator, Discriminator) {
    let (model, _) = guided_case();
    let g = random_weights(Weights::new(), &model.generator_tensors(), seed);
    let d = random_weights(Weights::new(), &model.discriminator_tensors(), seed + 1);
    let generator = Generator::new(&model, &g, &Device::Cpu).unwrap();
    let discriminator = Discriminator::new(&model, &d, &Device::Cpu).unwrap();
    (model, generator, discriminator)
}

/// The first `n` samples of `seed`.
pub(crate) fn latents(model: &Model, seed: u64, n: usize) -> Latents {
    Latents::draw(seed, Purpose::SampleLatent, n, &model.config().latent).unwrap()
}

/// The images of latents, `(n, c, h, w)`.
pub(crate) fn samples(generator: &mut Generator, latents: &Latents) -> Tensor {
    generator.sample(latents).unwrap().to_tensor().unwrap()
}

/// Latents as the generator's layers read them, `(n, z, 1, 1)`.
pub(crate) fn latent_maps(latents: &Latents) -> Tensor {
    latents.input().maps.to_tensor().unwrap()
}

/// All values, in the order of the shape.
pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Bytes of a linear congruential generator, as tests/golden/guided/make.py draws them.
pub(crate) fn noise(n: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// Every file below `folder` with its bytes.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

/// The output of the binary: exit code, stdout, stderr.
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary in `folder`, which has no default model.
pub(crate) fn run(folder: &Path, args: &[&str]) -> CommandOutput {
    let output =
        Command::new(env!("CARGO_BIN_EXE_dcgan-explore")).current_dir(folder).args(args).output().unwrap();
    CommandOutput {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the binary, which must succeed; returns stdout.
pub(crate) fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert_eq!(output.code, Some(0), "{args:?}: {}", output.stderr);
    output.stdout
}

/// The pixels of a PNG, and its width and height.
pub(crate) fn png(path: &Path) -> (Vec<u8>, u32, u32) {
    let image = image::open(path).unwrap().into_luma8();
    let (width, height) = image.dimensions();
    (image.into_raw(), width, height)
}

/// A folder of twelve grey images of which the second, b.png, is truncated, and attributes of all. Returns the folder's
/// name.
pub(crate) fn damaged(folder: &Path) -> &'static str {
    let name = "damaged";
    std::fs::create_dir(folder.join(name)).unwrap();
    let level = |x: u32, y: u32| image::Luma([(x * y * 7 % 256) as u8]);
    let mut attributes = "12\nZero\n".to_owned();
    for (i, letter) in ('a'..='l').enumerate() {
        let path = folder.join(name).join(format!("{letter}.png"));
        image::GrayImage::from_fn(28, 28, level).save(&path).unwrap();
        if letter == 'b' {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
        attributes += &format!("{letter}.png {}\n", if i % 2 == 0 { 1 } else { -1 });
    }
    std::fs::write(folder.join("damaged.txt"), attributes).unwrap();
    name
}

/// The first `n` embedded digits as a folder of PNGs, `digits/CLASS/NNNN.png`, and their attributes in CelebA's format:
/// Even, Zero and Never. Returns the path of the attributes.
pub(crate) fn digits(folder: &Path, n: usize) -> PathBuf {
    let data = dcgan_data::Dataset::embedded_digits((28, 28, 1).into()).unwrap();
    let mut text = format!("{n}\nEven Zero Never\n");
    for i in 0..n {
        let mut pixels = vec![0; 28 * 28];
        data.read(i, &mut pixels).unwrap();
        let label = data.labels().unwrap()[i];
        let name = format!("{label}/{i:04}.png");
        let path = folder.join("digits").join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_raw(28, 28, pixels).unwrap().save(&path).unwrap();
        let sign = |yes: bool| if yes { " 1" } else { "-1" };
        text.push_str(&format!("{name} {} {} -1\n", sign(label.is_multiple_of(2)), sign(label == 0)));
    }
    let path = folder.join("attributes.txt");
    std::fs::write(&path, text).unwrap();
    path
}
