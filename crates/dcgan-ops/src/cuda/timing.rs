//! Times of single convolutions: which engines cuDNN chose, and how fast they are.

use super::conv::{Convolution, Operation};
use super::gpu::{Buffer, Gpu, Result, driver, elements, int};
use super::layer::{convolution, gradient_types, pointer, types};
use crate::{ConvolutionTime, Kind, Layer, Precision};
use cudarc::driver::sys::CUevent_flags;
use std::time::Duration;

/// Runs before the clock starts, and runs that are timed.
const UNTIMED: usize = 3;
const TIMED: usize = 20;

/// The three convolutions of each layer of a batch of `n` images, on zeros.
pub(super) fn time_convolutions(
    gpu: &Gpu,
    layers: &[Layer],
    (precision, n): (Precision, usize),
) -> Result<Vec<ConvolutionTime>> {
    gpu.bind()?;
    let mut plans = gpu.plans();
    let mut workspace = Buffer::default();
    let mut times = Vec::new();
    for layer in layers {
        let shape = convolution(layer, n);
        let of_gradient = gradient_types(&mut plans, precision, shape)?;
        let (output, input) = match layer.kind {
            Kind::Conv => (Operation::Coarse, Operation::Fine),
            Kind::ConvTranspose => (Operation::Fine, Operation::Coarse),
        };
        let buffers = Operands::zeros(gpu, shape)?;
        for (computes, operation, types) in [
            ("output", output, types(precision)),
            ("input gradient", input, types(precision)),
            ("weight gradient", Operation::Filters, of_gradient),
        ] {
            let (engine, bytes) = plans.engine(operation, (shape, types))?;
            let mut run = |times: usize| -> Result<()> {
                (0..times).try_for_each(|_| {
                    let at = buffers.addresses(gpu);
                    plans.run((gpu, &mut workspace), operation, (shape, types), at)
                })
            };
            run(UNTIMED)?;
            let event = || {
                gpu.context()
                    .new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
                    .map_err(driver("making an event"))
            };
            let (start, end) = (event()?, event()?);
            start.record(gpu.stream()).map_err(driver("recording an event"))?;
            run(TIMED)?;
            end.record(gpu.stream()).map_err(driver("recording an event"))?;
            let ms = start.elapsed_ms(&end).map_err(driver("reading the time"))?;
            let seconds = f64::from(ms) / 1e3 / TIMED as f64;
            times.push(ConvolutionTime {
                layer: layer.name.clone(),
                computes,
                engine,
                workspace: bytes,
                time: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
                tflops: operations(shape) / seconds.max(1e-12) / 1e12,
            });
        }
    }
    Ok(times)
}

/// Multiplications and additions of a convolution.
fn operations(shape: Convolution) -> f64 {
    let Convolution { n, fine, coarse, kernel, .. } = shape;
    2.0 * (n * coarse.0 * coarse.1 * coarse.2) as f64 * (kernel.0 * kernel.1 * fine.2) as f64
}

/// Fine maps, filters and coarse maps, with room for f32.
struct Operands([Buffer; 3]);

impl Operands {
    fn zeros(gpu: &Gpu, shape: Convolution) -> Result<Self> {
        let Convolution { n, fine, coarse, kernel, .. } = shape;
        let filters = coarse.2 * kernel.0 * kernel.1 * fine.2;
        let lens = [n * fine.0 * fine.1 * fine.2, filters, n * coarse.0 * coarse.1 * coarse.2];
        let mut buffers = [Buffer::default(), Buffer::default(), Buffer::default()];
        for (buffer, len) in buffers.iter_mut().zip(lens) {
            let address = buffer.sized(gpu, 4 * len)?;
            gpu.launch("zero", elements(len), &[pointer(address), int(len)?])?;
        }
        Ok(Self(buffers))
    }

    fn addresses(&self, gpu: &Gpu) -> [u64; 3] {
        self.0.each_ref().map(|buffer| buffer.address(gpu))
    }
}
