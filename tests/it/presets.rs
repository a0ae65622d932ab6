//! The presets, images of other sizes, and configurations that do not fit together.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use candle_core::Device;
use dcgan_model::random::Purpose;
use dcgan_model::weights::TensorSpec;
use dcgan_model::{Discriminator, Generator, Latents, Model, ModelConfig, Preset};
use dcgan_ops::{Activation, Keep, MapShape, Maps, WithRespectTo};
use dcgan_train::config::{Plan, RunOptions};

/// The networks of `preset` for images of another size.
fn resized(preset: &str, height: usize, width: usize, channels: usize) -> ModelConfig {
    let mut config = Preset::named(preset).unwrap().model;
    (config.height, config.width, config.channels) = (height, width, channels);
    config.generator.blocks.last_mut().unwrap().channels = channels;
    config
}

#[test]
fn presets_are_the_networks_they_name() {
    // Preset, parameters of G, of D, numbers in a feature vector: every map of D's blocks pooled to 4x4.
    // pytorch64 as PyTorch counts them, the features as section 5 of the paper and the authors' code do; the others by
    // hand: kernels without bias, batch norm weight and bias after all but G's last and D's first layer.
    let rows = [
        ("digits", 533_888, 36_544, 1_536),
        ("pytorch64", 3_576_704, 2_765_568, 15_360),
        ("pytorch32", 1_068_928, 663_296, 7_168),
        ("paper64", 18_885_760, 17_232_768, 30_720),
        ("svhn32", 1_446_976, 1_033_664, 7_168),
        ("imagenet32", 6_690_688, 4_586_112, 28_672),
        // Labels are further inputs of every layer; batch norm has no weight and bias.
        ("mnist-cond", 6_820_538, 6_688_202, 3_072),
    ];
    assert_eq!(Preset::names().collect::<Vec<_>>(), rows.map(|(name, ..)| name));
    let count = |specs: Vec<TensorSpec>| -> usize {
        let trained = specs.iter().filter(|spec| !spec.optional);
        trained.map(|spec| spec.shape.iter().product::<usize>()).sum()
    };
    for (name, generator, discriminator, features) in rows {
        let preset = Preset::named(name).unwrap();
        assert_eq!(preset.model.name, name);
        let model = preset.model().unwrap();
        assert_eq!(count(model.generator_tensors()), generator, "G of {name}");
        assert_eq!(count(model.discriminator_tensors()), discriminator, "D of {name}");
        let blocks = model.discriminator_layers().iter().filter(|layer| layer.name.starts_with("blocks."));
        let channels: usize = blocks.map(|layer| layer.output.channels).sum();
        assert_eq!(16 * channels, features, "features of {name}");
        let options = RunOptions { preset: Some(name.into()), ..RunOptions::default() };
        assert_eq!(Plan::resolve(&options).unwrap().model, preset.model);
    }
}

#[test]
fn networks_fit_images_of_any_size_that_the_strides_divide() {
    let rows = [
        ("digits", 28, 28, 1),
        ("digits", 4, 8, 1),
        ("pytorch64", 48, 80, 3),
        ("pytorch64", 128, 64, 3),
        ("pytorch64", 64, 64, 1),
        ("pytorch64", 64, 64, 4),
        ("pytorch32", 24, 40, 4),
        ("svhn32", 40, 24, 1),
        ("imagenet32", 8, 16, 3),
    ];
    let n = 3;
    for row @ (preset, height, width, channels) in rows {
        let model = Model::new(resized(preset, height, width, channels)).unwrap();
        let [g, d] = [model.initial_generator(1, 0.02, 0.02), model.initial_discriminator(1, 0.02, 0.02)];
        let mut generator = Generator::new(&model, &g, &Device::Cpu).unwrap();
        let mut discriminator = Discriminator::new(&model, &d, &Device::Cpu).unwrap();
        let latents = Latents::draw(1, Purpose::SampleLatent, n, &model.config().latent).unwrap();
        let fake = generator.train(&latents, Keep::Tape).unwrap().output;
        assert_eq!((fake.n(), fake.shape()), (n, MapShape::new(channels, height, width)), "{row:?}");
        let logits = discriminator.network_mut().train(&fake, Keep::Tape).unwrap().output;
        assert_eq!((logits.n(), logits.shape()), (n, MapShape::new(1, 1, 1)), "{row:?}");
        let grad_logits = Maps::rows(vec![1.0; n], 1).unwrap();
        let grad_fake =
            discriminator.network_mut().backward(&grad_logits, WithRespectTo::Input).unwrap().unwrap();
        assert_eq!(grad_fake.shape(), fake.shape(), "{row:?}");
        generator.network_mut().backward(&grad_fake, WithRespectTo::Parameters).unwrap();
        for (name, norm) in generator.network().parameters().gradient_norms() {
            assert!(norm.is_finite() && norm > 0.0, "{row:?}: the gradient of {name} has norm {norm}");
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let strides =
        "images are HxW, but the generator's strides multiply to 16: both sides must be multiples of it";
    let rows = [
        (65, 64, 3, strides),
        (64, 72, 3, strides),
        (60, 90, 3, strides),
        (0, 64, 3, "height is 0, expected 1 to 4096"),
        (64, 8192, 3, "width is 8192, expected 1 to 4096"),
        (64, 64, 2, "channels is 2, expected 1, 3 or 4"),
    ];
    for (height, width, channels, expected) in rows {
        let error = Model::new(resized("pytorch64", height, width, channels)).unwrap_err();
        let expected = expected.replace("HxW", &format!("{height} x {width}"));
        assert_eq!(error.faults, [expected]);
    }
}

#[test]
fn every_fault_of_a_configuration_is_listed() {
    let mut config = resized("pytorch64", 0, 64, 2);
    config.latent.size = 0;
    config.generator.norm.eps = 0.0;
    config.generator.output = Activation::Relu;
    config.generator.project_channels = 0;
    config.generator.blocks[1].kernel = 0;
    config.generator.blocks[2].output_padding = 2;
    config.generator.blocks[3].channels = 3;
    config.discriminator.norm.eps = f64::NAN;
    config.discriminator.negative_slope = 1.5;
    config.discriminator.blocks[0].stride = 0;
    config.discriminator.blocks[3].padding = 4;
    let error = Model::new(config).unwrap_err();
    let expected = [
        "height is 0, expected 1 to 4096",
        "channels is 2, expected 1, 3 or 4",
        "latent.size is 0, expected 1 to 65536",
        "generator.norm.eps is 0, expected at least 1.2e-38 and below 1",
        "discriminator.norm.eps is NaN, expected at least 1.2e-38 and below 1",
        "discriminator.negative_slope is 1.5, expected at least 0 and below 1",
        "generator.output is Relu, expected tanh or sigmoid",
        "generator.project_channels is 0, expected 1 to 65536",
        "generator.blocks[1].kernel is 0, expected 1 to 31",
        "generator.blocks[1].padding is 1, expected 0 to 0",
        "generator.blocks[2].output_padding is 2, expected 0 to 1",
        "discriminator.blocks[0].stride is 0, expected 1 to 8",
        "discriminator.blocks[3].padding is 4, expected 0 to 3",
        "the last generator block gives 3 channels, images have 2",
    ];
    assert_eq!(error.faults, expected);
    let message = error.to_string();
    assert!(message.starts_with("the network configuration has 14 fault(s): height is 0"), "{message}");
    assert!(expected.iter().all(|fault| message.contains(fault)), "{message}");

    // Faults of geometry come after those of numbers, of both networks at once.
    let mut config = resized("pytorch64", 64, 64, 3);
    config.generator.blocks[3].padding = 0;
    config.discriminator.blocks[3].kernel = 31;
    let expected = [
        "the generator gives 66 x 66 images, expected 64 x 64: check kernel, padding and output_padding of its blocks",
        "discriminator.blocks[3]: a 31 x 31 kernel does not fit the 8 x 8 map before it",
    ];
    assert_eq!(Model::new(config).unwrap_err().faults, expected);

    // Pooling and upsampling, each in its own network.
    let mut config = resized("pytorch64", 64, 64, 3);
    config.generator.blocks[0].pool = 2;
    config.discriminator.blocks[0].upsample = 2;
    config.discriminator.activation = Some(Activation::Identity);
    let expected = [
        "discriminator.activation is Identity, expected relu, tanh or sigmoid",
        "generator.blocks[0].pool is 2, expected 0 to 0",
        "discriminator.blocks[0].upsample is 2, expected 0 to 0",
    ];
    assert_eq!(Model::new(config).unwrap_err().faults, expected);
    let mut config = resized("pytorch64", 64, 64, 3);
    config.discriminator.blocks[1].pool = 3;
    config.generator.blocks[0].upsample = 2; // a smaller projection makes up for it
    let expected = ["discriminator.blocks[1].pool is 3, which does not divide its 16 x 16 map"];
    assert_eq!(Model::new(config).unwrap_err().faults, expected);
}
