//! Parameters, gradients, Adam's moments and the EMA of one network: flat buffers and one table of what lies where.
//!
//! The optimizer, the EMA, gradient norms, saving and loading work on the buffers once, whatever executor computes. The
//! buffers are in host memory; an executor keeps its own copy of the values where it needs one and refreshes it when
//! [`Parameters::version`] changes.

#![allow(
    clippy::cast_possible_truncation,
    reason = "rounding f64 to f32 is meant: state is f32, sums are f64"
)]

use crate::cpu::dispatch::vectorized;
use crate::cpu::kernels::LANES;
use crate::{
    AdamConfig, AdamMoments, AdamState, Layer, OpsError, ProcessGroup, Result, Role, Tensors, group,
};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Values that one task of a parallel loop works on.
const CHUNK: usize = 64 * 1024;

/// How the values of a tensor lie in the flat buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As in PyTorch: row-major.
    RowMajor,
    /// For channels-last maps: weights `(kh, kw, c_fine, c_coarse)`, where a weight in PyTorch's layout is
    /// `(coarse, fine, kh, kw)` for both kinds of layer; tensors per activation `(h, w, c)`; weights of labels
    /// `(classes, c)`.
    ChannelsLast,
    /// As `ChannelsLast`, but weights `(c_coarse, kh, kw, c_fine)`: the filters of cuDNN.
    Filters,
}

impl Layout {
    /// The axes of PyTorch's layout in the order of this one, and the way back.
    fn axes(self, rank: usize) -> (&'static [usize], &'static [usize]) {
        match (self, rank) {
            (Self::ChannelsLast, 4) => (&[2, 3, 1, 0], &[3, 2, 0, 1]),
            (Self::Filters, 4) => (&[0, 2, 3, 1], &[0, 3, 1, 2]),
            (Self::ChannelsLast | Self::Filters, 3) => (&[1, 2, 0], &[2, 0, 1]),
            (Self::ChannelsLast | Self::Filters, 2) => (&[1, 0], &[1, 0]),
            (_, 4) => (&[0, 1, 2, 3], &[0, 1, 2, 3]),
            (_, 3) => (&[0, 1, 2], &[0, 1, 2]),
            (_, 2) => (&[0, 1], &[0, 1]),
            _ => (&[0], &[0]),
        }
    }

    /// The values of a tensor in this layout.
    ///
    /// # Errors
    /// Those of candle.
    pub fn values(self, tensor: &Tensor) -> Result<Vec<f32>> {
        let host = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(host.permute(self.axes(tensor.rank()).0)?.contiguous()?.flatten_all()?.to_vec1()?)
    }

    /// A tensor in PyTorch's layout from values in this one.
    ///
    /// # Errors
    /// Those of candle: a number of values that does not fit the shape.
    pub fn tensor(self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        let (to, back) = self.axes(shape.len());
        let inner: Vec<usize> = to.iter().map(|&axis| shape[axis]).collect();
        Ok(Tensor::from_slice(values, inner, &Device::Cpu)?.permute(back)?.contiguous()?)
    }
}

/// One parameter in the flat buffers.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Full name.
    pub name: String,
    /// Shape in PyTorch's layout.
    pub shape: Vec<usize>,
    /// Its role.
    pub role: Role,
    /// How its values lie in the buffers.
    pub layout: Layout,
    /// Where they lie.
    pub range: Range<usize>,
}

/// The table of a network's parameters, in the order of its layers.
#[derive(Clone, Debug)]
pub struct ParameterTable(Vec<Entry>);

impl ParameterTable {
    /// The table of `layers` in the given layout.
    pub fn new(layers: &[Layer], layout: Layout) -> Self {
        let mut end = 0;
        let entries = layers.iter().flat_map(Layer::parameters).map(|tensor| {
            let start = end;
            end += tensor.shape.iter().product::<usize>();
            let (name, shape, role) = (tensor.name, tensor.shape, tensor.role);
            Entry { name, shape, role, layout, range: start..end }
        });
        Self(entries.collect())
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Values of all tensors together.
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |entry| entry.range.end)
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the tensor of `layer` with the role lies, if the layer has it.
    pub fn range(&self, layer: &Layer, role: Role) -> Option<Range<usize>> {
        let name = layer.tensor_name(role);
        self.0.iter().find(|entry| entry.name == name).map(|entry| entry.range.clone())
    }

    /// Named tensors from flat values.
    fn tensors(&self, values: &[f32]) -> Result<Tensors> {
        let tensor = |entry: &Entry| {
            Ok((entry.name.clone(), entry.layout.tensor(&values[entry.range.clone()], &entry.shape)?))
        };
        self.0.iter().map(tensor).collect()
    }

    /// Flat values from named tensors.
    fn flat<'a>(&self, find: impl Fn(&str) -> Option<&'a Tensor>) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.len()];
        for Entry { name, shape, layout, range, .. } in &self.0 {
            let given = find(name).ok_or_else(|| OpsError::Missing { name: name.clone() })?;
            crate::executor::check_shape(name, shape, given)?;
            values[range.clone()].copy_from_slice(&layout.values(given)?);
        }
        Ok(values)
    }
}

/// The parameters' values, as an executor reads them.
#[derive(Clone, Copy, Debug)]
pub struct ParameterValues<'a> {
    /// The flat values.
    pub flat: &'a [f32],
    /// Equal versions mean equal values, over all networks of the process.
    pub version: u64,
}

/// The parameters of one network with their gradients, Adam's state and the EMA.
#[derive(Debug)]
pub struct Parameters {
    table: ParameterTable,
    values: Vec<f32>,
    version: u64,
    gradients: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    adam_steps: u64,
    ema: Option<Vec<f32>>,
    /// Memory for sums over processes.
    received: Vec<f32>,
}

/// A version that no parameters have had.
fn next_version() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

impl Parameters {
    /// Parameters of `layers`, all zero.
    pub fn new(layers: &[Layer], layout: Layout) -> Self {
        Self::in_shards(layers, layout, 1)
    }

    /// The same with gradients for each of several shards.
    pub fn in_shards(layers: &[Layer], layout: Layout, shards: usize) -> Self {
        let table = ParameterTable::new(layers, layout);
        let zeros = || vec![0.0; table.len()];
        let (values, first, second) = (zeros(), zeros(), zeros());
        let gradients = vec![0.0; shards * table.len()];
        let version = next_version();
        let (adam_steps, ema, received) = (0, None, Vec::new());
        Self { table, values, version, gradients, first, second, adam_steps, ema, received }
    }

    /// What lies where.
    pub fn table(&self) -> &ParameterTable {
        &self.table
    }

    /// The values.
    pub fn values(&self) -> ParameterValues<'_> {
        ParameterValues { flat: &self.values, version: self.version }
    }

    /// The values, and the gradients to add to.
    pub fn values_and_gradients(&mut self) -> (ParameterValues<'_>, &mut [f32]) {
        (ParameterValues { flat: &self.values, version: self.version }, &mut self.gradients)
    }

    /// The flat gradients; of the whole batch after [`Parameters::reduce_gradients`].
    pub fn flat_gradients(&self) -> &[f32] {
        &self.gradients[..self.table.len()]
    }

    /// A copy of the parameters in PyTorch's layouts.
    ///
    /// # Errors
    /// Those of candle.
    pub fn tensors(&self) -> Result<Tensors> {
        self.table.tensors(&self.values)
    }

    /// Replaces the parameters; the optimizer's state stays.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn set(&mut self, tensors: &Tensors) -> Result<()> {
        self.values = self.table.flat(|name| tensors.get(name))?;
        self.version = next_version();
        Ok(())
    }

    /// Sets all gradients to zero.
    pub fn zero_gradients(&mut self) {
        self.gradients.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0));
    }

    /// The gradients summed since [`Parameters::zero_gradients`], in PyTorch's layouts.
    ///
    /// # Errors
    /// Those of candle.
    pub fn gradients(&self) -> Result<Tensors> {
        self.table.tensors(self.flat_gradients())
    }

    /// Sums the gradients over the shards of all processes of `group`, as a balanced tree.
    ///
    /// # Errors
    /// Those of the group.
    pub fn reduce_gradients(&mut self, group: &dyn ProcessGroup) -> Result<()> {
        let len = self.table.len();
        group::sum_tree(&mut self.gradients, len);
        group::sum_gradients(group, &mut self.gradients[..len], &mut self.received)
    }

    /// Euclidean norm of each parameter's gradient, in the order of the layers. Not finite where the gradient is not.
    pub fn gradient_norms(&self) -> Vec<(String, f64)> {
        let norm = |entry: &Entry| {
            // Chunks and their order are fixed, so the sum is the same for any number of threads.
            let chunks: Vec<f64> = self.flat_gradients()[entry.range.clone()]
                .par_chunks(CHUNK)
                .map(|chunk| {
                    let mut sums = [0.0; LANES];
                    squares(chunk, &mut sums);
                    sums.iter().sum()
                })
                .collect();
            (entry.name.clone(), chunks.iter().sum::<f64>().sqrt())
        };
        self.table.0.iter().map(norm).collect()
    }

    /// One Adam step on every parameter.
    pub fn adam_step(&mut self, config: &AdamConfig) {
        self.adam_steps += 1;
        self.version = next_version();
        let (rate, root) = config.corrections(self.adam_steps);
        let coefficients = Coefficients {
            decay: config.weight_decay as f32,
            beta1: config.beta1 as f32,
            rest1: (1.0 - config.beta1) as f32,
            beta2: config.beta2 as f32,
            rest2: (1.0 - config.beta2) as f32,
            rate: rate as f32,
            root: root as f32,
            eps: config.eps as f32,
        };
        self.values
            .par_chunks_mut(CHUNK)
            .zip(self.gradients[..self.table.len()].par_chunks(CHUNK))
            .zip(self.first.par_chunks_mut(CHUNK))
            .zip(self.second.par_chunks_mut(CHUNK))
            .for_each(|(((p, g), m), v)| adam(p, g, m, v, &coefficients));
    }

    /// Replaces values, moments, steps and EMA by those of rank 0.
    ///
    /// # Errors
    /// Those of the group.
    pub(crate) fn broadcast(&mut self, group: &dyn ProcessGroup) -> Result<()> {
        let buffers = [&mut self.values, &mut self.first, &mut self.second];
        for buffer in buffers.into_iter().chain(&mut self.ema) {
            group.broadcast(bytemuck::cast_slice_mut(buffer), 0)?;
        }
        let mut steps = self.adam_steps.to_le_bytes();
        group.broadcast(&mut steps, 0)?;
        self.adam_steps = u64::from_le_bytes(steps);
        self.version = next_version();
        Ok(())
    }

    /// Adds values and moments to a digest: processes that train together must have the same.
    pub fn digest(&self, digest: &mut dcgan_base::digest::Digest) {
        for values in [&self.values, &self.first, &self.second] {
            digest.field(bytemuck::cast_slice::<f32, u8>(values));
        }
    }

    /// A copy of Adam's state.
    ///
    /// # Errors
    /// Those of candle.
    pub fn adam_state(&self) -> Result<AdamState> {
        let mut second = self.table.tensors(&self.second)?;
        let mut moments = BTreeMap::new();
        for (name, first) in self.table.tensors(&self.first)? {
            let second = second.remove(&name).ok_or_else(|| OpsError::Missing { name: name.clone() })?;
            moments.insert(name, AdamMoments { first, second });
        }
        Ok(AdamState { step: self.adam_steps, moments })
    }

    /// Replaces Adam's state.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn set_adam_state(&mut self, state: &AdamState) -> Result<()> {
        let first = self.table.flat(|name| state.moments.get(name).map(|m| &m.first))?;
        self.second = self.table.flat(|name| state.moments.get(name).map(|m| &m.second))?;
        self.first = first;
        self.adam_steps = state.step;
        Ok(())
    }

    /// Starts an exponential moving average (EMA) of the parameters from these values.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn set_ema(&mut self, ema: &Tensors) -> Result<()> {
        self.ema = Some(self.table.flat(|name| ema.get(name))?);
        Ok(())
    }

    /// `ema = decay ema + (1 - decay) parameters`; nothing where none was started.
    pub fn update_ema(&mut self, decay: f64) {
        let Some(ema) = &mut self.ema else { return };
        let chunks = ema.par_chunks_mut(CHUNK).zip(self.values.par_chunks(CHUNK));
        chunks.for_each(|(ema, values)| blend(ema, values, decay as f32));
    }

    /// A copy of the EMA in PyTorch's layouts, where one was started.
    ///
    /// # Errors
    /// Those of candle.
    pub fn ema(&self) -> Result<Option<Tensors>> {
        self.ema.as_ref().map(|ema| self.table.tensors(ema)).transpose()
    }
}

/// Everything but gradients, as it lies in the flat buffers.
#[cfg(feature = "cuda")]
#[derive(Debug)]
pub(crate) struct FlatState<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) first: &'a mut [f32],
    pub(crate) second: &'a mut [f32],
    pub(crate) ema: Option<&'a mut [f32]>,
    pub(crate) adam_steps: &'a mut u64,
}

#[cfg(feature = "cuda")]
impl Parameters {
    /// The moments, the EMA and the number of Adam's steps.
    pub(crate) fn optimizer(&self) -> (&[f32], &[f32], Option<&[f32]>, u64) {
        (&self.first, &self.second, self.ema.as_deref(), self.adam_steps)
    }

    /// The state, to replace.
    pub(crate) fn state_mut(&mut self) -> FlatState<'_> {
        self.version = next_version();
        FlatState {
            values: &mut self.values,
            first: &mut self.first,
            second: &mut self.second,
            ema: self.ema.as_deref_mut(),
            adam_steps: &mut self.adam_steps,
        }
    }
}

#[derive(Debug)]
struct Coefficients {
    decay: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    rate: f32,
    root: f32,
    eps: f32,
}

vectorized! {
    /// Sums of the squares of every sixteenth value.
    fn squares(values: &[f32], sums: &mut [f64; LANES]) {
        let (whole, rest) = values.as_chunks::<LANES>();
        let add = |(sum, &value): (&mut f64, &f32)| *sum += f64::from(value) * f64::from(value);
        for values in whole {
            sums.iter_mut().zip(values).for_each(add);
        }
        sums.iter_mut().zip(rest).for_each(add);
    }

    fn blend(ema: &mut [f32], values: &[f32], decay: f32) {
        for (a, v) in ema.iter_mut().zip(values) {
            *a = decay * *a + (1.0 - decay) * v;
        }
    }

    fn adam(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], n: &Coefficients) {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g + n.decay * *p;
            *m = n.beta1 * *m + n.rest1 * g;
            *v = n.beta2 * *v + n.rest2 * g * g;
            *p -= n.rate * (*m / (v.sqrt() / n.root + n.eps));
        }
    }
}
