//! Time of each operation of the CPU executor: forward and backward passes of the presets' layers, and Adam.
//!
//! `cargo bench -p dcgan-ops` runs all; `-- bf16`, `-- "conv 4x4"` or another part of a name selects some.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails at the first error")]

use candle_core::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dcgan_ops::{
    Activation, AdamConfig, CpuExecutor, Isa, Keep, Kind, Layer, MapShape, Maps, Network, Norm, NormAxes,
    Precision, WithRespectTo,
};
use std::time::Duration;

/// Images of a minibatch.
const BATCH: usize = 64;

/// Name, kind, channels and sides of input and output, kernel, stride, padding.
type Row = (&'static str, Kind, (usize, usize), (usize, usize), (usize, usize, usize));

/// Layers of the presets: every algorithm at typical sizes.
const ROWS: &[Row] = &[
    ("project 100-512 4x4", Kind::ConvTranspose, (100, 1), (512, 4), (4, 1, 0)),
    ("up 4x4 512-256 at 4x4", Kind::ConvTranspose, (512, 4), (256, 8), (4, 2, 1)),
    ("up 4x4 128-64 at 16x16", Kind::ConvTranspose, (128, 16), (64, 32), (4, 2, 1)),
    ("up 4x4 64-3 at 32x32", Kind::ConvTranspose, (64, 32), (3, 64), (4, 2, 1)),
    ("conv 4x4 3-64 at 64x64", Kind::Conv, (3, 64), (64, 32), (4, 2, 1)),
    ("conv 4x4 64-128 at 32x32", Kind::Conv, (64, 32), (128, 16), (4, 2, 1)),
    ("conv 4x4 256-512 at 8x8", Kind::Conv, (256, 8), (512, 4), (4, 2, 1)),
    ("conv 5x5 64-128 at 16x16", Kind::Conv, (64, 16), (128, 8), (5, 2, 2)),
    ("conv 3x3 128-128 at 32x32", Kind::Conv, (128, 32), (128, 32), (3, 1, 1)),
    ("conv 3x3/2 128-128 at 32x32", Kind::Conv, (128, 32), (128, 16), (3, 2, 1)),
    ("head 512 4x4", Kind::Conv, (512, 4), (1, 1), (4, 1, 0)),
];

fn layer(&(_, kind, input, output, (kernel, stride, padding)): &Row) -> Layer {
    let map = |(channels, side)| MapShape::new(channels, side, side);
    Layer {
        kernel: (kernel, kernel),
        stride,
        padding: (padding, padding),
        norm: Some(Norm { axes: NormAxes::PerChannel, affine: true, eps: 1e-5 }),
        activation: Activation::LeakyRelu(0.2),
        ..Layer::plain("only", kind, map(input), map(output))
    }
}

/// Values in (-1, 1) with a long period.
fn values(shape: MapShape) -> Maps {
    let wave = |i: usize| (i as f32 * 0.618_034).fract() * 2.0 - 1.0;
    Maps::new((0..BATCH * shape.len()).map(wave).collect::<Vec<_>>(), BATCH, shape).unwrap()
}

fn network(layer: &Layer, precision: Precision) -> Network {
    let executor = CpuExecutor::with(vec![layer.clone()], Isa::best(), precision);
    let mut network = Network::with_executor(Box::new(executor));
    let parameters = layer.parameters().map(|tensor| {
        let value = Tensor::full(0.02_f32, tensor.shape.as_slice(), &Device::Cpu).unwrap();
        (tensor.name, value)
    });
    network.parameters_mut().set(&parameters.collect()).unwrap();
    network
}

/// Layers with batch norm and LeakyReLU; the backward pass computes both gradients.
fn layers(criterion: &mut Criterion) {
    for row in ROWS {
        let layer = layer(row);
        let (x, d) = (values(layer.input), values(layer.output));
        let mut group = criterion.benchmark_group(row.0);
        group.throughput(Throughput::Elements(BATCH as u64));
        for precision in [Precision::F32, Precision::Bf16] {
            let mut network = network(&layer, precision);
            if precision == Precision::Bf16 && !network.timings()[0].algorithm.ends_with("bf16") {
                continue; // the same as in f32
            }
            let name = precision.name();
            group.bench_function(format!("forward {name}"), |bench| {
                bench.iter(|| network.train(&x, Keep::Tape).unwrap());
            });
            group.bench_function(format!("backward {name}"), |bench| {
                bench.iter(|| network.backward(&d, WithRespectTo::Both).unwrap());
            });
        }
    }
}

fn optimizer(criterion: &mut Criterion) {
    let layer = layer(&ROWS[6]);
    let mut network = network(&layer, Precision::F32);
    let config = AdamConfig { learning_rate: 2e-4, beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let parameters: usize = layer.parameters().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let mut group = criterion.benchmark_group("optimizer");
    group.throughput(Throughput::Elements(parameters as u64));
    group.bench_function("Adam", |bench| bench.iter(|| network.adam_step(&config)));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500));
    targets = layers, optimizer
}
criterion_main!(benches);
