//! The devices of the service. Each has one worker thread.

use super::ServiceError;
use crate::inputs;
use dcgan_model::{Device, DeviceChoice};
use std::num::NonZero;

/// A device and the name under which jobs and metrics show it.
#[derive(Clone, Debug)]
pub(crate) struct WorkerDevice {
    /// `cuda:0`, `cpu`; `cpu:0`, `cpu:1` if several workers share the CPU.
    pub(crate) label: String,
    /// The device by name; not `auto`.
    pub(crate) choice: DeviceChoice,
    pub(crate) device: Device,
    /// Threads of a job that sets none; None is one per core.
    pub(crate) threads: Option<usize>,
}

impl WorkerDevice {
    /// `cpu`, `cuda` or `metal`: equal jobs have equal results on devices of one kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self.choice {
            DeviceChoice::Auto | DeviceChoice::Cpu => "cpu",
            DeviceChoice::Cuda(_) => "cuda",
            DeviceChoice::Metal(_) => "metal",
        }
    }
}

/// Threads that this machine runs at a time.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Why the service cannot have these devices.
pub fn device_fault(choices: &[DeviceChoice]) -> Option<String> {
    let count = |choice| choices.iter().filter(|other| **other == choice).count();
    let (cpus, cores) = (count(DeviceChoice::Cpu), cores());
    if choices.len() > 1 && count(DeviceChoice::Auto) > 0 {
        return Some("--device auto is given together with other devices, expected it alone".to_owned());
    }
    if cpus > cores {
        return Some(format!(
            "--device cpu is given {cpus} times, this machine runs {cores} threads at a time"
        ));
    }
    let twice = choices.iter().find(|choice| **choice != DeviceChoice::Cpu && count(**choice) > 1)?;
    Some(format!("--device {twice} is given {} times, expected once", count(*twice)))
}

/// Opens the devices. Several workers on the CPU share its threads.
///
/// # Errors
/// [`ServiceError::Devices`], [`ServiceError::Device`].
pub(crate) fn open(choices: &[DeviceChoice]) -> Result<Vec<WorkerDevice>, ServiceError> {
    if let Some(problem) = device_fault(choices) {
        return Err(ServiceError::Devices { problem });
    }
    let choices = if choices.is_empty() { &[DeviceChoice::Auto] } else { choices };
    let cpus = choices.iter().filter(|choice| **choice == DeviceChoice::Cpu).count();
    let mut next_cpu = 0;
    let open = |&choice: &DeviceChoice| {
        let device = inputs::open_device(choice)?;
        let choice = match (choice, &device) {
            (DeviceChoice::Auto, Device::Cpu) => DeviceChoice::Cpu,
            #[cfg(feature = "cuda")]
            (DeviceChoice::Auto, Device::Cuda(gpu)) => DeviceChoice::Cuda(gpu.ordinal()),
            (DeviceChoice::Auto, Device::Candle(gpu)) if gpu.is_cuda() => DeviceChoice::Cuda(0),
            (DeviceChoice::Auto, Device::Candle(_)) => DeviceChoice::Metal(0),
            (choice, _) => choice,
        };
        let shares = choice == DeviceChoice::Cpu && cpus > 1;
        let label = if shares { format!("cpu:{next_cpu}") } else { choice.to_string() };
        next_cpu += usize::from(shares);
        Ok(WorkerDevice { label, choice, device, threads: shares.then(|| (cores() / cpus).max(1)) })
    };
    choices.iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeviceChoice::{Auto, Cpu, Cuda};

    #[test]
    fn devices_of_a_service() {
        for (choices, fault) in [
            (vec![], None),
            (vec![Auto], None),
            (vec![Cuda(0), Cuda(1), Cpu], None),
            (vec![Auto, Cpu], Some("expected it alone")),
            (vec![Cuda(1), Cuda(0), Cuda(1)], Some("--device cuda:1 is given 2 times")),
            (vec![Cpu; 5000], Some("--device cpu is given 5000 times")),
        ] {
            let found = device_fault(&choices);
            assert_eq!(found.is_some(), fault.is_some(), "{choices:?}: {found:?}");
            assert!(found.is_none_or(|found| found.contains(fault.unwrap())));
        }
        let opened = open(&[Cpu]).unwrap();
        assert_eq!((opened[0].label.as_str(), opened[0].threads), ("cpu", None));
        if cores() >= 2 {
            let opened = open(&[Cpu, Cpu]).unwrap();
            let labels: Vec<&str> = opened.iter().map(|device| device.label.as_str()).collect();
            assert_eq!(labels, ["cpu:0", "cpu:1"]);
            assert!(
                opened.iter().all(|device| device.threads == Some(cores() / 2) && device.kind() == "cpu")
            );
        }
    }
}
