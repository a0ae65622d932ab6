//! Builds the simulated driver and cuDNN.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with `libcuda.so.1` and `libcudnn.so.9`, built from `simulated_gpu/` and the program's kernels. `package`
/// is the folder of dcgan-ops.
pub(crate) fn libraries(package: &Path) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| build(package)).clone()
}

fn build(package: &Path) -> PathBuf {
    let source = package.join("tests/simulated_gpu");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulated_gpu");
    std::fs::create_dir_all(&folder).unwrap();
    for (file, library) in [("libcuda.cpp", "libcuda.so.1"), ("libcudnn.cpp", "libcudnn.so.9")] {
        let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "g++".into()));
        compiler.args(["-O2", "-std=c++17", "-fPIC", "-shared", "-Wno-unknown-pragmas"]);
        compiler.arg("-I").arg(package.join("src/cuda")).arg("-I").arg(&source);
        let new = folder.join(format!("{library}.{}", std::process::id()));
        compiler.arg(source.join(file)).arg("-o").arg(&new).arg("-ldl");
        let status =
            compiler.status().expect("the simulated GPU needs a C++ compiler: install g++, or set CXX");
        assert!(status.success(), "{file}: {status}");
        std::fs::rename(&new, folder.join(library)).unwrap(); // another process may be loading it
    }
    folder
}
