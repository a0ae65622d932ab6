//! A checked configuration, compiled to the layer lists that executors run.

use crate::config::{discriminator_layers, generator_layers};
use crate::random::{self, Purpose};
use crate::weights::{HostTensor, TensorSpec, Weights};
use crate::{BlockConfig, CONFIG_VERSION, ModelConfig, NormConfig, OnLayers};
use dcgan_ops::{Activation, Initial, Layer, LayerTensor, Role};

/// A pair of networks whose sizes are known to fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    config: ModelConfig,
    generator: Vec<Layer>,
    discriminator: Vec<Layer>,
}

/// Everything that is wrong with a configuration, at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network configuration has {} fault(s): {}", faults.len(), faults.join("; "))]
pub struct ConfigError {
    /// One sentence per fault, each naming the field.
    pub faults: Vec<String>,
}

/// A side above this, or more values than [`MAX_VALUES`] in one tensor, is a mistake or an attack, not a network.
pub(crate) const MAX_SIDE: usize = 4096;
const MAX_VALUES: usize = 1 << 30;

impl Model {
    /// Checks `config` and compiles both layer lists.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault found.
    pub fn new(mut config: ModelConfig) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        check_numbers(&config, &mut faults);
        check_lists(&config, &mut faults);
        if !faults.is_empty() {
            return Err(ConfigError { faults });
        }
        let generator = generator_layers(&config, &mut faults);
        let discriminator = discriminator_layers(&config, &mut faults);
        check_sizes(generator.iter().chain(&discriminator), &mut faults);
        if faults.is_empty() {
            config.version = CONFIG_VERSION;
            Ok(Self { config, generator, discriminator })
        } else {
            Err(ConfigError { faults })
        }
    }

    /// The configuration, in the version that this program writes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Layers of G: `dense.i`, `project`, then `blocks.i`.
    pub fn generator_layers(&self) -> &[Layer] {
        &self.generator
    }

    /// Layers of D: `blocks.i`, `dense.i`, then `head`.
    pub fn discriminator_layers(&self) -> &[Layer] {
        &self.discriminator
    }

    /// Layers of D with a head of `classes` logits instead of one, and without label inputs: the classifier "of the
    /// same shape" of section 5.2.
    ///
    /// # Errors
    /// Fewer than two classes, or more than a tensor holds.
    pub fn classifier_layers(&self, classes: usize) -> Result<Vec<Layer>, ConfigError> {
        if classes < 2 {
            let fault = format!("a classifier of {classes} class(es), expected at least 2");
            return Err(ConfigError { faults: vec![fault] });
        }
        let unconditional = |layer: &Layer| Layer { label_channels: 0, label_inputs: 0, ..layer.clone() };
        let mut layers: Vec<Layer> = self.discriminator.iter().map(unconditional).collect();
        if let Some(head) = layers.last_mut() {
            head.output.channels = classes;
        }
        let mut faults = Vec::new();
        check_sizes(&layers, &mut faults);
        if faults.is_empty() { Ok(layers) } else { Err(ConfigError { faults }) }
    }

    /// Names and shapes of G's tensors; batch norm statistics are optional.
    pub fn generator_tensors(&self) -> Vec<TensorSpec> {
        tensors(&self.generator)
    }

    /// Names and shapes of D's tensors; batch norm statistics are optional.
    pub fn discriminator_tensors(&self) -> Vec<TensorSpec> {
        tensors(&self.discriminator)
    }

    /// Names and shapes of the classifier's tensors; batch norm statistics are optional.
    ///
    /// # Errors
    /// Those of [`Model::classifier_layers`].
    pub fn classifier_tensors(&self, classes: usize) -> Result<Vec<TensorSpec>, ConfigError> {
        Ok(tensors(&self.classifier_layers(classes)?))
    }

    /// Initial weights of G: kernels N(0, `weight_std`^2), batch norm weights N(1, `norm_weight_std`^2), biases 0
    /// (paper, section 4; authors' code for batch norm weights).
    pub fn initial_generator(&self, seed: u64, weight_std: f32, norm_weight_std: f32) -> Weights {
        initial(&self.generator, seed, Purpose::GeneratorWeights, weight_std, norm_weight_std)
    }

    /// Initial weights of D, drawn as G's.
    pub fn initial_discriminator(&self, seed: u64, weight_std: f32, norm_weight_std: f32) -> Weights {
        initial(&self.discriminator, seed, Purpose::DiscriminatorWeights, weight_std, norm_weight_std)
    }

    /// Initial weights of the classifier, drawn as G's.
    ///
    /// # Errors
    /// Those of [`Model::classifier_layers`].
    pub fn initial_classifier(
        &self,
        classes: usize,
        seed: u64,
        weight_std: f32,
        norm_weight_std: f32,
    ) -> Result<Weights, ConfigError> {
        let layers = self.classifier_layers(classes)?;
        Ok(initial(&layers, seed, Purpose::ClassifierWeights, weight_std, norm_weight_std))
    }
}

fn check_sizes<'a>(layers: impl IntoIterator<Item = &'a Layer>, faults: &mut Vec<String>) {
    for layer in layers {
        let values =
            layer.tensor_shape(Role::Weight).unwrap_or_default().into_iter().try_fold(1, usize::checked_mul);
        if values.is_none_or(|values| values > MAX_VALUES) {
            faults.push(format!("the weight of {} would hold more than {MAX_VALUES} values", layer.name));
        }
    }
}

fn check_numbers(config: &ModelConfig, faults: &mut Vec<String>) {
    let mut expect = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    let version = config.version;
    expect(
        (1..=CONFIG_VERSION).contains(&version),
        format!("version is {version}, this program reads versions 1 to {CONFIG_VERSION}"),
    );
    let classes = config.classes;
    expect(
        classes == 0 || (2..=1 << 16).contains(&classes),
        format!("classes is {classes}, expected 0 or 2 to 65536"),
    );
    let names = config.class_names.len();
    expect(
        names == 0 || names == classes,
        format!("class_names has {names} entries, expected {classes}: one per class"),
    );
    // It becomes part of file names.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    expect(
        (1..=64).contains(&config.name.len())
            && config.name.chars().all(plain)
            && !config.name.starts_with('.'),
        format!("name is {:?}, expected 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front", config.name),
    );
    for (name, side) in [("height", config.height), ("width", config.width)] {
        expect((1..=MAX_SIDE).contains(&side), format!("{name} is {side}, expected 1 to {MAX_SIDE}"));
    }
    expect(
        [1, 3, 4].contains(&config.channels),
        format!("channels is {}, expected 1, 3 or 4", config.channels),
    );
    let z = config.latent.size;
    expect((1..=1 << 16).contains(&z), format!("latent.size is {z}, expected 1 to 65536"));
    for (network, norm) in
        [("generator", &config.generator.norm), ("discriminator", &config.discriminator.norm)]
    {
        let NormConfig { eps, .. } = norm;
        expect(
            (f64::from(f32::MIN_POSITIVE)..1.0).contains(eps), // as f32 it must not become zero
            format!("{network}.norm.eps is {eps}, expected at least 1.2e-38 and below 1"),
        );
    }
    if let Some(found) = config.discriminator.activation {
        expect(
            matches!(found, Activation::Relu | Activation::Tanh | Activation::Sigmoid),
            format!("discriminator.activation is {found:?}, expected relu, tanh or sigmoid"),
        );
    }
    let negative_slope = config.discriminator.negative_slope;
    expect(
        (0.0..1.0).contains(&negative_slope),
        format!("discriminator.negative_slope is {negative_slope}, expected at least 0 and below 1"),
    );
    let output = config.generator.output;
    expect(
        matches!(output, Activation::Tanh | Activation::Sigmoid),
        format!("generator.output is {output:?}, expected tanh or sigmoid"),
    );
    let width = config.generator.project_channels;
    expect(
        (1..=1 << 16).contains(&width),
        format!("generator.project_channels is {width}, expected 1 to 65536"),
    );
    for (network, dense) in
        [("generator", &config.generator.dense), ("discriminator", &config.discriminator.dense)]
    {
        expect(
            dense.len() <= 16,
            format!("{network}.dense has {} entries, expected at most 16", dense.len()),
        );
        for (i, units) in dense.iter().enumerate() {
            expect(
                (1..=1 << 16).contains(units),
                format!("{network}.dense[{i}] is {units}, expected 1 to 65536"),
            );
        }
    }
    let networks = [("generator", &config.generator.blocks), ("discriminator", &config.discriminator.blocks)];
    for (network, blocks) in networks {
        expect(
            (1..=64).contains(&blocks.len()),
            format!("{network}.blocks has {} entries, expected 1 to 64", blocks.len()),
        );
        for (i, BlockConfig { channels, kernel, stride, padding, output_padding, pool, upsample }) in
            blocks.iter().enumerate()
        {
            let mut field = |name: &str, value: usize, low: usize, high: usize| {
                let fault = format!("{network}.blocks[{i}].{name} is {value}, expected {low} to {high}");
                expect((low..=high).contains(&value), fault);
            };
            field("channels", *channels, 1, 1 << 16);
            field("kernel", *kernel, 1, 31);
            field("stride", *stride, 1, 8);
            field("padding", *padding, 0, kernel.saturating_sub(1));
            let extra = if network == "generator" { stride.saturating_sub(1) } else { 0 };
            field("output_padding", *output_padding, 0, extra);
            let (most_pool, most_upsample) = if network == "generator" { (0, 8) } else { (8, 0) };
            field("pool", *pool, 0, most_pool);
            field("upsample", *upsample, 0, most_upsample);
        }
    }
    if let Some((rows, columns)) = config.generator.project_size {
        expect(
            (1..=MAX_SIDE).contains(&rows) && (1..=MAX_SIDE).contains(&columns),
            format!("generator.project_size is {rows} x {columns}, expected sides of 1 to {MAX_SIDE}"),
        );
    }
    if let Some(last) = config.generator.blocks.last() {
        let (found, asked) = (last.channels, config.channels);
        expect(
            found == asked,
            format!("the last generator block gives {found} channels, images have {asked}"),
        );
    }
}

/// Lists with one value for each layer must have as many values as there are layers.
fn check_lists(config: &ModelConfig, faults: &mut Vec<String>) {
    let ModelConfig { generator: g, discriminator: d, .. } = config;
    let networks = [
        ("generator", &g.norm, &g.bias, "dense, project and blocks", g.dense.len() + g.blocks.len() + 1),
        ("discriminator", &d.norm, &d.bias, "blocks, dense and head", d.blocks.len() + d.dense.len() + 1),
    ];
    for (network, norm, bias, layers, expected) in networks {
        let of_bias = match bias {
            OnLayers::All(_) => None,
            OnLayers::Each(each) => Some(each),
        };
        for (field, list) in [("norm.layers", norm.layers.as_ref()), ("bias", of_bias)] {
            if let Some(found) = list.map(Vec::len).filter(|found| *found != expected) {
                faults.push(format!(
                    "{network}.{field} has {found} entries, expected {expected}: one for each layer, {layers}"
                ));
            }
        }
    }
}

/// The tensors of a network; running statistics are optional.
pub(crate) fn tensors(layers: &[Layer]) -> Vec<TensorSpec> {
    let spec = |tensor: LayerTensor| {
        let LayerTensor { name, shape, role } = tensor;
        TensorSpec { name, shape, optional: !role.is_trained() }
    };
    layers.iter().flat_map(Layer::tensors).map(spec).collect()
}

fn initial(layers: &[Layer], seed: u64, purpose: Purpose, weight_std: f32, norm_weight_std: f32) -> Weights {
    let tensors = layers.iter().flat_map(Layer::parameters);
    let draw = |(i, LayerTensor { name, shape, role }): (u64, LayerTensor)| {
        let n = shape.iter().product();
        let mut rng = random::stream(seed, purpose, i);
        let data = match role.initial() {
            Initial::Kernel => random::normal(&mut rng, n, 0.0, weight_std),
            Initial::NormWeight => random::normal(&mut rng, n, 1.0, norm_weight_std),
            Initial::Constant(value) => vec![value; n],
        };
        (name, HostTensor { shape, data })
    };
    (0..).zip(tensors).map(draw).collect()
}
