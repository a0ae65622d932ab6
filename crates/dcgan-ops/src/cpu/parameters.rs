//! A network's parameters, gradients and moments in flat buffers, and the fused Adam over them.
//!
//! Outside, tensors have PyTorch's layouts; inside, weights are `(kernel_h, kernel_w, c_fine, c_coarse)` and per-unit
//! vectors `(h, w, c)`, so that maps can be channels-last.

use super::dispatch::vectorised;
use super::kernels::LANES;
use crate::executor::check_shape;
use crate::{AdamConfig, AdamState, Layer, Moments, OpsError, ParameterSpec, Result, Tensors};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Values of one parallel part of an Adam step.
const PART: usize = 64 * 1024;

/// One tensor in the flat buffers.
#[derive(Debug)]
struct Slot {
    spec: ParameterSpec,
    range: Range<usize>,
}

/// Flat parameters, gradients and moments of one network.
#[derive(Debug)]
pub(super) struct Parameters {
    slots: Vec<Slot>,
    pub(super) values: Vec<f32>,
    pub(super) gradients: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    step: u64,
    /// Another after each change of the values, from 1.
    pub(super) version: u64,
    average: Option<Vec<f32>>,
}

/// PyTorch's layout to ours: the axes in the new order. A weight is `(coarse, fine, h, w)` for both kinds of layer.
fn inward(rank: usize) -> &'static [usize] {
    match rank {
        4 => &[2, 3, 1, 0],
        3 => &[1, 2, 0],
        _ => &[0],
    }
}

/// Our layout to PyTorch's, and the shape of ours.
fn outward(shape: &[usize]) -> (Vec<usize>, &'static [usize]) {
    let inside: Vec<usize> = inward(shape.len()).iter().map(|&axis| shape[axis]).collect();
    let back: &[usize] = match shape.len() {
        4 => &[3, 2, 0, 1],
        3 => &[2, 0, 1],
        _ => &[0],
    };
    (inside, back)
}

/// The values of a tensor in our layout.
pub(super) fn to_inside(tensor: &Tensor) -> Result<Vec<f32>> {
    let host = tensor.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?;
    Ok(host.permute(inward(tensor.rank()))?.contiguous()?.flatten_all()?.to_vec1()?)
}

/// A tensor in PyTorch's layout from values in ours.
pub(super) fn to_outside(values: &[f32], shape: &[usize]) -> Result<Tensor> {
    let (inside, back) = outward(shape);
    Ok(Tensor::from_slice(values, inside, &Device::Cpu)?.permute(back)?.contiguous()?)
}

impl Parameters {
    pub(super) fn new(layers: &[Layer]) -> Self {
        let mut slots = Vec::new();
        let mut end = 0;
        for spec in layers.iter().flat_map(Layer::parameters) {
            let start = end;
            end += spec.shape.iter().product::<usize>();
            slots.push(Slot { spec, range: start..end });
        }
        let zeros = || vec![0.0; end];
        Self {
            slots,
            values: zeros(),
            gradients: zeros(),
            first: zeros(),
            second: zeros(),
            step: 0,
            version: 1,
            average: None,
        }
    }

    /// Where the tensor `layer.suffix` lies, if the layer has it.
    pub(super) fn range(&self, layer: &Layer, suffix: &str) -> Option<Range<usize>> {
        let is = |name: &str| name.strip_prefix(layer.name.as_str()) == Some(&format!(".{suffix}"));
        self.slots.iter().find(|slot| is(&slot.spec.name)).map(|slot| slot.range.clone())
    }

    fn export(&self, values: &[f32]) -> Result<Tensors> {
        let one = |slot: &Slot| {
            Ok((slot.spec.name.clone(), to_outside(&values[slot.range.clone()], &slot.spec.shape)?))
        };
        self.slots.iter().map(one).collect()
    }

    fn import<'a>(&self, find: impl Fn(&str) -> Option<&'a Tensor>) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.values.len()];
        for slot in &self.slots {
            let name = &slot.spec.name;
            let given = find(name).ok_or_else(|| OpsError::Missing { name: name.clone() })?;
            check_shape(name, &slot.spec.shape, given)?;
            values[slot.range.clone()].copy_from_slice(&to_inside(given)?);
        }
        Ok(values)
    }

    pub(super) fn tensors(&self) -> Result<Tensors> {
        self.export(&self.values)
    }

    pub(super) fn gradient_tensors(&self) -> Result<Tensors> {
        self.export(&self.gradients)
    }

    pub(super) fn set(&mut self, tensors: &Tensors) -> Result<()> {
        self.values = self.import(|name| tensors.get(name))?;
        self.version += 1;
        Ok(())
    }

    pub(super) fn adam_state(&self) -> Result<AdamState> {
        let mut second = self.export(&self.second)?;
        let mut moments = std::collections::BTreeMap::new();
        for (name, first) in self.export(&self.first)? {
            let second = second.remove(&name).ok_or_else(|| OpsError::Missing { name: name.clone() })?;
            moments.insert(name, Moments { first, second });
        }
        Ok(AdamState { step: self.step, moments })
    }

    pub(super) fn set_adam_state(&mut self, state: &AdamState) -> Result<()> {
        let first = self.import(|name| state.moments.get(name).map(|m| &m.first))?;
        self.second = self.import(|name| state.moments.get(name).map(|m| &m.second))?;
        self.first = first;
        self.step = state.step;
        Ok(())
    }

    pub(super) fn set_ema(&mut self, average: &Tensors) -> Result<()> {
        self.average = Some(self.import(|name| average.get(name))?);
        Ok(())
    }

    pub(super) fn average(&self) -> Result<Option<Tensors>> {
        self.average.as_ref().map(|average| self.export(average)).transpose()
    }

    pub(super) fn update_ema(&mut self, decay: f32) {
        let Some(average) = &mut self.average else { return };
        let parts = average.par_chunks_mut(PART).zip(self.values.par_chunks(PART));
        parts.for_each(|(average, values)| blend(average, values, decay));
    }

    pub(super) fn zero_gradients(&mut self) {
        self.gradients.par_chunks_mut(PART).for_each(|part| part.fill(0.0));
    }

    pub(super) fn gradient_norms(&self) -> Vec<(String, f64)> {
        let norm = |slot: &Slot| {
            // Parts and their order are fixed, so the sum is the same for any number of threads.
            let parts: Vec<f64> = self.gradients[slot.range.clone()]
                .par_chunks(PART)
                .map(|part| {
                    let mut sums = [0.0; LANES];
                    squares(part, &mut sums);
                    sums.iter().sum()
                })
                .collect();
            (slot.spec.name.clone(), parts.iter().sum::<f64>().sqrt())
        };
        self.slots.iter().map(norm).collect()
    }

    pub(super) fn adam_step(&mut self, config: &AdamConfig) {
        self.step += 1;
        self.version += 1;
        let (rate, root) = config.corrections(self.step);
        let numbers = Numbers {
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
            .par_chunks_mut(PART)
            .zip(self.gradients.par_chunks(PART))
            .zip(self.first.par_chunks_mut(PART))
            .zip(self.second.par_chunks_mut(PART))
            .for_each(|(((p, g), m), v)| adam(p, g, m, v, &numbers));
    }
}

#[derive(Debug)]
struct Numbers {
    decay: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    rate: f32,
    root: f32,
    eps: f32,
}

vectorised! {
    /// Sums of the squares of every sixteenth value.
    fn squares(values: &[f32], sums: &mut [f64; LANES]) {
        let (whole, rest) = values.as_chunks::<LANES>();
        let add = |(sum, &value): (&mut f64, &f32)| *sum += f64::from(value) * f64::from(value);
        for values in whole {
            sums.iter_mut().zip(values).for_each(add);
        }
        sums.iter_mut().zip(rest).for_each(add);
    }

    fn blend(average: &mut [f32], values: &[f32], decay: f32) {
        for (a, v) in average.iter_mut().zip(values) {
            *a = decay * *a + (1.0 - decay) * v;
        }
    }

    fn adam(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], n: &Numbers) {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g + n.decay * *p;
            *m = n.beta1 * *m + n.rest1 * g;
            *v = n.beta2 * *v + n.rest2 * g * g;
            *p -= n.rate * (*m / (v.sqrt() / n.root + n.eps));
        }
    }
}
