//! Convolutions by cuDNN's graph API: one operation is a graph of one node, as in PyTorch. The engine is the first of
//! the heuristics' list that is deterministic; in f32 it must also compute in f32.

use super::error::CudaError;
use super::gpu::{Buffer, Gpu, Result};
use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnBackendNumericalNote_t as Note, cudnnDataType_t as DataType,
};
use cudarc::driver::CudaStream;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

/// Maximum number of engines of a heuristics' list that are tried.
const MOST_ENGINES: usize = 24;

fn check(status: sys::cudnnStatus_t, what: impl FnOnce() -> String) -> Result<()> {
    let status = status as u32;
    if status == 0 {
        return Ok(());
    }
    let mut text = vec![0_u8; 512];
    // SAFETY: the library writes at most the given number of bytes.
    unsafe { sys::cudnnGetLastErrorString(text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    let text = String::from_utf8_lossy(&text[..end]).into_owned();
    Err(CudaError::Cudnn { what: what(), status, text })
}

/// A descriptor of cuDNN's backend API.
#[derive(Debug)]
struct Descriptor(sys::cudnnBackendDescriptor_t);

// SAFETY: a descriptor may be used by any thread, one at a time; `Plans` is behind a lock.
unsafe impl Send for Descriptor {}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the descriptor was made by the library and is not used again.
        unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

impl Descriptor {
    fn new(kind: Kind) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the library writes a pointer.
        check(unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut raw) }, || format!("{kind:?}"))?;
        Ok(Self(raw))
    }

    fn set<V>(self, name: Name, kind: Type, values: &[V]) -> Result<Self> {
        let count = i64::try_from(values.len()).unwrap_or(i64::MAX);
        // SAFETY: the values have the type that the attribute's kind says, and are copied.
        let status =
            unsafe { sys::cudnnBackendSetAttribute(self.0, name, kind, count, values.as_ptr().cast()) };
        check(status, || format!("{name:?}"))?;
        Ok(self)
    }

    fn finalize(self, what: &str) -> Result<Self> {
        // SAFETY: a descriptor of the library.
        check(unsafe { sys::cudnnBackendFinalize(self.0) }, || format!("finalizing {what}"))?;
        Ok(self)
    }

    /// The number of values written to `into`.
    fn get<V>(&self, name: Name, kind: Type, into: &mut [V]) -> Result<usize> {
        let (wanted, mut count) = (i64::try_from(into.len()).unwrap_or(0), 0);
        // SAFETY: the library writes at most the wanted number of values of the attribute's type.
        let status = unsafe {
            sys::cudnnBackendGetAttribute(self.0, name, kind, wanted, &mut count, into.as_mut_ptr().cast())
        };
        check(status, || format!("{name:?}"))?;
        Ok(usize::try_from(count).unwrap_or(0).min(into.len()))
    }
}

/// What is computed from the other two of fine maps, filters and coarse maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// The coarse maps: a convolution, or the gradient with respect to the input of its transpose.
    Coarse,
    /// The fine maps: a transposed convolution, or the gradient with respect to the input of a convolution.
    Fine,
    /// The gradient of the filters.
    Filters,
}

/// A convolution: fine maps `(n, h, w, c)`, filters `(k, r, s, c)`, coarse maps `(n, p, q, k)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Convolution {
    pub(super) n: usize,
    pub(super) fine: (usize, usize, usize),
    pub(super) coarse: (usize, usize, usize),
    pub(super) kernel: (usize, usize),
    pub(super) stride: usize,
    pub(super) padding: (usize, usize),
}

/// Types of fine maps, filters and coarse maps in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Types {
    /// All in f32.
    F32,
    /// All in bf16, with sums in f32.
    Bf16,
    /// Maps in bf16, filters in f32.
    Bf16Maps,
}

impl Types {
    fn of_tensors(self) -> [DataType; 3] {
        let (f32, bf16) = (DataType::CUDNN_DATA_FLOAT, DataType::CUDNN_DATA_BFLOAT16);
        match self {
            Self::F32 => [f32; 3],
            Self::Bf16 => [bf16; 3],
            Self::Bf16Maps => [bf16, f32, bf16],
        }
    }
}

#[derive(Debug)]
struct Plan {
    plan: Descriptor,
    workspace: usize,
    /// cuDNN's number of the engine.
    engine: i64,
}

/// The cuDNN handle and the plans of convolutions, made once for each shape.
#[derive(Debug)]
pub(super) struct Plans {
    handle: sys::cudnnHandle_t,
    plans: HashMap<(Operation, Convolution, Types), Plan>,
}

// SAFETY: the handle may be used by any thread, one at a time; `Plans` is behind a lock.
unsafe impl Send for Plans {}

impl Drop for Plans {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: the handle was made by the library and is not used again. A failure cannot be handled here.
        let _ = unsafe { cudarc::cudnn::result::destroy_handle(self.handle) };
    }
}

fn numbers<const N: usize>(values: [usize; N]) -> [i64; N] {
    values.map(|value| i64::try_from(value).unwrap_or(i64::MAX))
}

/// A channels-last tensor.
fn tensor(id: u8, [n, h, w, c]: [usize; 4], data: DataType) -> Result<Descriptor> {
    let id = i64::from(id);
    Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, Type::CUDNN_TYPE_INT64, &[id])?
        .set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[data])?
        .set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, Type::CUDNN_TYPE_INT64, &[16_i64])?
        .set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, Type::CUDNN_TYPE_INT64, &numbers([n, c, h, w]))?
        .set(Name::CUDNN_ATTR_TENSOR_STRIDES, Type::CUDNN_TYPE_INT64, &numbers([h * w * c, 1, w * c, c]))?
        .finalize("a tensor")
}

/// The graph of one convolution.
fn graph(
    handle: sys::cudnnHandle_t,
    operation: Operation,
    shape: Convolution,
    types: Types,
) -> Result<(Descriptor, Vec<Descriptor>)> {
    let Convolution { n, fine, coarse, kernel, stride, padding } = shape;
    let [of_fine, of_filters, of_coarse] = types.of_tensors();
    let x = tensor(b'x', [n, fine.0, fine.1, fine.2], of_fine)?;
    let w = tensor(b'w', [coarse.2, kernel.0, kernel.1, fine.2], of_filters)?;
    let y = tensor(b'y', [n, coarse.0, coarse.1, coarse.2], of_coarse)?;
    let pads = numbers([padding.0, padding.1]);
    let int64 = Type::CUDNN_TYPE_INT64;
    let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    let conv = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .set(
            Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
            Type::CUDNN_TYPE_DATA_TYPE,
            &[DataType::CUDNN_DATA_FLOAT],
        )?
        .set(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, Type::CUDNN_TYPE_CONVOLUTION_MODE, &[mode])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64, &[2_i64])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, int64, &pads)?
        .set(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, int64, &pads)?
        .set(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, int64, &numbers([stride, stride]))?
        .set(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, int64, &[1_i64, 1])?
        .finalize("a convolution")?;
    let (kind, [alpha, beta, of_conv, of_x, of_w, of_y]) = match operation {
        Operation::Coarse => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
            ],
        ),
        Operation::Fine => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
            ],
        ),
        Operation::Filters => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
            ],
        ),
    };
    let descriptor = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
    let node = Descriptor::new(kind)?
        .set(alpha, Type::CUDNN_TYPE_FLOAT, &[1.0_f32])?
        .set(beta, Type::CUDNN_TYPE_FLOAT, &[0.0_f32])?
        .set(of_conv, descriptor, &[conv.0])?
        .set(of_x, descriptor, &[x.0])?
        .set(of_w, descriptor, &[w.0])?
        .set(of_y, descriptor, &[y.0])?
        .finalize("an operation")?;
    let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, descriptor, &[node.0])?
        .set(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Type::CUDNN_TYPE_HANDLE, &[handle])?
        .finalize("a graph")?;
    Ok((graph, vec![x, w, y, conv, node]))
}

impl Plans {
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the library writes a handle, and takes the stream of this program.
        unsafe {
            check(sys::cudnnCreate(&mut handle), || "making a handle".to_owned())?;
            check(sys::cudnnSetStream(handle, stream.cu_stream().cast()), || {
                "setting the stream".to_owned()
            })?;
        }
        Ok(Self { handle, plans: HashMap::new() })
    }

    /// The first engine of the heuristics that is deterministic and of the precision asked for, and that cuDNN makes a
    /// plan of.
    fn make(&self, operation: Operation, shape: Convolution, types: Types) -> Result<Plan> {
        let (graph, _parts) = graph(self.handle, operation, shape, types)?;
        let descriptor = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
        let modes = [
            sys::cudnnBackendHeurMode_t::CUDNN_HEUR_MODE_A,
            sys::cudnnBackendHeurMode_t::CUDNN_HEUR_MODE_FALLBACK,
        ];
        for mode in modes {
            let heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
                .set(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, descriptor, &[graph.0])?
                .set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, &[mode])?
                .finalize("heuristics");
            let Ok(heuristics) = heuristics else { continue };
            let configs: Vec<Descriptor> = (0..MOST_ENGINES)
                .map(|_| Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR))
                .collect::<Result<_>>()?;
            let mut raw: Vec<_> = configs.iter().map(|config| config.0).collect();
            let count = heuristics.get(Name::CUDNN_ATTR_ENGINEHEUR_RESULTS, descriptor, &mut raw)?;
            for config in configs.iter().take(count) {
                let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
                config.get(Name::CUDNN_ATTR_ENGINECFG_ENGINE, descriptor, &mut [engine.0])?;
                // As numbers: a newer library may know notes that the enum does not.
                let mut notes = [u32::MAX; 16];
                let kind = Type::CUDNN_TYPE_NUMERICAL_NOTE;
                let count = engine.get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, kind, &mut notes)?;
                let has = |note: Note| notes[..count].contains(&(note as u32));
                let rounds = has(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE)
                    || has(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
                if has(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) || types == Types::F32 && rounds {
                    continue;
                }
                // A configuration may be refused when the plan is made; the next one is tried.
                let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
                    .set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Type::CUDNN_TYPE_HANDLE, &[self.handle])?
                    .set(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, descriptor, &[config.0])
                    .and_then(|plan| plan.finalize("a plan"));
                let Ok(plan) = plan else { continue };
                let mut workspace = [0_i64];
                let name = Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE;
                plan.get(name, Type::CUDNN_TYPE_INT64, &mut workspace)?;
                let mut number = [-1_i64];
                let name = Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX;
                engine.get(name, Type::CUDNN_TYPE_INT64, &mut number)?;
                let workspace = usize::try_from(workspace[0]).unwrap_or(0);
                return Ok(Plan { plan, workspace, engine: number[0] });
            }
        }
        Err(CudaError::NoEngine { operation: format!("{operation:?} of {shape:?} in {types:?}") })
    }

    /// Whether there is a plan for the convolution.
    pub(super) fn has(&mut self, operation: Operation, shape: Convolution, types: Types) -> Result<bool> {
        match self.plan(operation, shape, types) {
            Ok(_) => Ok(true),
            Err(CudaError::NoEngine { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The number of the engine of a convolution, and the bytes of its workspace.
    pub(super) fn engine(
        &mut self,
        operation: Operation,
        (shape, types): (Convolution, Types),
    ) -> Result<(i64, usize)> {
        let plan = self.plan(operation, shape, types)?;
        Ok((plan.engine, plan.workspace))
    }

    fn plan(&mut self, operation: Operation, shape: Convolution, types: Types) -> Result<&Plan> {
        let key = (operation, shape, types);
        if !self.plans.contains_key(&key) {
            let plan = self.make(operation, shape, types)?;
            self.plans.insert(key, plan);
        }
        Ok(&self.plans[&key])
    }

    /// Computes one of the three from the other two; addresses of fine maps, filters and coarse maps.
    pub(super) fn run(
        &mut self,
        (gpu, workspace): (&Gpu, &mut Buffer),
        operation: Operation,
        (shape, types): (Convolution, Types),
        addresses: [u64; 3],
    ) -> Result<()> {
        let bytes = self.plan(operation, shape, types)?.workspace;
        let workspace = workspace.sized(gpu, bytes)?;
        let handle = self.handle;
        let plan = self.plan(operation, shape, types)?;
        let pointers = addresses.map(|address| address as *mut c_void);
        let (ids, int64) = ([b'x', b'w', b'y'].map(i64::from), Type::CUDNN_TYPE_INT64);
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, int64, &ids)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &pointers)?
            .set(
                Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                Type::CUDNN_TYPE_VOID_PTR,
                &[workspace as *mut c_void],
            )?
            .finalize("a variant pack")?;
        // SAFETY: the addresses are buffers of the shapes that the plan was made for.
        let status = unsafe { sys::cudnnBackendExecute(handle, plan.plan.0, pack.0) };
        check(status, || format!("{operation:?} of {shape:?}"))
    }
}
