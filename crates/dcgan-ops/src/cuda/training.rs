//! Training steps whose state stays on the GPU. The work of a step is always the same, so that after the first steps it
//! is a CUDA graph: one call of the driver starts all of it, and the host waits for nothing.

use super::conv::Plans;
use super::gpu::{self, Argument, Buffer, Gpu, driver, elements, int};
use super::layer::{Pass, Scratch, pointer};
use super::memory::{MemoryUse, precision_bytes};
use super::nccl::Gpus;
use super::slots::Slots;
use super::trained::Trained;
use crate::{
    AdamConfig, GradientValue, Layer, LossValue, Network, OpsError, Precision, ResidentConfig, ResidentInput,
    ResidentOutput, ResidentTraining, Result, Updates,
};
use cudarc::driver::{CudaGraph, sys};
use std::fmt;
use std::sync::Arc;

/// Steps whose outputs are kept on the GPU before the host reads them.
const ROWS: usize = 64;
/// Values of a step's output: loss and mean probability on real and on generated images, norm of D's gradient and which
/// tensor is not finite; loss, mean probability, norm and tensor of the generator's update.
pub(super) const WIDTH: usize = 10;
const D_LOSS: usize = 0;
const D_NORM: usize = 4;
const G_LOSS: usize = 6;
const G_NORM: usize = 8;
/// Values that the host sets for each step; `kernels.cu` names them.
const SCALARS: usize = 16;
const D_RATE: usize = 1;
const G_RATE: usize = 3;
/// What a step reads and writes beside the networks.
#[derive(Debug, Default)]
pub(super) struct StepBuffers {
    pub(super) scalars: Buffer,
    /// Rows of [`WIDTH`] values.
    pub(super) output: Buffer,
    /// Losses of the step, in their columns of a row.
    pub(super) found: Buffer,
    /// Not 0 once a loss or gradient was not finite.
    pub(super) failed: Buffer,
    table: Buffer,
    z: Buffer,
    /// Real images, then generated ones.
    images: Buffer,
    /// The images of the dataset as bytes, where they are kept.
    kept: Option<Buffer>,
    /// Label vectors of the minibatch, twice: for real and for generated images.
    labels: Buffer,
}

/// A graph of the driver, which may be used by one thread at a time.
struct Graph(CudaGraph);

// SAFETY: a graph may be used by any thread, one at a time; it has one owner.
unsafe impl Send for Graph {}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Graph")
    }
}

/// The work of the steps that update the same networks.
#[derive(Debug, Default)]
struct Work {
    has_run: bool,
    graph: Option<Graph>,
}

/// Training of two networks on one GPU.
#[derive(Debug)]
pub struct CudaTraining {
    both: Work,
    discriminator_alone: Work,
    generator_alone: Work,
    slots: Slots,
    generator: Trained,
    discriminator: Trained,
    scratch: Scratch,
    step: StepBuffers,
    config: ResidentConfig,
    memory: MemoryUse,
    sizes: Sizes,
    /// The updates of the steps whose output is on the GPU.
    started: Vec<Updates>,
    outputs: Vec<ResidentOutput>,
    can_capture: bool,
    /// Those of the other processes, from the first step on.
    gpus: Option<Gpus>,
    gpu: Arc<Gpu>,
}

impl CudaTraining {
    /// Copies generator and discriminator to the GPU.
    ///
    /// # Errors
    /// Memory, failures of the device.
    pub fn new(
        gpu: Arc<Gpu>,
        (generator, discriminator): (&Network, &Network),
        config: &ResidentConfig,
    ) -> Result<Self> {
        gpu.bind()?;
        let shape = (config.precision, config.batch_size);
        let (free, _) = gpu.memory_info();
        let memory = MemoryUse::of(generator.layers(), discriminator.layers(), shape, free);
        Self::with_memory(gpu, (generator, discriminator), config, memory)
            .map_err(|error| memory.explain(error))
    }

    fn with_memory(
        gpu: Arc<Gpu>,
        (generator, discriminator): (&Network, &Network),
        config: &ResidentConfig,
        mut memory: MemoryUse,
    ) -> Result<Self> {
        let plans = gpu.plans(); // no other pass meanwhile
        let of_generator = Trained::new(&gpu, generator, config.precision)?;
        let of_discriminator = Trained::new(&gpu, discriminator, config.precision)?;
        let n = config.batch_size;
        let value = precision_bytes(config.precision);
        let sizes = Sizes::of(generator.layers(), discriminator.layers());
        of_generator.layers.check_norms(n * config.group.size())?;
        of_discriminator.layers.check_norms(n * config.group.size())?;
        let mut step = StepBuffers::default();
        step.scalars.sized(&gpu, 4 * SCALARS)?;
        step.output.sized(&gpu, 4 * ROWS * WIDTH)?;
        step.found.sized(&gpu, 4 * WIDTH)?;
        step.failed.upload(&gpu, &[0_i32])?;
        step.table.upload(&gpu, &config.pixel_values)?;
        step.z.sized(&gpu, n * sizes.z * value)?;
        step.images.sized(&gpu, 2 * n * sizes.image * value)?;
        if sizes.classes > 0 {
            step.labels.sized(&gpu, 8 * n * sizes.classes)?;
        }
        let lengths = [4 * SCALARS, 4 * n * sizes.z, 4 * n * sizes.classes, 8 * n, n * sizes.image];
        let slots = Slots::new(&gpu, &lengths)?;
        // Kept images must leave the memory that the maps of the first steps take.
        let maps = n * memory.maps;
        let bytes = config.dataset_images * sizes.image;
        if bytes > 0 && (bytes + maps) as f64 * 1.2 < gpu.memory_info().0 as f64 {
            let mut kept = Buffer::default();
            if kept.sized(&gpu, bytes).is_ok() {
                (step.kept, memory.kept) = (Some(kept), bytes);
            }
        }
        drop(plans);
        Ok(Self {
            both: Work::default(),
            discriminator_alone: Work::default(),
            generator_alone: Work::default(),
            slots,
            generator: of_generator,
            discriminator: of_discriminator,
            scratch: Scratch::default(),
            step,
            config: config.clone(),
            memory,
            sizes,
            started: Vec::new(),
            outputs: Vec::new(),
            can_capture: true,
            gpus: None,
            gpu,
        })
    }

    fn work(&mut self, updates: Updates) -> &mut Work {
        match updates {
            Updates::Both => &mut self.both,
            Updates::Discriminator => &mut self.discriminator_alone,
            Updates::Generator => &mut self.generator_alone,
        }
    }

    /// Starts the work of a step: as a graph, once every buffer has its size and every convolution its plan.
    fn start(&mut self, plans: &mut Plans, updates: Updates) -> Result<()> {
        if let Some(graph) = &self.work(updates).graph {
            return Ok(graph.0.launch().map_err(driver("launching a graph"))?);
        }
        let has_sizes = self.both.has_run || self.discriminator_alone.has_run && self.generator_alone.has_run;
        if !(self.can_capture && has_sizes && self.work(updates).has_run) {
            self.enqueue(plans, updates)?;
            self.work(updates).has_run = true;
            return Ok(());
        }
        match self.capture(plans, updates) {
            Ok(graph) => {
                graph.launch().map_err(driver("launching a graph"))?;
                self.work(updates).graph = Some(Graph(graph));
                Ok(())
            }
            // An engine of cuDNN may not be captured. The same work runs without a graph, only slower.
            Err(_) => {
                self.can_capture = false;
                self.enqueue(plans, updates)
            }
        }
    }

    fn capture(&mut self, plans: &mut Plans, updates: Updates) -> Result<CudaGraph> {
        let stream = Arc::clone(self.gpu.stream());
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(driver("beginning a capture"))?;
        let enqueued = self.enqueue(plans, updates);
        let flags = sys::CUgraphInstantiate_flags_enum(0);
        let graph = stream.end_capture(flags).map_err(driver("ending a capture"));
        enqueued?;
        graph?.ok_or_else(|| {
            let (name, text) = (String::new(), "the graph is empty".to_owned());
            super::CudaError::Driver { what: "ending a capture", name, text }.into()
        })
    }

    /// The work of a step, from z, images and labels to the new parameters.
    fn enqueue(&mut self, plans: &mut Plans, updates: Updates) -> Result<()> {
        let Self { gpu, gpus, generator, discriminator, scratch, step, config, sizes, .. } = self;
        let gpus = gpus.as_ref();
        let (precision, n) = (config.precision, config.batch_size);
        let labels = step.labels.address(gpu);
        let mut pass = Pass {
            gpu: gpu.as_ref(),
            plans,
            scratch,
            parameters: generator.addresses(gpu),
            precision,
            n,
            groups: 1,
            labels,
            gpus,
            momentum: Some(config.momentum),
        };
        let z = step.z.address(gpu);
        let fake = generator.layers.forward(&mut pass, z)?;
        pass.parameters = discriminator.addresses(gpu);
        let value = pass.bytes();
        if updates.discriminator() {
            let images = step.images.address(gpu);
            let bytes = n * sizes.image * value;
            gpu.copy_bytes(fake, images + bytes as u64, bytes)?;
            // One pass over real and generated images, each with its own statistics.
            (pass.n, pass.groups) = (2 * n, 2);
            let logits = discriminator.layers.forward(&mut pass, images)?;
            let d = pass.scratch.grads[0].sized(gpu, 2 * n * value)?;
            let half = (n * value) as u64;
            bce(&pass, step, (logits, d), (D_LOSS, n, config.real_target))?;
            bce(&pass, step, (logits + half, d + half), (D_LOSS + 2, n, 0.0))?;
            let gradients = Some(discriminator.gradients.address(gpu));
            discriminator.layers.backward(&mut pass, (images, true), gradients, false)?;
            discriminator.update((gpu, gpus), step, &config.adam, (D_NORM, D_LOSS, 2, D_RATE))?;
        }
        if updates.generator() {
            (pass.n, pass.groups, pass.momentum) = (n, 1, None);
            let logits = discriminator.layers.forward(&mut pass, fake)?;
            let d = pass.scratch.grads[0].sized(gpu, n * value)?;
            bce(&pass, step, (logits, d), (G_LOSS, n, 1.0))?;
            discriminator.layers.backward(&mut pass, (fake, true), None, true)?;
            pass.parameters = generator.addresses(gpu);
            let gradients = Some(generator.gradients.address(gpu));
            generator.layers.backward(&mut pass, (z, true), gradients, false)?;
            generator.update((gpu, gpus), step, &config.adam, (G_NORM, G_LOSS, 1, G_RATE))?;
        }
        if let Some(ema) = &generator.ema {
            let len = generator.layers.len;
            #[expect(clippy::cast_possible_truncation, reason = "the state is f32")]
            let decay = Argument::Float(config.ema as f32);
            let (ema, values) = (pointer(ema.address(gpu)), pointer(generator.parameters.address(gpu)));
            let arguments = [ema, values, pointer(step.failed.address(gpu)), decay, int(len)?];
            gpu.launch("ema", elements(len), &arguments)?;
        }
        Ok(())
    }

    /// Reads the outputs of the steps started; waits for them.
    fn read(&mut self) -> Result<()> {
        if self.started.is_empty() {
            return Ok(());
        }
        let values = self.step.output.download(&self.gpu, self.started.len() * WIDTH)?;
        for (updates, row) in self.started.drain(..).zip(values.chunks_exact(WIDTH)) {
            let loss = |at: usize| LossValue { loss: row[at], probability: row[at + 1] };
            let gradient = |at: usize, trained: &Trained| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "-1 or a number")]
                let bad = (row[at + 1] >= 0.0).then(|| row[at + 1] as usize);
                let not_finite = bad.and_then(|bad| trained.names.get(bad).cloned());
                GradientValue { norm: row[at], not_finite }
            };
            let (d, g) = (&self.discriminator, &self.generator);
            let of_d = || (loss(D_LOSS), loss(D_LOSS + 2), gradient(D_NORM, d));
            self.outputs.push(ResidentOutput {
                discriminator: updates.discriminator().then(of_d),
                generator: updates.generator().then(|| (loss(G_LOSS), gradient(G_NORM, g))),
            });
        }
        Ok(())
    }
}

impl Drop for CudaTraining {
    fn drop(&mut self) {
        // A graph that still runs must not be destroyed. A failure cannot be handled here.
        let _ = self.gpu.bind().and_then(|()| self.gpu.synchronize());
    }
}

/// Values of an image, of z and of a label.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    image: usize,
    width: usize,
    channels: usize,
    z: usize,
    classes: usize,
}

impl Sizes {
    fn of(generator: &[Layer], discriminator: &[Layer]) -> Self {
        let classes = generator.iter().chain(discriminator);
        Self {
            image: discriminator.first().map_or(0, |layer| layer.input.len()),
            width: discriminator.first().map_or(0, |layer| layer.input.width),
            channels: discriminator.first().map_or(0, |layer| layer.input.channels),
            z: generator.first().map_or(0, |layer| layer.input.len()),
            classes: classes.map(|layer| layer.label_channels.max(layer.label_inputs)).max().unwrap_or(0),
        }
    }
}

/// The loss of `n` logits of this process and its gradient: addresses of both, the column of the output, n and the
/// target.
fn bce(
    pass: &Pass<'_>,
    step: &StepBuffers,
    (logits, gradient): (u64, u64),
    (column, n, target): (usize, usize, f64),
) -> gpu::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "a target like 0.9")]
    let target = Argument::Float(target as f32);
    let found = pointer(step.found.address(pass.gpu));
    let total = int(n * pass.gpus.map_or(1, Gpus::size))?;
    let arguments = [pointer(logits), pointer(gradient), found, int(column)?, int(n)?, total, target];
    pass.gpu.launch(&pass.name("bce"), (1, 1), &arguments)
}

impl CudaTraining {
    fn take(&mut self, input: ResidentInput<'_>) -> Result<()> {
        let (n, sizes) = (self.config.batch_size, self.sizes);
        let check = |what: &str, len: usize, found: usize| match found == n * len {
            true => Ok(()),
            false => Err(OpsError::Shape {
                what: what.to_owned(),
                expected: format!("({n}, {len})"),
                found: vec![found],
            }),
        };
        let labels = input.labels.unwrap_or_default();
        let keeps = self.step.kept.is_some();
        if !(keeps && input.pixels.is_empty()) {
            check("the images of a step", sizes.image, input.pixels.len())?;
        }
        check("the sources of the images of a step", usize::from(keeps), input.images.len())?;
        check("the z of a step", sizes.z, input.z.len())?;
        check("the labels of a step", sizes.classes, labels.len())?;
        self.gpu.bind()?;
        if self.gpus.is_none() && self.config.group.size() > 1 {
            self.gpus = Some(Gpus::connect(self.config.group.as_ref())?);
        }
        // To the end of the step: work of other threads must not be captured.
        let gpu = Arc::clone(&self.gpu);
        let mut plans = gpu.plans();
        if self.started.len() == ROWS {
            self.read()?;
        }
        let mut scalars = [0.0_f32; SCALARS];
        #[expect(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
        let mut rates = |trained: &mut Trained, at: usize| {
            trained.adam_steps += 1;
            let adam = AdamConfig { learning_rate: input.learning_rate, ..self.config.adam };
            let (rate, root) = adam.corrections(trained.adam_steps);
            (scalars[at], scalars[at + 1]) = (rate as f32, root as f32);
        };
        if input.updates.discriminator() {
            rates(&mut self.discriminator, D_RATE);
            self.discriminator.has_statistics = true;
        }
        if input.updates.generator() {
            rates(&mut self.generator, G_RATE);
        }
        self.generator.has_statistics = true;
        scalars[0] = self.started.len() as f32;
        let images = self.config.dataset_images;
        if let Some(image) = input.images.iter().find(|image| image.index as usize >= images) {
            let what = format!("image {} of a step", image.index);
            return Err(OpsError::Shape { what, expected: format!("below {images}"), found: vec![] });
        }
        // A number, and the bits that `kernels.cu` names.
        let sources: Vec<[u32; 2]> = input
            .images
            .iter()
            .map(|image| [image.index, u32::from(image.is_mirrored) | u32::from(image.is_given) << 1])
            .collect();
        let contents = [
            bytemuck::cast_slice(&scalars),
            bytemuck::cast_slice(input.z),
            bytemuck::cast_slice(labels),
            bytemuck::cast_slice(&sources),
            input.pixels,
        ];
        let [of_scalars, of_z, of_labels, of_sources, of_pixels] = self.slots.fill(contents)?;
        let step = &self.step;
        let of = |buffer: &Buffer| pointer(buffer.address(&gpu));
        let arguments = [
            pointer(of_scalars),
            of(&step.scalars),
            pointer(of_z),
            of(&step.z),
            int(input.z.len())?,
            pointer(of_labels),
            of(&step.labels),
            int(labels.len())?,
            Argument::Int(2),
            pointer(of_pixels),
            pointer(step.kept.as_ref().map_or(0, |kept| kept.address(&gpu))),
            pointer(of_sources),
            int(self.sizes.width)?,
            int(self.sizes.channels)?,
            int(sizes.image)?,
            of(&step.table),
            of(&step.images),
            int(n * sizes.image)?,
        ];
        let kernel = match self.config.precision {
            Precision::F32 => "step_input_f32",
            Precision::Bf16 => "step_input_bf16",
        };
        let total = n * sizes.image + input.z.len() + labels.len() + SCALARS;
        gpu.launch(kernel, elements(total), &arguments)?;
        self.slots.consumed()?;
        self.start(&mut plans, input.updates)?;
        self.started.push(input.updates);
        Ok(())
    }
}

impl ResidentTraining for CudaTraining {
    fn keeps_images(&self) -> bool {
        self.step.kept.is_some()
    }

    fn step(&mut self, input: ResidentInput<'_>) -> Result<()> {
        self.take(input).map_err(|error| self.memory.explain(error))
    }

    fn outputs(&mut self) -> Result<Vec<ResidentOutput>> {
        self.gpu.bind()?;
        let gpu = Arc::clone(&self.gpu);
        let _plans = gpu.plans();
        self.read()?;
        Ok(std::mem::take(&mut self.outputs))
    }

    fn store(&mut self, generator: &mut Network, discriminator: &mut Network) -> Result<()> {
        self.gpu.bind()?;
        let _plans = self.gpu.plans();
        let n = self.config.batch_size * self.config.group.size();
        self.generator.store(&self.gpu, generator, n)?;
        self.discriminator.store(&self.gpu, discriminator, n)
    }
}
