//! Builds the simulated driver, cuDNN and NCCL.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with `libcuda.so.1`, `libcudnn.so.9` and `libnccl.so`, built from `simulated_gpu/` and the program's
/// kernels. `package` is the folder of dcgan-ops.
pub(crate) fn libraries(package: &Path) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| build(package)).clone()
}

fn build(package: &Path) -> PathBuf {
    let source = package.join("tests/simulated_gpu");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulated_gpu");
    std::fs::create_dir_all(&folder).unwrap();
    let libraries =
        [("libcuda.cpp", "libcuda.so.1"), ("libcudnn.cpp", "libcudnn.so.9"), ("libnccl.cpp", "libnccl.so")];
    for (file, library) in libraries {
        let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "g++".into()));
        compiler.args(["-O2", "-std=c++17", "-fPIC", "-shared", "-Wno-unknown-pragmas"]);
        compiler.arg("-I").arg(package.join("src/cuda")).arg("-I").arg(&source);
        let new = folder.join(format!("{library}.{}", std::process::id()));
        compiler.arg(source.join(file)).arg("-o").arg(&new).args(["-ldl", "-pthread"]);
        let status =
            compiler.status().expect("the simulated GPU needs a C++ compiler: install g++, or set CXX");
        assert!(status.success(), "{file}: {status}");
        std::fs::rename(&new, folder.join(library)).unwrap(); // another process may be loading it
    }
    folder
}
