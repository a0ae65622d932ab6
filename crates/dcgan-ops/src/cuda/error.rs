//! What goes wrong on a GPU, with the fix.

/// Why a GPU could not be used, or a pass on it failed.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// libcuda is not there.
    #[error(
        "no NVIDIA driver on this machine (libcuda.so.1 is missing): install the driver, or use --device cpu"
    )]
    NoDriver,
    /// libcudnn is not there.
    #[error(
        "cuDNN 9 is missing (libcudnn.so.9): `pip install nvidia-cudnn-cu12` and put the folder of the library into \
         LD_LIBRARY_PATH, or install the package cudnn9-cuda-12 of NVIDIA's repository, or use --device cpu"
    )]
    NoCudnn,
    /// libnccl is not there.
    #[error(
        "NCCL is missing (libnccl.so), which connects the GPUs of several processes: install libnccl-dev of NVIDIA's \
         repository; or `pip install nvidia-nccl-cu12`, link libnccl.so to libnccl.so.2 in its folder and put that into \
         LD_LIBRARY_PATH; or train in one process"
    )]
    NoNccl,
    /// A call of NCCL.
    #[error("NCCL, {what}: status {status}: {text}")]
    Nccl {
        /// The call.
        what: &'static str,
        /// Its status.
        status: u32,
        /// The library's text for it.
        text: String,
    },
    /// A number of a device that the machine does not have.
    #[error("cuda:{ordinal} does not exist: this machine has {count} GPU(s), numbered from 0")]
    Ordinal {
        /// The number given.
        ordinal: usize,
        /// The number of devices.
        count: usize,
    },
    /// A driver that does not know the version of the kernels.
    #[error(
        "the NVIDIA driver is too old for these kernels: version 530 or newer is needed; update it, or use --device cpu"
    )]
    DriverTooOld,
    /// No memory left on the GPU.
    #[error(
        "the GPU's memory is full: {bytes} more bytes are needed, {free} of {total} are free; use {}",
        smaller(*batch_size)
    )]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes that were free.
        free: usize,
        /// Bytes of the device.
        total: usize,
        /// The batch size to try, where that is known.
        batch_size: Option<usize>,
    },
    /// A call of the driver.
    #[error("CUDA, {what}: {name}: {text}")]
    Driver {
        /// The call.
        what: &'static str,
        /// The driver's name of the error.
        name: String,
        /// The driver's description of it.
        text: String,
    },
    /// A call of cuDNN.
    #[error("cuDNN, {what}: status {status}: {text}")]
    Cudnn {
        /// The call.
        what: String,
        /// Its status.
        status: u32,
        /// The library's last message.
        text: String,
    },
    /// A convolution for which cuDNN has no engine.
    #[error("cuDNN has no deterministic engine for {operation}")]
    NoEngine {
        /// The convolution.
        operation: String,
    },
    /// A map with more values than the kernels count.
    #[error(
        "a feature map would have {values} values, the GPU's kernels take less than 2^31; use a smaller --batch-size"
    )]
    TooLarge {
        /// Values of the map.
        values: usize,
    },
}

fn smaller(batch_size: Option<usize>) -> String {
    match batch_size {
        Some(batch_size) => format!("--batch-size {batch_size} or less"),
        None => "a smaller --batch-size".to_owned(),
    }
}
