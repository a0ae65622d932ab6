//! The executor that goes through candle's autograd: any device; the plain reference beside the fused one.

use crate::candle_layers::to_device;
use crate::{
    CandleLayers, Device, Executor, Forward, ForwardHook, Input, Keep, Layer, Layout, Maps, Mode, OpsError,
    ParameterTable, ParameterValues, ProcessGroup, Result, SingleProcess, Tensors, WithRespectTo,
};
use candle_core::{Tensor, Var};
use std::collections::BTreeMap;

/// Runs a layer list by candle's own operations and autograd ([`CandleLayers`]).
///
/// Parameters, batches and gradients are in host memory between passes and copied to the device and back.
#[derive(Debug)]
pub struct CandleExecutor {
    layers: Vec<Layer>,
    table: ParameterTable,
    device: Device,
    /// The parameters on the device, and the version that they are of.
    network: Option<(u64, CandleLayers, BTreeMap<String, Var>)>,
    tape: Option<Tape>,
}

#[derive(Debug)]
struct Tape {
    input: Var,
    output: Tensor,
}

impl CandleExecutor {
    /// An executor of `layers` on `device`.
    pub fn new(layers: Vec<Layer>, device: &candle_core::Device) -> Self {
        let table = ParameterTable::new(&layers, Layout::RowMajor);
        Self { layers, table, device: Device::Candle(device.clone()), network: None, tape: None }
    }

    /// Copies the parameters to the device where they have changed.
    fn refresh(&mut self, parameters: ParameterValues<'_>) -> Result<()> {
        if self.network.as_ref().is_some_and(|(version, ..)| *version == parameters.version) {
            return Ok(());
        }
        let (mut vars, mut tensors) = (BTreeMap::new(), Tensors::new());
        for entry in self.table.entries() {
            let values = &parameters.flat[entry.range.clone()];
            let var = Var::from_tensor(
                &entry.layout.tensor(values, &entry.shape)?.to_device(self.device.for_tensors())?,
            )?;
            tensors.insert(entry.name.clone(), var.as_tensor().clone());
            vars.insert(entry.name.clone(), var);
        }
        self.network = Some((parameters.version, CandleLayers::new(self.layers.clone(), tensors)?, vars));
        Ok(())
    }
}

impl Executor for CandleExecutor {
    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn layout(&self) -> Layout {
        Layout::RowMajor
    }

    fn group(&self) -> &dyn ProcessGroup {
        &SingleProcess
    }

    fn forward(
        &mut self,
        parameters: ParameterValues<'_>,
        input: Input<'_>,
        mode: Mode<'_>,
        keep: Keep,
        hook: Option<ForwardHook<'_>>,
    ) -> Result<Forward> {
        crate::executor::check_input(&self.layers, input)?;
        self.tape = None;
        self.refresh(parameters)?;
        let Some((_, network, _)) = &self.network else { return Err(OpsError::NoTape) };
        let x = Var::from_tensor(&to_device(input.maps, self.device.for_tensors())?)?;
        let labels = input.labels.map(|labels| to_device(labels, self.device.for_tensors())).transpose()?;
        let pass = network.forward(x.as_tensor(), labels.as_ref(), mode)?;
        let activations: Vec<Maps> = if keep == Keep::Activations || hook.is_some() {
            pass.activations.iter().map(Maps::from_tensor).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        if let Some(hook) = hook {
            for (layer, maps) in activations.iter().enumerate() {
                (0..maps.n()).for_each(|image| hook(layer, image, maps.map(image)));
            }
        }
        let output = pass.activations.last().unwrap_or(x.as_tensor()).clone();
        let host = Maps::from_tensor(&output)?;
        if keep == Keep::Tape {
            self.tape = Some(Tape { input: x, output });
        }
        let activations = if keep == Keep::Activations { activations } else { Vec::new() };
        Ok(Forward { output: host, statistics: pass.statistics, activations })
    }

    fn backward(
        &mut self,
        _: ParameterValues<'_>,
        gradients: &mut [f32],
        grad_output: &Maps,
        wrt: WithRespectTo,
    ) -> Result<Option<Maps>> {
        let (Some(Tape { input, output }), Some((_, _, vars))) = (&self.tape, &self.network) else {
            return Err(OpsError::NoTape);
        };
        if let Some(last) = self.layers.last() {
            grad_output.check("the output's gradient", input.dim(0)?, last.output)?;
        }
        let grad_output = to_device(grad_output, self.device.for_tensors())?;
        // The gradient of sum(output * d) with d held fixed is the vector-Jacobian product.
        let mut found = (output * &grad_output)?.sum_all()?.backward()?;
        if wrt.parameters() {
            for entry in self.table.entries() {
                let gradient = vars.get(&entry.name).and_then(|var| found.remove(var.as_tensor()));
                if let Some(gradient) = gradient {
                    let sums = gradients[entry.range.clone()].iter_mut();
                    sums.zip(entry.layout.values(&gradient)?).for_each(|(sum, value)| *sum += value);
                }
            }
        }
        match found.remove(input.as_tensor()).filter(|_| wrt.input()) {
            Some(grad_input) => Ok(Some(Maps::from_tensor(&grad_input)?)),
            None => Ok(None),
        }
    }
}
