//! The discriminator with a logit a class against PyTorch: logits, loss, every gradient, ten steps of Adam.
//!
//! What the keys mean is in `tests/golden/classifier/make.py`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support::{Golden, Within, golden_path};
use candle_core::{DType, Device, Tensor};
use dcgan_features::supervised::step;
use dcgan_model::{Classifier, Model, ModelConfig, pixels};
use dcgan_ops::{
    AdamConfig, CandleExecutor, CpuExecutor, Executor, Keep, Layer, Maps, NormStatistics, WithRespectTo,
    cross_entropy,
};

type Build = fn(Vec<Layer>) -> dcgan_ops::Result<Box<dyn Executor>>;

const CLASSES: usize = 10;

#[test]
fn a_classifier_and_ten_steps() {
    let config = std::fs::read_to_string(golden_path("classifier").join("config.json")).unwrap();
    let model = Model::new(serde_json::from_str::<ModelConfig>(&config).unwrap()).unwrap();
    let executors: [(&str, Build); 2] = [
        ("the fused executor", |layers| Ok(Box::new(CpuExecutor::new(layers)))),
        ("candle's autograd", |layers| Ok(Box::new(CandleExecutor::new(layers, &Device::Cpu)))),
    ];
    for (name, build) in executors {
        let mut golden = Golden::open("classifier", name);
        let weights = golden.weights("d", &model.classifier_tensors(CLASSES).unwrap());
        let new = || Classifier::with_executor(&model, CLASSES, &weights, &build).unwrap();
        let images = golden.input("images").permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let bytes: Vec<u8> = images.flatten_all().unwrap().to_vec1().unwrap();
        let x = pixels::to_tensor(&bytes, model.config(), &Device::Cpu).unwrap();
        let x = x.contiguous().unwrap(); // for index_select
        let labels: Vec<u32> = golden.input("labels").to_vec1().unwrap();
        check_passes(&mut golden, &mut new(), &x.narrow(0, 0, 10).unwrap(), &labels[..10]);
        check_steps(&mut golden, &mut new(), &x, &labels);
        check_loss(&mut golden);
        golden.finish(|_| true);
    }
}

/// One minibatch, nothing updated.
fn check_passes(golden: &mut Golden, classifier: &mut Classifier, x: &Tensor, labels: &[u32]) {
    let within = Within::Relative(1e-5);
    let x = &Maps::from_tensor(x).unwrap();
    golden.compare("evaluation", "eval_logits", &classifier.logits(x).unwrap(), within);
    let network = classifier.network_mut();
    let pass = network.train(x, Keep::Activations).unwrap();
    let blocks = network.layers().iter().filter(|layer| layer.name != "head");
    for (layer, activation) in blocks.zip(&pass.activations) {
        golden.compare_maps("activations", &format!("out.{}", layer.name), activation, within);
    }
    for (layer, NormStatistics { mean, var, .. }) in &pass.statistics {
        golden.compare("statistics", &format!("stat.{layer}.mean"), mean, within);
        golden.compare("statistics", &format!("stat.{layer}.variance"), var, within);
    }
    let output = network.train(x, Keep::Tape).unwrap().output;
    let logits = output.to_tensor().unwrap().flatten_from(1).unwrap();
    golden.compare("logits", "logits", &logits, within);
    let found = cross_entropy(&logits, labels).unwrap();
    golden.compare("loss", "loss", &found.loss, within);
    network.parameters_mut().zero_gradients();
    let gradient = found.gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let grad_output = Maps::rows(gradient, CLASSES).unwrap();
    let grad_x = network.backward(&grad_output, WithRespectTo::Both).unwrap().unwrap();
    golden.compare_maps("gradients", "grad_x", &grad_x, within);
    for (name, gradient) in network.parameters().gradients().unwrap() {
        golden.compare("gradients", &format!("grad.{name}"), &gradient, within);
    }
}

/// Ten steps by the function that trials train with.
fn check_steps(golden: &mut Golden, classifier: &mut Classifier, x: &Tensor, labels: &[u32]) {
    let adam = AdamConfig { learning_rate: 1e-3, beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: 1e-3 };
    let rows = golden.input("steps.rows");
    let mut losses = Vec::new();
    for rows in rows.to_vec2::<u32>().unwrap() {
        let labels: Vec<u32> = rows.iter().map(|row| labels[*row as usize]).collect();
        let x = x.index_select(&Tensor::new(rows, &Device::Cpu).unwrap(), 0).unwrap();
        losses.push(step(classifier, &Maps::from_tensor(&x).unwrap(), &labels, &adam).unwrap());
    }
    let losses = Tensor::new(losses, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    golden.compare("steps", "steps.loss", &losses, Within::Relative(1e-5));
    for (name, tensor) in classifier.network().parameters().tensors().unwrap() {
        golden.compare("final parameters", &format!("final.{name}"), &tensor, Within::Absolute(5e-6));
    }
    for (name, moments) in classifier.network().parameters().adam_state().unwrap().moments {
        let key = |which| format!("final.adam.{which}.{name}");
        golden.compare("final moments", &key("m"), &moments.first, Within::Relative(1e-4));
        golden.compare("final moments", &key("v"), &moments.second, Within::Relative(1e-4));
    }
}

/// The loss alone, from equal logits to some a thousand apart.
fn check_loss(golden: &mut Golden) {
    let logits = golden.input("ce.logits");
    let labels: Vec<u32> = golden.input("ce.labels").to_vec1().unwrap();
    let found = cross_entropy(&logits, &labels).unwrap();
    let alone = |(i, label)| cross_entropy(&logits.narrow(0, i, 1).unwrap(), &[label]).unwrap().loss;
    let losses =
        Tensor::stack(&labels.iter().copied().enumerate().map(alone).collect::<Vec<_>>(), 0).unwrap();
    golden.compare("ce", "ce.losses", &losses, Within::Relative(3e-7));
    golden.compare("ce", "ce.loss", &found.loss, Within::Relative(3e-7));
    golden.compare("ce", "ce.gradient", &found.gradient, Within::Relative(3e-7));
}
