//! A layer list on a GPU: the buffers of its layers, where its parameters lie, and passes over maps of the GPU.

use super::gpu::{self, Buffer, elements, int};
use super::layer::{LayerState, Parameters, Pass, Places, pointer};
use crate::{Layer, Layout, OpsError, ParameterTable, Precision, Result};
use std::ops::Range;

/// Parameters start at multiples of this many values, as cuDNN's pointers must, in f32 and in bf16.
const ALIGNMENT: usize = 8;

/// The layers of a network with their buffers.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) layers: Vec<Layer>,
    pub(super) states: Vec<LayerState>,
    /// Where each parameter lies in the host's flat buffer and in the GPU's.
    places: Vec<(Range<usize>, usize)>,
    /// Values of the GPU's flat buffers.
    pub(super) len: usize,
}

impl Layers {
    pub(super) fn new(layers: Vec<Layer>) -> Self {
        let table = ParameterTable::new(&layers, Layout::Filters);
        let mut places = Vec::new();
        let mut len = 0;
        for entry in table.entries() {
            places.push((entry.range.clone(), len));
            len += entry.range.len().next_multiple_of(ALIGNMENT);
        }
        let padded = |range: Range<usize>| {
            let found = places.iter().find(|(host, _)| *host == range);
            found.map_or(0..0, |(host, start)| *start..start + host.len())
        };
        let states = layers
            .iter()
            .map(|layer| LayerState::new(Places::of(|role| table.range(layer, role).map(padded))))
            .collect();
        Self { layers, states, places, len }
    }

    /// Where each parameter lies in the GPU's flat buffers, in the order of [`ParameterTable::entries`].
    pub(super) fn tensors(&self) -> impl Iterator<Item = Range<usize>> {
        self.places.iter().map(|(host, start)| *start..start + host.len())
    }

    /// The host's flat values as they lie on the GPU, zeros between the tensors.
    pub(super) fn padded(&self, flat: &[f32]) -> Vec<f32> {
        let mut padded = vec![0.0; self.len];
        for (host, start) in &self.places {
            padded[*start..*start + host.len()].copy_from_slice(&flat[host.clone()]);
        }
        padded
    }

    /// Calls `each` with every pair of a value of the host's flat buffer and one of the GPU's.
    pub(super) fn for_each_pair(&self, flat: &mut [f32], padded: &[f32], each: impl Fn(&mut f32, f32)) {
        for (host, start) in &self.places {
            let values = flat[host.clone()].iter_mut().zip(&padded[*start..]);
            values.for_each(|(value, &found)| each(value, found));
        }
    }

    /// Writes the bf16 copy of parameters in f32, where maps are bf16.
    pub(super) fn narrow(
        &self,
        gpu: &gpu::Gpu,
        precision: Precision,
        wide: u64,
        copy: &mut Buffer,
    ) -> gpu::Result<Parameters> {
        if precision == Precision::F32 {
            return Ok(Parameters { wide, narrow: 0 });
        }
        let narrow = copy.sized(gpu, 2 * self.len)?;
        gpu.launch("narrow", elements(self.len), &[pointer(wide), pointer(narrow), int(self.len)?])?;
        Ok(Parameters { wide, narrow })
    }

    /// Refuses a batch of `n` images in which a batch norm layer would have one value for a mean.
    pub(super) fn check_norms(&self, n: usize) -> Result<()> {
        let is_single = |layer: &&Layer| layer.norm.is_some() && n * layer.output.len() / layer.columns() < 2;
        match self.layers.iter().find(is_single) {
            Some(layer) => Err(OpsError::SingleValue { layer: layer.name.clone() }),
            None => Ok(()),
        }
    }

    /// A forward pass in training mode from the maps at `source`; the address of the last activation.
    pub(super) fn forward(&mut self, pass: &mut Pass<'_>, mut source: u64) -> gpu::Result<u64> {
        for (layer, state) in self.layers.iter().zip(&mut self.states) {
            state.forward(layer, pass, source, None)?;
            source = state.activation(pass.gpu);
        }
        Ok(source)
    }

    /// A backward pass of the last forward pass from `source`. The gradient with respect to the output is in the first
    /// of the pass's `grads`. Gradients of the parameters go to the flat buffer `gradients`, where it is given; returns
    /// the address of that with respect to the input, where it is asked for.
    pub(super) fn backward(
        &mut self,
        pass: &mut Pass<'_>,
        (source, is_train): (u64, bool),
        gradients: Option<u64>,
        wants_input: bool,
    ) -> gpu::Result<u64> {
        let gpu = pass.gpu;
        let mut d = pass.scratch.grads[0].address(gpu);
        for i in (0..self.layers.len()).rev() {
            let layer = &self.layers[i];
            let (before, rest) = self.states.split_at_mut(i);
            let Some(state) = rest.first_mut() else { break };
            let source = before.last().map_or(source, |state| state.activation(gpu));
            let out = match i > 0 || wants_input {
                true => Some(pass.scratch.grads[1].sized(gpu, pass.n * layer.input.len() * pass.bytes())?),
                false => None,
            };
            state.backward(layer, pass, (source, is_train), d, gradients, out)?;
            if let Some(out) = out {
                d = out;
                pass.scratch.grads.swap(0, 1);
            }
        }
        Ok(d)
    }
}
