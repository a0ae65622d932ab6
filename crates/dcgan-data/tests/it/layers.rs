//! The modules of the library form layers, in the order stated in `src/lib.rs`.

use std::path::{Path, PathBuf};

/// The modules in the order of the list in the documentation of the crate.
fn modules(lib: &str) -> Vec<&str> {
    let (_, list) = lib.split_once("//! # Modules").unwrap();
    let lines = list.lines().skip_while(|line| !line.starts_with("//! 1.")).take_while(|line| line.len() > 3);
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The top-level modules named in `use crate::...` lines.
fn used(source: &str) -> Vec<String> {
    let paths = source.lines().filter_map(|line| line.trim().strip_prefix("use crate::"));
    paths.map(|path| path.split([':', ';']).next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn modules_use_only_modules_of_lower_layers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = std::fs::read_to_string(src.join("lib.rs")).unwrap();
    let order = modules(&lib);
    let declared =
        lib.lines().filter(|line| line.starts_with("mod ") || line.starts_with("pub mod ")).count();
    assert_eq!(order.len(), declared, "{order:?}");
    for (layer, module) in order.iter().enumerate() {
        let folder = src.join(module);
        let mut files: Vec<PathBuf> = if folder.is_dir() {
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        } else {
            Vec::new()
        };
        files.extend(Some(src.join(format!("{module}.rs"))).filter(|file| file.is_file()));
        assert!(!files.is_empty(), "{module} has no file");
        for file in files {
            for name in used(&std::fs::read_to_string(&file).unwrap()) {
                let is_lower = order[..layer].contains(&name.as_str()) || name == *module;
                assert!(is_lower, "{} uses {name}", file.display());
            }
        }
    }
}
