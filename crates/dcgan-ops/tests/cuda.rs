//! The CUDA executor on the simulated driver: the same bytes whatever the order of threads, and every failure as an
//! error. Each row is a process, since a program loads one driver.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![cfg(feature = "cuda")]

mod simulated;

use dcgan_ops::cuda::{CudaExecutor, Gpu};
use dcgan_ops::{
    Activation, DeviceChoice, Keep, Kind, Layer, MapShape, Maps, Network, Norm, NormAxes, Precision,
    WithRespectTo,
};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// D's layers at 8x8 with labels and biases.
fn layers() -> Vec<Layer> {
    let conv = |name: &str, input, output, norm| Layer {
        kernel: (4, 4),
        stride: 2,
        padding: (1, 1),
        label_channels: 3,
        bias: true,
        norm,
        activation: Activation::LeakyRelu(0.2),
        ..Layer::plain(name, Kind::Conv, input, output)
    };
    let norm = Some(Norm { axes: NormAxes::PerChannel, affine: true, eps: 1e-5 });
    let first = conv("blocks.0", MapShape::new(3, 8, 8), MapShape::new(5, 4, 4), None);
    let second = conv("blocks.1", first.output, MapShape::new(40, 2, 2), norm);
    let head = Layer {
        kernel: (2, 2),
        label_inputs: 3,
        ..Layer::plain("head", Kind::Conv, second.output, MapShape::new(1, 1, 1))
    };
    vec![first, second, head]
}

/// SHA-256 of the outputs, statistics and gradients of a few passes.
fn passes(precision: Precision) -> Result<String, Box<dyn std::error::Error>> {
    let gpu = Arc::new(Gpu::open(0)?);
    let layers = layers();
    let mut network = Network::with_executor(Box::new(CudaExecutor::new(layers.clone(), gpu, precision)));
    let mut state = 7_u32;
    let mut numbers = |n: usize| -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(u16::try_from(state >> 16).unwrap()) / 32768.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    };
    let mut tensors = dcgan_ops::Tensors::new();
    for tensor in layers.iter().flat_map(Layer::parameters) {
        let values = numbers(tensor.shape.iter().product());
        let values =
            candle_core::Tensor::from_vec(values, tensor.shape.as_slice(), &candle_core::Device::Cpu)?;
        tensors.insert(tensor.name, values);
    }
    network.parameters_mut().set(&tensors)?;
    let mut hash = Sha256::new();
    let mut add = |values: &[f32]| values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    for n in [6, 9] {
        let x = Maps::new(numbers(n * 3 * 64), n, MapShape::new(3, 8, 8))?;
        let labels = Maps::one_hot(&(0..n).map(|i| u32::try_from(i % 3).unwrap()).collect::<Vec<_>>(), 3)?;
        let input = dcgan_ops::Input { maps: &x, labels: Some(&labels) };
        let forward = network.train(input, Keep::Tape)?;
        network.parameters_mut().zero_gradients();
        let dx = network.backward(&Maps::rows(numbers(n), 1)?, WithRespectTo::Both)?.unwrap();
        add(forward.output.values());
        add(dx.values());
        for statistics in forward.statistics.values() {
            add(&statistics.var.flatten_all()?.to_vec1::<f32>()?);
        }
        for gradient in network.parameters().gradients()?.values() {
            add(&gradient.flatten_all()?.to_vec1::<f32>()?);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a process with these libraries and variables finds: a hash, or an error.
#[test]
#[ignore = "run by the tests below, in processes of their own"]
fn child() {
    let precision = if std::env::var_os("BF16").is_some() { Precision::Bf16 } else { Precision::F32 };
    let found = match std::env::var("DEVICE") {
        Ok(device) => device
            .parse::<DeviceChoice>()
            .unwrap()
            .open()
            .map(|device| device.to_string())
            .map_err(Into::into),
        Err(_) => passes(precision),
    };
    let found = found.unwrap_or_else(|error| error.to_string());
    std::fs::write(std::env::var_os("FOUND").unwrap(), found).unwrap();
}

fn run(libraries: &Path, variables: &[(&str, &str)]) -> String {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("found-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored"]).env("LD_LIBRARY_PATH", libraries).env("FOUND", &file);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let found = std::fs::read_to_string(&file);
    let found =
        found.unwrap_or_else(|_| panic!("{variables:?}: {}", String::from_utf8_lossy(&output.stdout)));
    std::fs::remove_file(file).unwrap();
    found
}

#[test]
fn the_order_of_threads_and_the_engine_do_not_change_a_byte() {
    let libraries = simulated::libraries(env!("CARGO_MANIFEST_DIR").as_ref());
    for precision in [&[][..], &[("BF16", "1")]] {
        let found = |more: &[(&str, &str)]| run(&libraries, &[precision, more].concat());
        let first = found(&[("SIMULATED_SEED", "1")]);
        assert_eq!(first.len(), 64, "{first}");
        for more in [("SIMULATED_SEED", "2"), ("SIMULATED_SEED", "3"), ("SIMULATED_REFUSED", "1")] {
            assert_eq!(found(&[more]), first, "{more:?}");
        }
    }
}

#[test]
fn failures_are_errors_with_the_way_out() {
    let libraries = simulated::libraries(env!("CARGO_MANIFEST_DIR").as_ref());
    let parts = libraries.with_file_name("simulated_parts");
    std::fs::create_dir_all(parts.join("driver")).unwrap();
    std::fs::create_dir_all(parts.join("nothing")).unwrap();
    std::fs::copy(libraries.join("libcuda.so.1"), parts.join("driver/libcuda.so.1")).unwrap();
    let (driver, nothing) = (parts.join("driver"), parts.join("nothing"));
    /// Libraries, variables, and parts of what is found.
    type Row<'a> = (&'a Path, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let rows: [Row<'_>; 9] = [
        (&libraries, &[("DEVICE", "cuda:0")], &["cuda:0 (simulated GPU)"]),
        (&libraries, &[("DEVICE", "auto")], &["cuda:0 (simulated GPU)"]),
        (&libraries, &[("DEVICE", "cuda:2")], &["cuda:2 does not exist", "1 GPU(s)"]),
        (&libraries, &[("DEVICE", "cuda:0"), ("SIMULATED_OLD_DRIVER", "1")], &["too old", "530"]),
        (&libraries, &[("SIMULATED_REFUSED", "100000")], &["no deterministic engine for Coarse"]),
        (&driver, &[("DEVICE", "cuda:0")], &["cuDNN 9 is missing", "pip install nvidia-cudnn-cu12"]),
        (&driver, &[("DEVICE", "auto")], &["cpu"]),
        (&nothing, &[("DEVICE", "cuda:0")], &["no NVIDIA driver", "--device cpu"]),
        (&nothing, &[("DEVICE", "auto")], &["cpu"]),
    ];
    for (libraries, variables, expected) in rows {
        let found = run(libraries, variables);
        assert!(expected.iter().all(|part| found.contains(part)), "{variables:?}: {found}");
    }
}

#[test]
fn an_allocation_that_fails_is_an_error_whichever_it_is() {
    let libraries = simulated::libraries(env!("CARGO_MANIFEST_DIR").as_ref());
    let whole = run(&libraries, &[("BF16", "1")]);
    for n in 1..200 {
        let found = run(&libraries, &[("BF16", "1"), ("SIMULATED_FULL", &n.to_string())]);
        if found == whole {
            assert!(n > 20, "only {n} allocations");
            return;
        }
        assert!(
            found.contains("memory is full") && found.contains("--batch-size"),
            "allocation {n}: {found}"
        );
    }
    panic!("200 allocations do not end");
}

#[test]
fn the_compiled_kernels_are_those_of_the_source() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
    let source = std::fs::read(folder.join("kernels.cu")).unwrap();
    let hash: String = Sha256::digest(source).iter().map(|byte| format!("{byte:02x}")).collect();
    let compiled = std::fs::read_to_string(folder.join("kernels.ptx")).unwrap();
    assert!(compiled.starts_with(&format!("// SHA-256 of kernels.cu: {hash}\n")), "run src/cuda/compile.py");
}
