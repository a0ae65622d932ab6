//! `dcgan-train export --to web`: a page that draws from a generator in the browser, without a server.
//!
//! Everything binary is base64 in scripts, because a page that is opened as a file may load scripts and nothing else.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dcgan_cli::{UsageError, print_result};
use dcgan_model::{Distribution, ModelConfig};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

/// The npm package of the runtime, and the version that the page is tested with.
const PACKAGE: &str = "onnxruntime-web";
const VERSION: &str = "1.30.0";

/// The files of the package that the page needs.
const SCRIPT: &str = "dist/ort.wasm.min.js";
const MODULE: &str = "dist/ort-wasm-simd-threaded.mjs";
const BINARY: &str = "dist/ort-wasm-simd-threaded.wasm";
const MANIFEST: &str = "package.json";

/// Maximum bytes of one file of the package.
const MAX_FILE_BYTES: u64 = 1 << 28;

/// Arithmetic on z, a module of the service's page.
const LATENT: &str = include_str!("../service/page/latent.js");

const PAGE: [(&str, &str); 3] = [
    ("style.css", include_str!("web_page/style.css")),
    ("page.js", include_str!("web_page/page.js")),
    // The last file, so that a folder with it is complete.
    ("index.html", include_str!("web_page/index.html")),
];

/// The runtime of the page.
pub(crate) struct Runtime {
    version: String,
    script: Vec<u8>,
    module: Vec<u8>,
    binary: Vec<u8>,
}

/// What `model.js` says about the network.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description<'a> {
    name: &'a str,
    /// Version of the program.
    version: &'a str,
    z: usize,
    distribution: Distribution,
    height: usize,
    width: usize,
    channels: usize,
    classes: usize,
    class_names: &'a [String],
    license: Option<&'a str>,
    /// The ONNX file, in gzip, as base64.
    onnx: String,
}

/// What `runtime/wasm.js` contains.
#[derive(Serialize)]
struct Wasm<'a> {
    version: &'a str,
    /// The module that starts the binary, as base64.
    module: String,
    /// The WebAssembly, in gzip, as base64.
    binary: String,
}

#[derive(Deserialize)]
struct Manifest {
    name: String,
    version: String,
}

impl Runtime {
    /// Reads the package at `given`, its folder or the file of `npm pack`; by default that of the nearest node_modules.
    pub(crate) fn open(given: Option<&Path>) -> Result<Self, UsageError> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => Self::installed().ok_or_else(|| {
                UsageError::one(format!(
                    "--to web needs the npm package {PACKAGE}, and there is no node_modules/{PACKAGE} here or above; \
                     get it with `npm pack {PACKAGE}@{VERSION}`, then give --runtime {PACKAGE}-{VERSION}.tgz"
                ))
            })?,
        };
        let fault = |problem: &str| {
            UsageError::one(format!(
                "--runtime {}: {problem}; expected the folder of the npm package {PACKAGE}, or the file that \
                 `npm pack {PACKAGE}@{VERSION}` writes",
                path.display()
            ))
        };
        let read = if path.is_dir() { from_folder(&path) } else { from_archive(&path) };
        let mut files = read.map_err(|error| fault(&error.to_string()))?;
        let mut take = |name: &str| files.remove(name).ok_or_else(|| fault(&format!("{name} is not in it")));
        let manifest: Manifest = serde_json::from_slice(&take(MANIFEST)?)
            .map_err(|error| fault(&format!("{MANIFEST}: {error}")))?;
        if manifest.name != PACKAGE {
            return Err(fault(&format!("it is the package {}", manifest.name)));
        }
        Ok(Self {
            version: manifest.version,
            script: take(SCRIPT)?,
            module: take(MODULE)?,
            binary: take(BINARY)?,
        })
    }

    fn installed() -> Option<PathBuf> {
        let here = std::env::current_dir().ok()?;
        let folders = here.ancestors().map(|folder| folder.join("node_modules").join(PACKAGE));
        folders.into_iter().find(|folder| folder.is_dir())
    }
}

fn from_folder(folder: &Path) -> io::Result<HashMap<String, Vec<u8>>> {
    let mut files = HashMap::new();
    for name in [MANIFEST, SCRIPT, MODULE, BINARY] {
        match File::open(folder.join(name)) {
            Ok(file) => files.insert(name.to_owned(), bounded(file)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
    }
    Ok(files)
}

fn from_archive(path: &Path) -> io::Result<HashMap<String, Vec<u8>>> {
    let mut files = HashMap::new();
    for entry in tar::Archive::new(GzDecoder::new(File::open(path)?)).entries()? {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let name = name.strip_prefix("package/").unwrap_or(&name);
        if [MANIFEST, SCRIPT, MODULE, BINARY].contains(&name) {
            files.insert(name.to_owned(), bounded(entry)?);
        }
    }
    Ok(files)
}

fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn gzip_base64(bytes: &[u8]) -> io::Result<String> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(STANDARD.encode(encoder.finish()?))
}

/// A script that sets a global variable.
fn script(variable: &str, value: &impl Serialize) -> serde_json::Result<String> {
    Ok(format!("globalThis.{variable} = {};\n", serde_json::to_string(value)?))
}

/// Writes the page to the folder `out`, which is new. `onnx` is the generator with images of bytes.
pub(crate) fn write(
    out: &Path,
    config: &ModelConfig,
    onnx: &[u8],
    license: Option<&str>,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    let description = Description {
        name: &config.name,
        version: env!("CARGO_PKG_VERSION"),
        z: config.latent.size,
        distribution: config.latent.distribution,
        height: config.height,
        width: config.width,
        channels: config.channels,
        classes: config.classes,
        class_names: &config.class_names,
        license,
        onnx: gzip_base64(onnx)?,
    };
    let wasm = Wasm {
        version: &runtime.version,
        module: STANDARD.encode(&runtime.module),
        binary: gzip_base64(&runtime.binary)?,
    };
    let scripts = [
        ("runtime/ort.wasm.min.js", runtime.script.clone()),
        ("runtime/wasm.js", script("WASM", &wasm)?.into_bytes()),
        ("model.js", script("MODEL", &description)?.into_bytes()),
        // A page that is opened as a file loads no modules.
        ("latent.js", LATENT.replace("\nexport ", "\n").into_bytes()),
    ];
    let page = PAGE.map(|(name, text)| (name, text.as_bytes().to_vec()));
    let folder = out.join("runtime");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (name, bytes) in scripts.into_iter().chain(page) {
        let path = out.join(name);
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    print_result(&out.join("index.html").display().to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("dist")).unwrap();
        let manifest = format!(r#"{{"name": "{name}", "version": "9.8.7"}}"#);
        std::fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), file).unwrap();
        }
        folder
    }

    #[test]
    fn packages_are_read_from_folders_and_archives() {
        let whole = package(PACKAGE, &[SCRIPT, MODULE, BINARY]);
        let archive = whole.path().join("x.tgz");
        let mut builder =
            tar::Builder::new(GzEncoder::new(File::create(&archive).unwrap(), Compression::fast()));
        for name in [MANIFEST, SCRIPT, MODULE, BINARY] {
            builder.append_path_with_name(whole.path().join(name), format!("package/{name}")).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
        for path in [whole.path(), &archive] {
            let runtime = Runtime::open(Some(path)).ok().unwrap();
            assert_eq!(runtime.version, "9.8.7");
            assert_eq!((&runtime.script[..], &runtime.module[..]), (SCRIPT.as_bytes(), MODULE.as_bytes()));
            assert_eq!(runtime.binary, BINARY.as_bytes());
        }
        let (other, part) = (package("left-pad", &[SCRIPT]), package(PACKAGE, &[SCRIPT, MODULE]));
        let text = whole.path().join(MANIFEST);
        for (path, problem) in [
            (other.path(), "left-pad"),
            (part.path(), BINARY),
            (&text, "--runtime"),
            (Path::new("/nowhere"), "npm pack"),
        ] {
            let faults = Runtime::open(Some(path)).err().unwrap().faults;
            assert!(faults.len() == 1 && faults[0].contains(problem), "{faults:?}");
        }
    }
}
