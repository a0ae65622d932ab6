//! An opened GPU: its memory, its kernels and its cuDNN handle.

use super::conv::Plans;
use super::error::CudaError;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DriverError, LaunchConfig, PinnedHostSlice,
    PushKernelArg, sys,
};
use cudarc::nvrtc::Ptx;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) type Result<V> = std::result::Result<V, CudaError>;

/// The kernels as PTX, for GPUs since Volta; the driver compiles them. `kernels.cu` is their source.
const PTX: &str = include_str!("kernels.ptx");

/// Threads of a block.
const BLOCK: u32 = 256;
/// Values that a thread works on, and most blocks, of an elementwise kernel.
const VALUES: usize = 8;
const MOST_BLOCKS: usize = 4096;
/// Rows that a thread sums at least, most parts of a sum, and blocks that keep a GPU busy.
const ROWS_OF_A_THREAD: usize = 4;
const MOST_PARTS: usize = 256;
const MOST_BLOCKS_OF_SUMS: usize = 512;

/// A GPU that networks run on, shared by them.
pub struct Gpu {
    ordinal: usize,
    name: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    functions: BTreeMap<&'static str, CudaFunction>,
    plans: Mutex<Plans>,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{} ({})", self.ordinal, self.name)
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    Pointer(u64),
    Int(i32),
    Float(f32),
}

/// The names of the kernels; those that work on maps have one entry point for each type of values.
const KERNELS: [&str; 37] = [
    "copy",
    "zero",
    "narrow",
    "widen",
    "given_statistics",
    "combine_moments",
    "combine_sums",
    "total_sums",
    "linear_input_f32",
    "linear_input_bf16",
    "linear_input_gradient_f32",
    "linear_input_gradient_bf16",
    "add_bias_f32",
    "add_bias_bf16",
    "label_gradient_f32",
    "label_gradient_bf16",
    "moments_f32",
    "moments_bf16",
    "sums_f32",
    "sums_bf16",
    "finish_moments_f32",
    "finish_moments_bf16",
    "normalize_f32",
    "normalize_bf16",
    "gradient_sums_f32",
    "gradient_sums_bf16",
    "input_gradient_f32",
    "input_gradient_bf16",
    "affine_gradient",
    "step_input_f32",
    "step_input_bf16",
    "bce_f32",
    "bce_bf16",
    "squares",
    "check_gradient",
    "adam",
    "ema",
];

pub(super) fn driver(what: &'static str) -> impl FnOnce(DriverError) -> CudaError {
    move |error| {
        let text = |found: std::result::Result<&std::ffi::CStr, DriverError>| {
            found.map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
        };
        CudaError::Driver { what, name: text(error.error_name()), text: text(error.error_string()) }
    }
}

impl Gpu {
    /// Whether the driver is there.
    pub fn has_driver() -> bool {
        // Where candle's CUDA is built in too, the libraries are linked: the program would not have started.
        #[cfg(feature = "candle-cuda")]
        return true;
        // SAFETY: loads the driver's library, whose initializers are trusted as those of any program on a GPU.
        #[cfg(not(feature = "candle-cuda"))]
        unsafe {
            sys::is_culib_present()
        }
    }

    /// How many GPUs there are; 0 without a driver.
    pub fn count() -> usize {
        let count = if Self::has_driver() { CudaContext::device_count().unwrap_or(0) } else { 0 };
        usize::try_from(count).unwrap_or(0)
    }

    fn has_cudnn() -> bool {
        #[cfg(feature = "candle-cuda")]
        return true;
        // SAFETY: as for the driver.
        #[cfg(not(feature = "candle-cuda"))]
        unsafe {
            cudarc::cudnn::sys::is_culib_present()
        }
    }

    /// Opens a device.
    ///
    /// # Errors
    /// A driver, cuDNN or device that is missing; a driver that is too old; no memory.
    pub fn open(ordinal: usize) -> Result<Self> {
        if !Self::has_driver() {
            return Err(CudaError::NoDriver);
        }
        let count = CudaContext::device_count().map_err(driver("counting devices"))?;
        let count = usize::try_from(count).unwrap_or(0);
        if ordinal >= count {
            return Err(CudaError::Ordinal { ordinal, count });
        }
        if !Self::has_cudnn() {
            return Err(CudaError::NoCudnn);
        }
        let context = CudaContext::new(ordinal).map_err(driver("opening the device"))?;
        // SAFETY: everything runs on one stream, in the order of the calls.
        unsafe { context.disable_event_tracking() };
        let name = context.name().map_err(driver("naming the device"))?;
        let stream = context.new_stream().map_err(driver("making a stream"))?;
        let module = context.load_module(Ptx::from_src(PTX)).map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => CudaError::DriverTooOld,
            _ => driver("loading the kernels")(error),
        })?;
        let mut functions = BTreeMap::new();
        for name in KERNELS {
            functions.insert(name, module.load_function(name).map_err(driver("finding a kernel"))?);
        }
        let plans = Mutex::new(Plans::new(&stream)?);
        Ok(Self { ordinal, name, context, stream, functions, plans })
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Its name by the driver.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The convolutions. A pass holds them to its end: passes of several networks do not mix on the stream.
    pub(super) fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a kernel on `total` values, or on `grid` blocks.
    pub(super) fn launch(&self, name: &str, grid: (u32, u32), arguments: &[Argument]) -> Result<()> {
        let Some(function) = self.functions.get(name) else {
            return Err(CudaError::Driver {
                what: "running a kernel",
                name: name.to_owned(),
                text: String::new(),
            });
        };
        let mut launch = self.stream.launch_builder(function);
        for argument in arguments {
            match argument {
                Argument::Pointer(pointer) => launch.arg(pointer),
                Argument::Int(value) => launch.arg(value),
                Argument::Float(value) => launch.arg(value),
            };
        }
        let config =
            LaunchConfig { grid_dim: (grid.0, grid.1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those of the kernel; tests run every call on a driver that checks pointers and
        // bounds.
        unsafe { launch.launch(config) }.map_err(driver("running a kernel"))?;
        Ok(())
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The stream that everything but copies of steps runs on.
    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Bytes of the GPU that are free, and all of them.
    pub(super) fn memory_info(&self) -> (usize, usize) {
        self.context.mem_get_info().unwrap_or_default()
    }

    /// An allocation that failed.
    pub(super) fn memory(&self, bytes: usize, error: DriverError) -> CudaError {
        if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return driver("allocating memory")(error);
        }
        let (free, total) = self.memory_info();
        CudaError::Memory { bytes, free, total, batch_size: None }
    }

    /// Copies bytes on the GPU.
    pub(super) fn copy_bytes(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: the addresses are those of buffers of at least this size.
        let copied =
            unsafe { cudarc::driver::result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) };
        copied.map_err(driver("copying on the GPU"))
    }

    /// Waits until everything has run.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(driver("waiting"))
    }

    /// Makes the device that of this thread, which cuDNN needs: every pass may run on another thread.
    pub(super) fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(driver("binding the device"))
    }
}

/// The grid of an elementwise kernel.
pub(super) fn elements(total: usize) -> (u32, u32) {
    let blocks = total.div_ceil(BLOCK as usize * VALUES).clamp(1, MOST_BLOCKS);
    (u32::try_from(blocks).unwrap_or(1), 1)
}

/// How a kernel takes sums over rows; `kernels.cu` says what the numbers are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    /// Threads of a block that have columns of their own.
    pub(super) lanes: usize,
    /// Parts that the rows are divided into.
    pub(super) splits: usize,
    pub(super) grid: (u32, u32),
    /// The grid of the kernel that sums the parts.
    pub(super) finish: (u32, u32),
}

impl Sums {
    /// Of a matrix whose values take `bytes` each.
    pub(super) fn over(rows: usize, columns: usize, bytes: usize) -> Self {
        let wide = 16 / bytes;
        let (width, lanes) = match columns.is_multiple_of(wide) {
            true => (wide, 1 << (columns / wide).trailing_zeros().min(5)),
            false => (1, 32),
        };
        let blocks = columns.div_ceil(width * lanes);
        let rows_at_once = BLOCK as usize / lanes;
        let splits = rows.div_ceil(ROWS_OF_A_THREAD * rows_at_once);
        let splits = splits.min(MOST_BLOCKS_OF_SUMS.div_ceil(blocks)).clamp(1, MOST_PARTS);
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let (grid, finish) = ((number(blocks), number(splits)), (number(columns.div_ceil(32)), 1));
        Self { lanes, splits, grid, finish }
    }
}

/// A number for a kernel.
pub(super) fn int(value: usize) -> Result<Argument> {
    i32::try_from(value).map(Argument::Int).map_err(|_| CudaError::TooLarge { values: value })
}

/// Memory of the GPU that grows when it is asked for more.
#[derive(Debug, Default)]
pub(super) struct Buffer(Option<CudaSlice<u8>>);

impl Buffer {
    /// The address of at least `bytes` bytes. What was there may be lost.
    pub(super) fn sized(&mut self, gpu: &Gpu, bytes: usize) -> Result<u64> {
        let bytes = bytes.max(16);
        if self.0.as_ref().is_none_or(|slice| slice.len() < bytes) {
            self.0 = None;
            // SAFETY: every kernel writes a buffer before another one reads it.
            let allocated = unsafe { gpu.stream.alloc::<u8>(bytes) };
            self.0 = Some(allocated.map_err(|error| gpu.memory(bytes, error))?);
        }
        Ok(self.address(gpu))
    }

    /// Its address; 0 where it was never sized.
    pub(super) fn address(&self, gpu: &Gpu) -> u64 {
        self.0.as_ref().map_or(0, |slice| slice.device_ptr(&gpu.stream).0)
    }

    /// Copies values to the GPU.
    pub(super) fn upload<T: bytemuck::Pod>(&mut self, gpu: &Gpu, values: &[T]) -> Result<u64> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let address = self.sized(gpu, bytes.len())?;
        if let Some(slice) = &mut self.0 {
            let mut view = slice.slice_mut(..bytes.len());
            gpu.stream.memcpy_htod(bytes, &mut view).map_err(driver("copying to the GPU"))?;
        }
        Ok(address)
    }

    /// Copies the first bytes of pinned memory to the GPU on a stream of its own.
    pub(super) fn upload_pinned(
        &mut self,
        stream: &Arc<CudaStream>,
        from: &PinnedHostSlice<u8>,
        bytes: usize,
    ) -> Result<()> {
        let Some(slice) = &mut self.0 else { return Ok(()) };
        let from = from.as_slice().map_err(driver("reading pinned memory"))?;
        let mut view = slice.slice_mut(..bytes);
        stream.memcpy_htod(&from[..bytes], &mut view).map_err(driver("copying to the GPU"))
    }

    /// Copies values from the GPU, after everything before has run.
    pub(super) fn download(&self, gpu: &Gpu, len: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0_f32; len];
        if let Some(slice) = &self.0 {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
            let view = slice.slice(..bytes.len());
            gpu.stream.memcpy_dtoh(&view, bytes).map_err(driver("copying from the GPU"))?;
            gpu.synchronize()?;
        }
        Ok(values)
    }
}
