//! Networks loaded into candle programs through `VarBuilder` against the CPU executor.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{ModuleT, VarBuilder};
use dcgan_model::random::Purpose;
use dcgan_model::weights::{Precision, Weights, to_safetensors};
use dcgan_model::{Discriminator, Generator, Latents, Model, ModelFiles, Preset};
use dcgan_ops::{Keep, Maps, WithRespectTo};

/// max|a - b| / max|b|
fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let largest =
        |t: Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    largest((a - b).unwrap()) / largest(b.clone())
}

fn var_builder(weights: &Weights) -> VarBuilder<'static> {
    let bytes = to_safetensors(weights, Precision::F32).unwrap();
    VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).unwrap()
}

fn check(model: &Model, g: &Weights, d: &Weights) {
    let (cpu, limit) = (&Device::Cpu, 3e-5); // as for the goldens of whole networks
    let mut generator = Generator::new(model, g, cpu).unwrap();
    generator.ensure_statistics().unwrap();
    let in_candle = model.candle_generator(&var_builder(&generator.weights().unwrap())).unwrap();
    let latents = Latents::draw(1, Purpose::SampleLatent, 3, &model.config().latent).unwrap();
    let z = Tensor::from_slice(latents.z(), (3, latents.size()), cpu).unwrap();
    let fake = generator.sample(&latents).unwrap();
    let images = fake.to_tensor().unwrap();
    assert!(distance(&in_candle.forward_t(&z, false).unwrap(), &images) < limit, "{}", model.config().name);
    let trained = generator.train(&latents, Keep::Nothing).unwrap().output.to_tensor().unwrap();
    assert!(distance(&in_candle.forward_t(&z, true).unwrap(), &trained) < limit, "{}", model.config().name);

    let mut discriminator = Discriminator::new(model, d, cpu).unwrap();
    let network = discriminator.network_mut();
    network.recalibrate([Ok::<_, dcgan_ops::OpsError>((fake.clone(), None))]).unwrap();
    let logits = network.eval(&fake, Keep::Tape).unwrap().output.to_tensor().unwrap();
    let ones = Maps::rows(vec![1.0; 3], 1).unwrap();
    let expected = network.backward(&ones, WithRespectTo::Input).unwrap().unwrap().to_tensor().unwrap();
    let in_candle = model.candle_discriminator(&var_builder(&discriminator.weights().unwrap())).unwrap();
    let x = Var::from_tensor(&images.contiguous().unwrap()).unwrap();
    let found = in_candle.forward_t(&x, false).unwrap();
    assert!(distance(&found, &logits) < limit, "{}", model.config().name);
    let gradients = found.sum_all().unwrap().backward().unwrap();
    assert!(distance(gradients.get(&x).unwrap(), &expected) < limit, "{}", model.config().name);
}

#[test]
fn networks_in_candle_equal_the_cpu_executor() {
    let ModelFiles { model, generator, discriminator } = ModelFiles::embedded_digits().unwrap();
    check(&model, &generator.unwrap(), &discriminator.unwrap());
    for name in ["pytorch32", "svhn32"] {
        let model = Preset::named(name).unwrap().model().unwrap();
        let (g, d) = (model.initial_generator(1, 0.05, 0.1), model.initial_discriminator(1, 0.05, 0.1));
        check(&model, &g, &d);
    }
    // Missing tensors are named.
    let model = Preset::named("digits").unwrap().model().unwrap();
    let mut weights = model.initial_generator(1, 0.02, 0.02);
    weights.remove("blocks.0.norm.bias");
    let error = model.candle_generator(&var_builder(&weights)).unwrap_err().to_string();
    assert!(error.contains("blocks.0.norm.bias"), "{error}");
}
