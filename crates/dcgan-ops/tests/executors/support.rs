//! Layers, networks and their comparison.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use candle_core::{Device, Tensor};
use dcgan_ops::{
    Activation, CandleExecutor, CpuExecutor, Input, Isa, Keep, Kind, Layer, MapShape, Maps, Mode, Network,
    Norm, NormAxes, NormStatistics, Precision, Statistics, Tensors, WithRespectTo,
};
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// Numbers in [-1, 1) from a fixed linear congruence.
pub(crate) fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Maps `(n, c, h, w)` of such numbers.
pub(crate) fn maps(seed: u64, n: usize, shape: MapShape) -> Maps {
    Maps::from_tensor(&numbers(seed, &[n, shape.channels, shape.height, shape.width])).unwrap()
}

pub(crate) fn cpu(layers: &[Layer]) -> Network {
    Network::with_executor(Box::new(CpuExecutor::new(layers.to_vec())))
}

pub(crate) fn candle(layers: &[Layer]) -> Network {
    Network::with_executor(Box::new(CandleExecutor::new(layers.to_vec(), &Device::Cpu)))
}

/// Parameters from [`numbers`], times `scale`.
pub(crate) fn parameters(layers: &[Layer], seed: u64, scale: f64) -> Tensors {
    let tensors = layers.iter().flat_map(Layer::parameters).zip(seed..);
    tensors.map(|(t, seed)| (t.name, (numbers(seed, &t.shape) * scale).unwrap())).collect()
}

/// max|a - b| / max|b|
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let max =
        |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    max(&(a.contiguous().unwrap() - b.contiguous().unwrap()).unwrap()) / max(b).max(1e-20)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) channels: (usize, usize),
    pub(crate) side: (usize, usize),
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) extra: usize,
    pub(crate) bias: bool,
    pub(crate) labels: usize,
    pub(crate) norm: Option<(NormAxes, bool)>,
    pub(crate) activation: Activation,
}

/// A convolution of one pixel, for rows that say what is otherwise.
pub(crate) const PLAIN: Row = Row {
    kind: Kind::Conv,
    channels: (1, 1),
    side: (1, 1),
    kernel: (1, 1),
    stride: 1,
    padding: 0,
    extra: 0,
    bias: false,
    labels: 0,
    norm: None,
    activation: Activation::LeakyRelu(0.2),
};

pub(crate) fn layer(name: &str, row: Row) -> Layer {
    let Row { kind, channels, side, kernel, stride, padding, extra, .. } = row;
    let out = |side, kernel| Layer::output_side(kind, side, kernel, stride, padding, extra).unwrap();
    let input = MapShape::new(channels.0, side.0, side.1);
    let output = MapShape::new(channels.1, out(side.0, kernel.0), out(side.1, kernel.1));
    Layer {
        kernel,
        stride,
        padding: (padding, padding),
        output_padding: extra,
        bias: row.bias,
        label_channels: row.labels,
        norm: row.norm.map(|(axes, affine)| Norm { axes, affine, eps: 1e-5 }),
        activation: row.activation,
        ..Layer::plain(name, kind, input, output)
    }
}

pub(crate) fn check_same(layers: &[Layer], n: usize) {
    // Winograd's algorithm rounds a little more, and both are single precision.
    let tolerance =
        if layers.iter().all(|l| l.input.channels < 8 || l.output.channels < 8) { 2e-5 } else { 5e-5 };
    check_within(layers, n, Precision::F32, tolerance);
}

/// The GPU of the simulated driver, in the process that [`cuda_agrees_on_a_simulated_gpu`] starts.
#[cfg(feature = "cuda")]
pub(crate) fn simulated_gpu() -> Option<Arc<dcgan_ops::cuda::Gpu>> {
    static GPU: std::sync::OnceLock<Arc<dcgan_ops::cuda::Gpu>> = std::sync::OnceLock::new();
    let open = || Arc::new(dcgan_ops::cuda::Gpu::open(0).unwrap());
    std::env::var_os("SIMULATED_GPU").map(|_| Arc::clone(GPU.get_or_init(open)))
}

/// Executors to compare with candle's autograd, with their names: the simulated GPU's where there is one, and otherwise
/// that of the CPU on every instruction set of this machine.
pub(crate) fn executors(layers: &[Layer], precision: Precision) -> Vec<(String, Network)> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = simulated_gpu() {
        let executor = dcgan_ops::cuda::CudaExecutor::new(layers.to_vec(), gpu, precision);
        return vec![("simulated GPU".to_owned(), Network::with_executor(Box::new(executor)))];
    }
    let on = |isa: Isa| Network::with_executor(Box::new(CpuExecutor::with(layers.to_vec(), isa, precision)));
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    isas.map(|isa| (format!("{isa:?}"), on(isa))).collect()
}

/// The executors against candle's autograd.
pub(crate) fn check_within(layers: &[Layer], n: usize, precision: Precision, tolerance: f32) {
    // The GPU's maps are in bf16 too.
    let is_gpu = cfg!(feature = "cuda") && std::env::var_os("SIMULATED_GPU").is_some();
    let tolerance = if is_gpu && precision == Precision::Bf16 { 2.0 * tolerance } else { tolerance };
    let (names, ours): (Vec<String>, Vec<Network>) = executors(layers, precision).into_iter().unzip();
    let mut networks: Vec<_> = std::iter::once(candle(layers)).chain(ours).collect();
    let given: Statistics = layers
        .iter()
        .filter_map(|layer| {
            let shape = layer.norm_shape()?;
            let var = (numbers(5, &shape).abs().unwrap() + 0.5).unwrap();
            Some((layer.name.clone(), NormStatistics { mean: numbers(3, &shape), var, count: 9 }))
        })
        .collect();
    let x = maps(1, n, layers[0].input);
    let d = maps(2, n, layers[layers.len() - 1].output);
    let classes = layers[0].label_channels;
    let classes_of: Vec<u32> = (0..n).map(|i| u32::try_from(i * 7 % classes.max(1)).unwrap()).collect();
    let labels = (classes > 0).then(|| Maps::one_hot(&classes_of, classes).unwrap());
    let input = Input { maps: &x, labels: labels.as_ref() };
    for mode in [Mode::Train, Mode::Eval(&given)] {
        let mut results = Vec::new();
        for network in &mut networks {
            network.parameters_mut().set(&parameters(layers, 7, 1.0)).unwrap();
            network.parameters_mut().zero_gradients();
            let activations = network.forward(input, mode, Keep::Activations).unwrap().activations;
            let forward = network.forward(input, mode, Keep::Tape).unwrap();
            let dx = network.backward(&d, WithRespectTo::Both).unwrap().unwrap().to_tensor().unwrap();
            // With respect to the input alone: the same gradient, the parameters' gradients untouched.
            let alone = network.backward(&d, WithRespectTo::Input).unwrap().unwrap().to_tensor().unwrap();
            assert!(distance(&alone, &dx) < 1e-6);
            let mut named = network.parameters().gradients().unwrap();
            if let Mode::Train = mode {
                // Batch norm subtracts the mean: the gradient of a bias before it is zero but for rounding.
                let normed = layers.iter().filter(|layer| layer.norm.is_some());
                normed.for_each(|layer| drop(named.remove(&format!("{}.conv.bias", layer.name))));
            }
            for (name, s) in &forward.statistics {
                named.insert(format!("{name}.mean"), s.mean.clone());
                named.insert(format!("{name}.var"), s.var.clone());
                let count = Tensor::full(s.count as f32, (1,), &Device::Cpu).unwrap();
                named.insert(format!("{name}.count"), count);
            }
            named.insert("output".into(), forward.output.to_tensor().unwrap());
            named.insert("dx".into(), dx);
            let activations = activations.iter().enumerate();
            named.extend(activations.map(|(i, a)| (format!("activation {i}"), a.to_tensor().unwrap())));
            results.push(named);
        }
        let (reference, ours) = results.split_first().unwrap();
        for (executor, ours) in names.iter().zip(ours) {
            assert_eq!(ours.keys().collect::<Vec<_>>(), reference.keys().collect::<Vec<_>>());
            for (name, ours) in ours {
                let distance = distance(ours, &reference[name]);
                assert!(
                    distance < tolerance,
                    "{name} differs by {distance} ({executor}, {precision:?}, {mode:?}, batch {n}) in {layers:?}"
                );
            }
        }
    }
}
