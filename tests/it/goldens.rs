//! Both executors against PyTorch: single layers, losses, Adam, whole networks, ten training steps.
//!
//! The goldens and what each of their keys means are in `tests/golden/*/make.py`. `cargo test -p dcgan-tests goldens --
//! --nocapture` prints the largest error of each group.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{Golden, Within, golden_path, values};
use candle_core::{DType, Device, Tensor};
use dcgan_model::{Discriminator, Generator, Model, ModelConfig, Network, Preset};
use dcgan_ops::{
    Activation, AdamConfig, Bce, CandleExecutor, CpuExecutor, Executor, Forward, Keep, Kind, Layer, MapShape,
    Mode, Norm, NormAxes, NormStatistics, Statistics, Tensors, Want, bce_with_logits,
};
use dcgan_train::config::TrainingConfig;
use dcgan_train::step::{LearningRate, Networks, train_step};
use serde_json::{Value, from_value};
use std::collections::BTreeMap;

type Build = fn(Vec<Layer>) -> dcgan_ops::Result<Box<dyn Executor>>;

/// Every check runs on both.
const EXECUTORS: [(&str, Build); 2] = [
    ("the fused executor", |layers| Ok(Box::new(CpuExecutor::new(layers)))),
    ("candle's autograd", |layers| Ok(Box::new(CandleExecutor::new(layers, &Device::Cpu)?))),
];

#[test]
fn networks_and_ten_steps() {
    // A case, and the preset whose training settings it uses.
    for (case, preset) in [("pytorch64_narrow", "pytorch64"), ("paper64_narrow", "paper64")] {
        let config = std::fs::read_to_string(golden_path(case).join("config.json")).unwrap();
        let model = Model::new(serde_json::from_str::<ModelConfig>(&config).unwrap()).unwrap();
        let training = Preset::named(preset).unwrap().training.try_into::<TrainingConfig>().unwrap();
        for (name, build) in EXECUTORS {
            let mut golden = Golden::open(case, name);
            let pixels = golden.input("images").permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            check_passes(&mut golden, &model, &pixels, build);
            check_steps(&mut golden, &model, &training, &pixels, build);
            golden.finish(|_| true);
        }
    }
}

/// Images `(n, h, w, c)` of u8 as the networks see them, by the conversion that training uses.
fn images(pixels: &Tensor, config: &ModelConfig) -> Tensor {
    let bytes: Vec<u8> = pixels.flatten_all().unwrap().to_vec1().unwrap();
    dcgan_model::pixels::to_tensor(&bytes, config, &Device::Cpu).unwrap()
}

/// One minibatch, nothing updated: evaluation, every activation, statistic, loss and gradient.
fn check_passes(golden: &mut Golden, model: &Model, pixels: &Tensor, build: Build) {
    let within = Within::Relative(3e-5);
    let weights = golden.weights("g", &model.generator_tensors());
    let mut generator = Generator::with_executor(model, &weights, build).unwrap();
    let weights = golden.weights("d", &model.discriminator_tensors());
    let mut discriminator = Discriminator::with_executor(model, &weights, build).unwrap();
    let z = golden.input("z");
    let x = images(&pixels.narrow(0, 0, z.dim(0).unwrap()).unwrap(), model.config());

    golden.compare("evaluation", "g.eval", &generator.sample(&z).unwrap(), within);
    golden.compare("evaluation", "d.eval_logits", &discriminator.score(&x).unwrap(), within);

    let pass = generator.train(&z, Keep::Activations).unwrap();
    let fake = pass.output.clone();
    compare_pass(golden, "g", &pass, &generator.0, within);
    for (prefix, x) in [("d_real", &x), ("d_fake", &fake)] {
        let pass = discriminator.0.train(x, Keep::Activations).unwrap();
        let logits = pass.output.flatten_all().unwrap();
        golden.compare("activations", &format!("{prefix}.logits"), &logits, within);
        compare_pass(golden, prefix, &pass, &discriminator.0, within);
    }

    discriminator.0.executor.zero_gradients().unwrap();
    let (on_real, by_x) = judge(&mut discriminator.0, &x, 1.0, Want::Both);
    let (on_fake, _) = judge(&mut discriminator.0, &fake, 0.0, Want::Parameters);
    // The generator's loss must leave no trace in D's gradients, which are compared after it.
    let (on_generator, by_fake) = judge(&mut discriminator.0, &fake, 1.0, Want::Input);
    let by_fake = by_fake.unwrap();
    generator.train(&z, Keep::Tape).unwrap();
    generator.0.executor.zero_gradients().unwrap();
    generator.0.executor.backward(&by_fake, Want::Parameters).unwrap();

    golden.compare("losses", "loss_d_real", &on_real.loss, within);
    golden.compare("losses", "loss_d_fake", &on_fake.loss, within);
    golden.compare("losses", "loss_d", &(on_real.loss + on_fake.loss).unwrap(), within);
    golden.compare("losses", "loss_g", &on_generator.loss, within);
    golden.compare("gradients", "grad_x", &by_x.unwrap(), within);
    golden.compare("gradients", "grad_fake", &by_fake, within);
    for (prefix, network) in [("grad_g", &generator.0), ("grad_d", &discriminator.0)] {
        for (name, gradient) in network.executor.gradients().unwrap() {
            golden.compare("gradients", &format!("{prefix}.{name}"), &gradient, within);
        }
    }
}

fn compare_pass(golden: &mut Golden, prefix: &str, pass: &Forward, network: &Network, within: Within) {
    let layers = network.executor.layers().iter();
    assert_eq!(pass.activations.len(), layers.len());
    // D's head gives the logits, which are compared as such.
    for (layer, activation) in layers.zip(&pass.activations).filter(|(layer, _)| layer.name != "head") {
        golden.compare("activations", &format!("{prefix}.out.{}", layer.name), activation, within);
    }
    for (layer, NormStatistics { mean, variance, .. }) in &pass.statistics {
        golden.compare("statistics", &format!("{prefix}.stat.{layer}.mean"), mean, within);
        golden.compare("statistics", &format!("{prefix}.stat.{layer}.variance"), variance, within);
    }
}

/// D's loss on images, and the gradients that are wanted.
fn judge(network: &mut Network, x: &Tensor, target: f64, want: Want) -> (Bce, Option<Tensor>) {
    let logits = network.train(x, Keep::Tape).unwrap().output;
    let bce = bce_with_logits(&logits.flatten_all().unwrap(), target).unwrap();
    let d_output = bce.gradient.reshape(logits.shape()).unwrap();
    let by_input = network.executor.backward(&d_output, want).unwrap();
    (bce, by_input)
}

/// Ten updates of each network by [`train_step`], from parameters without running statistics.
fn check_steps(golden: &mut Golden, model: &Model, training: &TrainingConfig, pixels: &Tensor, build: Build) {
    let mut tensors = [model.generator_tensors(), model.discriminator_tensors()];
    tensors.iter_mut().for_each(|specs| specs.retain(|spec| !spec.optional));
    let [g, d] = [golden.weights("g", &tensors[0]), golden.weights("d", &tensors[1])];
    let mut networks = Networks {
        generator: Generator::with_executor(model, &g, build).unwrap(),
        discriminator: Discriminator::with_executor(model, &d, build).unwrap(),
    };
    let (rows, z) = (golden.input("steps.rows"), golden.input("steps.z"));
    let mut told: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut tell = |name, value| told.entry(name).or_default().push(value);
    for k in 0..rows.dim(0).unwrap() {
        let x = images(&pixels.index_select(&rows.get(k).unwrap(), 0).unwrap(), model.config());
        let batch = (&x, &z.get(k).unwrap());
        let rate = LearningRate(training.learning_rate);
        let output = train_step(&mut networks, training, rate, k as u64, batch, true).unwrap();
        if let Some(output) = output.discriminator {
            tell("steps.loss_d", output.loss);
            tell("steps.d_x", output.real);
            tell("steps.d_g_z1", output.fake);
        }
        if let Some(output) = output.generator {
            tell("steps.loss_g", output.loss);
            tell("steps.d_g_z2", output.fake);
        }
    }
    for (name, values) in told {
        let values = Tensor::new(values, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        golden.compare("steps", name, &values, Within::Relative(1e-5));
    }
    for (prefix, network) in [("g", &networks.generator.0), ("d", &networks.discriminator.0)] {
        for (name, found) in network.weights().unwrap() {
            let (key, shape) = (format!("final.{prefix}.{name}"), found.shape.as_slice());
            let found = Tensor::from_slice(&found.data, shape, &Device::Cpu).unwrap();
            if name.ends_with(".mean") || name.ends_with(".variance") {
                golden.compare("final statistics", &key, &found, Within::Relative(1e-5));
            } else {
                golden.compare("final parameters, rms", &key, &found, Within::Rms(1e-6));
                golden.compare("final parameters", &key, &found, Within::Absolute(2e-6));
            }
        }
        for (name, moments) in network.executor.adam_state().unwrap().moments {
            let key = |which| format!("final.adam_{prefix}.{which}.{name}");
            golden.compare("final moments", &key("m"), &moments.first, Within::Relative(1e-4));
            golden.compare("final moments", &key("v"), &moments.second, Within::Relative(1e-4));
        }
    }
}

/// Runs `check` on every row of a list in `ops/cases.json`.
fn check_rows(list: &str, title: &str, mut check: impl FnMut(&mut Golden, &str, &Value)) {
    let cases = std::fs::read_to_string(golden_path("ops").join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&cases).unwrap();
    let mut golden = Golden::open("ops", &format!("{list}, {title}"));
    for row in cases[list].as_array().unwrap() {
        check(&mut golden, row["name"].as_str().unwrap(), row);
    }
    golden.finish(|key| key.starts_with(&format!("{list}.")));
}

/// The same on both executors.
fn check_layers(list: &str, check: fn(&mut Golden, &str, &Value, Build)) {
    for (title, build) in EXECUTORS {
        check_rows(list, title, |golden, name, row| check(golden, name, row, build));
    }
}

#[test]
fn convolutions_and_their_transposes() {
    check_layers("linear", |golden, name, row, build| {
        let number = |field: &str| from_value::<usize>(row[field].clone()).unwrap();
        let layer = Layer {
            kind: match row["kind"].as_str().unwrap() {
                "conv" => Kind::Conv,
                "conv_transpose" => Kind::ConvTranspose,
                other => panic!("{name}: {other} is no kind"),
            },
            output: from_value(row["output"].clone()).unwrap(),
            kernel: from_value(row["kernel"].clone()).unwrap(),
            stride: number("stride"),
            padding: number("padding"),
            output_padding: number("output_padding"),
            ..pointwise(from_value(row["input"].clone()).unwrap())
        };
        let mut executor = build(vec![layer]).unwrap();
        let weight = golden.input(&format!("{name}.weight"));
        executor.set_parameters(&Tensors::from([("layer.weight".to_owned(), weight)])).unwrap();
        let (x, dy) = (golden.input(&format!("{name}.x")), golden.input(&format!("{name}.dy")));
        let y = executor.forward(&x, Mode::Train, Keep::Tape).unwrap().output;
        let dx = executor.backward(&dy, Want::Both).unwrap().unwrap();
        let dweight = &executor.gradients().unwrap()["layer.weight"];
        for (key, found) in [("y", &y), ("dx", &dx), ("dweight", dweight)] {
            golden.compare(key, &format!("{name}.{key}"), found, Within::Relative(2e-6));
        }
    });
}

/// A 1x1 convolution from one map to another of its shape, without batch-norm or activation.
fn pointwise(map: MapShape) -> Layer {
    Layer {
        name: "layer".into(),
        kind: Kind::Conv,
        input: map,
        output: map,
        kernel: (1, 1),
        stride: 1,
        padding: 0,
        output_padding: 0,
        norm: None,
        activation: Activation::Identity,
    }
}

#[test]
fn batch_norm_and_activations() {
    check_layers("norm", |golden, name, row, build| {
        let map: MapShape = from_value(row["input"].clone()).unwrap();
        let scope: Option<NormAxes> = from_value(row["scope"].clone()).unwrap();
        let (affine, eps) = (row["affine"].as_bool().unwrap(), row["eps"].as_f64().unwrap());
        let layer = Layer {
            norm: scope.map(|scope| Norm { scope, affine, eps }),
            activation: from_value(row["activation"].clone()).unwrap(),
            ..pointwise(map)
        };
        let mut input = |suffix: &str| golden.optional_input(&format!("{name}.{suffix}"));
        let (x, dy) = (input("x").unwrap(), input("dy").unwrap());
        // The identity of every channel: what reaches batch-norm is x.
        let mut identity = vec![0.0_f32; map.channels * map.channels];
        identity.iter_mut().step_by(map.channels + 1).for_each(|value| *value = 1.0);
        let shape = (map.channels, map.channels, 1, 1);
        let mut parameters = Tensors::new();
        parameters.insert("layer.weight".into(), Tensor::from_vec(identity, shape, &Device::Cpu).unwrap());
        for suffix in ["gain", "shift"] {
            parameters.extend(input(suffix).map(|tensor| (format!("layer.{suffix}"), tensor)));
        }
        let mut given = Statistics::new();
        let mode = if row["mode"] == "eval" {
            let (mean, variance) = (input("mean").unwrap(), input("variance").unwrap());
            given.insert("layer".into(), NormStatistics { mean, variance, count: 0 });
            Mode::Eval(&given)
        } else {
            Mode::Train
        };
        let mut executor = build(vec![layer]).unwrap();
        executor.set_parameters(&parameters).unwrap();
        let pass = executor.forward(&x, mode, Keep::Tape).unwrap();
        let dx = executor.backward(&dy, Want::Both).unwrap().unwrap();
        let gradients = executor.gradients().unwrap();
        // The row whose mean is 50 times its spread has lost two digits before batch-norm begins.
        let within = Within::Relative(1e-4);
        golden.compare("y", &format!("{name}.y"), &pass.output, within);
        golden.compare("dx", &format!("{name}.dx"), &dx, within);
        if affine {
            golden.compare("dgain", &format!("{name}.dgain"), &gradients["layer.gain"], within);
            golden.compare("dshift", &format!("{name}.dshift"), &gradients["layer.shift"], within);
        }
        for statistics in pass.statistics.values() {
            golden.compare("mean", &format!("{name}.mean"), &statistics.mean, within);
            golden.compare("variance", &format!("{name}.variance"), &statistics.variance, within);
        }
    });
}

#[test]
fn binary_cross_entropy() {
    check_rows("bce", "on the CPU", |golden, name, row| {
        let target = row["target"].as_f64().unwrap();
        let logits = golden.input(&format!("{name}.logits"));
        let n = logits.dim(0).unwrap();
        let bce = bce_with_logits(&logits, target).unwrap();
        let alone = |i| bce_with_logits(&logits.narrow(0, i, 1).unwrap(), target).unwrap().loss;
        let losses = Tensor::stack(&(0..n).map(alone).collect::<Vec<_>>(), 0).unwrap();
        // A loss of 100 has steps of 8e-6.
        golden.compare("losses", &format!("{name}.losses"), &losses, Within::Absolute(8e-6));
        golden.compare("loss", &format!("{name}.loss"), &bce.loss, Within::Absolute(8e-6));
        for (key, found) in [("probability", &bce.probability), ("gradient", &bce.gradient)] {
            golden.compare(key, &format!("{name}.{key}"), found, Within::Absolute(2e-7));
        }
    });
}

#[test]
fn adam() {
    check_layers("adam", |golden, name, row, build| {
        let number = |field: &str| row[field].as_f64().unwrap();
        let config = AdamConfig {
            learning_rate: number("learning_rate"),
            beta1: number("beta1"),
            beta2: number("beta2"),
            eps: number("eps"),
            weight_decay: number("weight_decay"),
        };
        let start = golden.input(&format!("{name}.start"));
        let gradients = golden.input(&format!("{name}.gradients"));
        let n = start.dim(0).unwrap();
        // On an input of 1 the derivative by the kernel is that by the output.
        let one = MapShape::new(1, 1, 1);
        let mut executor = build(vec![Layer { output: MapShape::new(n, 1, 1), ..pointwise(one) }]).unwrap();
        let weight = start.reshape((n, 1, 1, 1)).unwrap();
        executor.set_parameters(&Tensors::from([("layer.weight".to_owned(), weight)])).unwrap();
        let x = Tensor::new(&[[[[1.0_f32]]]], &Device::Cpu).unwrap();
        let mut after: BTreeMap<&'static str, Vec<f32>> = BTreeMap::new();
        let steps = gradients.dim(0).unwrap();
        for k in 0..steps {
            executor.zero_gradients().unwrap();
            executor.forward(&x, Mode::Train, Keep::Tape).unwrap();
            let gradient = gradients.get(k).unwrap().reshape((1, n, 1, 1)).unwrap();
            executor.backward(&gradient, Want::Parameters).unwrap();
            executor.adam_step(&config).unwrap();
            let state = executor.adam_state().unwrap();
            assert_eq!(state.step, k as u64 + 1);
            let moments = &state.moments["layer.weight"];
            let parameters = &executor.parameters().unwrap()["layer.weight"];
            for (key, tensor) in
                [("parameters", parameters), ("first", &moments.first), ("second", &moments.second)]
            {
                after.entry(key).or_default().extend(values(tensor));
            }
        }
        for (key, values) in after {
            let found = Tensor::from_vec(values, (steps, n), &Device::Cpu).unwrap();
            // Parameters move by a thousandth of themselves: only a bound of a few roundings sees a wrong step.
            let limit = if key == "parameters" { 3e-7 } else { 2e-6 };
            golden.compare(key, &format!("{name}.{key}"), &found, Within::Relative(limit));
        }
    });
}
