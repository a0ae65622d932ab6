//! Who may depend on whom, and which libraries stay out of which crate: ARCHITECTURE.md's invariants.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Names under `[dependencies]` and `[build-dependencies]` of a crate.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(manifest).unwrap();
    let manifest: toml::Table = toml::from_str(&text).unwrap();
    let tables =
        ["dependencies", "build-dependencies"].into_iter().filter_map(|name| manifest.get(name)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn dependencies_run_downwards_only() {
    // A crate, the crates of this workspace it may name, and libraries it must not.
    let rules: &[(&str, &[&str], &[&str])] = &[
        ("dcgan-base", &[], &["candle-core", "clap", "image", "tracing"]),
        ("dcgan-ops", &["dcgan-base"], &["image", "clap", "safetensors", "tracing", "rand"]),
        (
            "dcgan-model",
            &["dcgan-base", "dcgan-ops", "dcgan-remote"],
            &["image", "clap", "tracing", "indicatif", "linfa", "ndarray"],
        ),
        (
            "dcgan-data",
            &["dcgan-base", "dcgan-cli", "dcgan-remote"],
            &["candle-core", "candle-nn", "linfa", "ndarray", "safetensors"],
        ),
        ("dcgan-remote", &["dcgan-base"], &["candle-core", "clap", "image"]),
        ("dcgan-cli", &["dcgan-base"], &["candle-core", "image", "ndarray"]),
        ("dcgan-mpi", &["dcgan-base", "dcgan-cli", "dcgan-ops"], &["candle-core", "clap", "image"]),
        ("dcgan-svm", &["dcgan-base"], &["candle-core", "clap", "image", "tracing"]),
        (
            "dcgan-features",
            &[
                "dcgan-base",
                "dcgan-model",
                "dcgan-metrics",
                "dcgan-data",
                "dcgan-cli",
                "dcgan-mpi",
                "dcgan-ops",
                "dcgan-svm",
            ],
            &["linfa", "linfa-svm", "ndarray"],
        ),
        (
            "dcgan-explore",
            &["dcgan-base", "dcgan-model", "dcgan-data", "dcgan-cli", "dcgan-ops", "dcgan-features"],
            &["linfa", "linfa-svm", "ndarray"],
        ),
        (
            "dcgan-metrics",
            &["dcgan-base", "dcgan-model", "dcgan-ops"],
            &["clap", "image", "linfa", "linfa-svm", "ndarray", "tracing"],
        ),
        (
            "dcgan-train",
            &[
                "dcgan-base",
                "dcgan-metrics",
                "dcgan-model",
                "dcgan-remote",
                "dcgan-data",
                "dcgan-cli",
                "dcgan-mpi",
                "dcgan-ops",
            ],
            &["linfa", "linfa-svm", "ndarray"],
        ),
    ];
    let service =
        ["axum", "futures-util", "hyper", "hyper-util", "rusqlite", "subtle", "tokio", "tower-http"];
    let folders: BTreeSet<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let known: BTreeSet<String> = rules.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(folders, known, "every crate has a rule, every rule a crate");
    for (name, allowed, forbidden) in rules {
        for dependency in dependencies(&root().join("crates").join(name).join("Cargo.toml")) {
            let ours = dependency.starts_with("dcgan-");
            assert!(
                !ours || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
            let is_service = service.contains(&dependency.as_str());
            assert!(
                !forbidden.contains(&dependency.as_str())
                    && (!is_service || ["dcgan-train", "dcgan-remote"].contains(name)),
                "{name} must not name {dependency}"
            );
        }
    }
}

/// Every Rust file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn sources_keep_to_the_house_rules() {
    let mut files = sources(&root().join("crates"));
    files.extend(sources(&root().join("tests")));
    assert!(files.len() > 40, "found only {} files", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        assert!(text.starts_with("//!"), "{name} has no head");
        assert!(text.lines().count() <= 600, "{name} is longer than 600 lines");
        // Only kernels hold unsafe code, and one crate prints.
        let is_kernel =
            ["crates/dcgan-ops/src/cpu/", "crates/dcgan-ops/src/cuda/", "crates/dcgan-svm/src/kernel/"]
                .iter()
                .any(|folder| name.starts_with(folder));
        // Pointers for the gemm crate, and instructions of the processor.
        let is_product = ["crates/dcgan-base/src/matrix.rs", "crates/dcgan-base/src/nearest_bytes.rs"]
            .contains(&name.as_str());
        let is_handover = name == "crates/dcgan-mpi/src/mpi_thread.rs"; // buffers for the thread that owns MPI
        let is_mapping = name == "crates/dcgan-data/src/bytes.rs"; // memory maps
        let this_test = name.ends_with("layering.rs");
        assert!(
            is_kernel
                || is_product
                || is_handover
                || is_mapping
                || this_test
                || !["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| text.contains(word)),
            "{name} holds unsafe code"
        );
        // The network and the database are the service's, but for datasets at addresses. Its handlers compute nothing,
        // and it trains by the trainer alone.
        let in_service = name.starts_with("crates/dcgan-train/src/service/");
        let is_remote = name.starts_with("crates/dcgan-remote/");
        let fuzzes_service = name == "tests/fuzz/src/targets.rs"; // sends requests to it
        let network = ["axum::", "hyper::", "rusqlite::", "tokio::"].iter().any(|word| text.contains(word));
        assert!(
            in_service || is_remote || fuzzes_service || this_test || !network,
            "{name} names the network or the database"
        );
        let computes = ["candle_core", "dcgan_model", "dcgan_ops", "trainer::"];
        let is_handler = name.starts_with("crates/dcgan-train/src/service/api/");
        assert!(!is_handler || !computes.iter().any(|word| text.contains(word)), "{name} computes");
        assert!(!in_service || text.lines().count() <= 400, "{name} is longer than 400 lines");
        let trains = ["train_step", "step::", "Loader"].iter().any(|word| text.contains(word));
        assert!(!in_service || !trains, "{name} holds training logic");
        let prints = ["println!(", "eprintln!(", "print!("].iter().any(|print| text.contains(print));
        let is_example = name.contains("/examples/");
        let may_print = name.starts_with("crates/dcgan-cli/") || name.starts_with("tests/") || is_example;
        assert!(may_print || this_test || !prints, "{name} prints");
    }
}

#[test]
fn versions_stand_in_one_table() {
    for manifest in sources_of_manifests() {
        let text = std::fs::read_to_string(&manifest).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in table.get(section).and_then(|t| t.as_table()).into_iter().flatten() {
                let inherited = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(
                    inherited,
                    "{}: {name} does not come from [workspace.dependencies]",
                    manifest.display()
                );
            }
        }
    }
}

fn sources_of_manifests() -> Vec<PathBuf> {
    let crates = std::fs::read_dir(root().join("crates")).unwrap();
    let mut manifests: Vec<PathBuf> = crates.map(|entry| entry.unwrap().path().join("Cargo.toml")).collect();
    manifests.push(root().join("tests/Cargo.toml"));
    manifests
}
