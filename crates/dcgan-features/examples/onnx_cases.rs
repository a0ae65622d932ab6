//! ONNX files of every preset and of imported networks, with what this program computes, for a check by another
//! runtime.
//!
//! Run: `cargo run -p dcgan-features --example onnx_cases -- OUT [CONFIG.json WEIGHTS.pth ...]`
//!
//! For each NAME, OUT gets NAME.G.onnx, NAME.bytes.onnx, NAME.D.onnx, the model folder NAME.model, and
//! NAME.safetensors: `z`, `label` (f32, empty without classes), `image` `(n, h, w, c)`, `bytes` of it, `logit` and
//! `features` (empty with classes). With classes, NAME.vectors.onnx takes label vectors, and the safetensors file has
//! `labels` between classes and the `image_of_labels`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Device;
use dcgan_features::extract::Extractor;
use dcgan_model::import::{ImportOptions, NetworkKind};
use dcgan_model::onnx::{self, GeneratorOptions, OnnxImages, OnnxLabels};
use dcgan_model::pixels::{PixelRange, to_bytes};
use dcgan_model::random::{Purpose, normal, stream};
use dcgan_model::weights::{HostTensor, Precision, TensorSpec, Weights, write_safetensors};
use dcgan_model::{
    Classes, Discriminator, Generator, Latents, Model, ModelConfig, ModelFiles, Preset, open_files,
};
use dcgan_ops::{Input, Maps};

/// Images of a case.
const N: usize = 3;

/// Weights that keep the size of feature maps, and statistics that differ from channel to channel.
fn random_weights(tensors: Vec<TensorSpec>, network: NetworkKind) -> Weights {
    let tensor = |(i, TensorSpec { name, shape, .. }): (usize, TensorSpec)| {
        let count: usize = shape.iter().product();
        let index = i as u64 + if network == NetworkKind::Generator { 0 } else { 1000 };
        let mut rng = stream(1, Purpose::SampleLatent, index);
        let fan_in: usize = shape.iter().skip(1).product();
        let data = match name.rsplit('.').next().unwrap_or_default() {
            "running_var" => normal(&mut rng, count, 1.0, 0.1).iter().map(|x| x.abs()).collect(),
            "weight" if name.contains("norm") => normal(&mut rng, count, 1.0, 0.1),
            // Far from saturation, where a small difference of sums is a large one of pixels.
            "weight" => normal(&mut rng, count, 0.0, (0.5 / fan_in.max(1) as f32).sqrt()),
            _ => normal(&mut rng, count, 0.0, 0.1),
        };
        (name, HostTensor { shape, data })
    };
    tensors.into_iter().enumerate().map(tensor).collect()
}

/// Label vectors from the first class to the last.
fn between_classes(classes: usize) -> Vec<f32> {
    let mut rows = vec![0.0; N * classes];
    for (i, row) in rows.chunks_exact_mut(classes).enumerate() {
        let t = (i + 1) as f32 / (N + 1) as f32;
        row[0] += 1.0 - t;
        row[classes - 1] += t;
    }
    rows
}

fn write(out: &Path, name: &str, model: &Model, of_g: &Weights, of_d: &Weights) -> Result<()> {
    let config = model.config();
    let mut generator = Generator::new(model, of_g, &Device::Cpu)?;
    let latents = Latents::of_range((0, Purpose::SampleLatent), 0..N, config, Classes::InTurn)?;
    let images = generator.sample(&latents)?;
    let labels: Vec<u32> = (0..N).map(|i| Classes::InTurn.of(i, config.classes)).collect();
    let rows = config.is_conditional().then(|| Maps::one_hot(&labels, config.classes)).transpose()?;
    let mut discriminator = Discriminator::new(model, of_d, &Device::Cpu)?;
    let logits = discriminator.score(Input { maps: &images, labels: rows.as_ref() })?;
    let bytes = to_bytes(images.values(), config);
    // Features are those of images that are bytes.
    let features = match config.is_conditional() {
        true => Vec::new(),
        false => Extractor::new(model, of_d, &Device::Cpu)?.features(&bytes)?,
    };
    let range = PixelRange::of(config.generator.output);
    let seen: Vec<f32> = bytes.iter().map(|byte| range.to_f32(*byte)).collect();
    let (height, width, channels) = config.image_shape();
    let labels: Vec<f32> =
        if config.is_conditional() { labels.iter().map(|l| *l as f32).collect() } else { Vec::new() };
    let pixels = vec![N, height, width, channels];
    let mut expected = Weights::new();
    let mut insert = |name: &str, shape: Vec<usize>, data: Vec<f32>| {
        expected.insert(name.to_owned(), HostTensor { shape, data });
    };
    insert("z", vec![N, config.latent.size], latents.z().to_vec());
    insert("label", vec![labels.len()], labels);
    insert("image", pixels.clone(), images.values().to_vec());
    insert("bytes", pixels.clone(), bytes.iter().map(|byte| f32::from(*byte)).collect());
    insert("seen", pixels.clone(), seen);
    insert("logit", vec![N], logits);
    insert("features", vec![features.len()], features);
    let file = |network: &str| out.join(format!("{name}.{network}.onnx"));
    let license = Some("CC0-1.0");
    let options = GeneratorOptions { license, ..GeneratorOptions::default() };
    std::fs::write(file("G"), onnx::generator(model, of_g, options)?)?;
    let bytes = GeneratorOptions { images: OnnxImages::Bytes, ..options };
    std::fs::write(file("bytes"), onnx::generator(model, of_g, bytes)?)?;
    if config.is_conditional() {
        let rows = between_classes(config.classes);
        let labels = Maps::rows(rows.clone(), config.classes)?;
        let latents = Latents::new(latents.z().to_vec(), config.latent.size)?.with_label_rows(labels)?;
        insert("labels", vec![N, config.classes], rows);
        insert("image_of_labels", pixels, generator.sample(&latents)?.values().to_vec());
        let vectors = GeneratorOptions { labels: OnnxLabels::Vectors, ..options };
        std::fs::write(file("vectors"), onnx::generator(model, of_g, vectors)?)?;
    }
    write_safetensors(&out.join(format!("{name}.safetensors")), &expected, Precision::F32)?;
    let has_features = !config.is_conditional();
    std::fs::write(file("D"), onnx::discriminator(model, of_d, has_features, license)?)?;
    let folder = out.join(format!("{name}.model"));
    std::fs::create_dir_all(&folder)?;
    let files = ModelFiles { model: model.clone(), generator: Some(of_g.clone()), discriminator: None };
    files.write(&folder, &format!("# {name}\n"), Precision::F32)?;
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (out, imported) = arguments.split_first().context("OUT is missing")?;
    std::fs::create_dir_all(out)?;
    for name in Preset::names() {
        let model = Preset::named(name)?.model()?;
        let of_g = random_weights(model.generator_tensors(), NetworkKind::Generator);
        let of_d = random_weights(model.discriminator_tensors(), NetworkKind::Discriminator);
        write(out, name, &model, &of_g, &of_d)?;
    }
    for files in imported.chunks_exact(2) {
        let config: ModelConfig = serde_json::from_slice(&std::fs::read(&files[0])?)?;
        let model = Model::new(config)?;
        let options = ImportOptions { model: Some(&model), ..ImportOptions::default() };
        let opened = open_files(&files[1..], &options)?.files;
        let of_g = opened.generator.context("no generator")?;
        let of_d = opened.discriminator.context("no discriminator")?;
        write(out, &model.config().name, &model, &of_g, &of_d)?;
    }
    Ok(())
}
