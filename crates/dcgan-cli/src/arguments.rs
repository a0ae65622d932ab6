//! Checks of options shared by several binaries.

use crate::UsageError;
use dcgan_base::files;
use std::fmt::Display;
use std::path::Path;

impl UsageError {
    /// A usage error with the message of `error`.
    pub fn because(error: impl Display) -> Self {
        Self::one(error.to_string())
    }
}

/// Sets the size of the global rayon pool (`--threads`). `None` keeps the default, one thread per core.
///
/// # Errors
/// A number outside 1 to 4096; the pool cannot be created.
pub fn set_threads(threads: Option<usize>) -> anyhow::Result<()> {
    if let Some(threads) = threads.filter(|threads| !(1..=4096).contains(threads)) {
        return Err(UsageError::one(format!("--threads is {threads}, expected 1 to 4096")).into());
    }
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Ok(())
}

/// Checks the output file of `option`, before any expensive work: what may be written there, and that the extension is
/// one of `extensions` (lowercase) or absent. Without `extensions` every name is accepted. `-` is standard output.
///
/// # Errors
/// A path that cannot be written ([`files::check_output`]); another extension.
pub fn check_output(option: &str, out: &Path, extensions: &[&str]) -> Result<(), UsageError> {
    let mut faults = Vec::new();
    faults.extend(wrong_extension(option, out, extensions));
    if let Err(error) = files::check_output(out) {
        faults.push(format!("{option} {}: {error}", out.display()));
    }
    if faults.is_empty() { Ok(()) } else { Err(UsageError { faults }) }
}

/// The fault of a name whose extension promises another format than those of `extensions`.
pub fn wrong_extension(option: &str, out: &Path, extensions: &[&str]) -> Option<String> {
    let extension = out.extension()?.to_string_lossy().to_lowercase();
    if extensions.is_empty() || extensions.contains(&extension.as_str()) {
        return None;
    }
    let list = extensions.iter().map(|extension| format!(".{extension}")).collect::<Vec<_>>().join(", ");
    Some(format!("{option} {}: .{extension} is not written, expected {list}, or no extension", out.display()))
}

/// Checks that the folder of `option` can be created: it does not exist, or is empty.
///
/// # Errors
/// Anything else ([`files::check_new_folder`]).
pub fn check_new_folder(option: &str, out: &Path) -> Result<(), UsageError> {
    files::check_new_folder(out)
        .map_err(|error| UsageError::one(format!("{option} {}: {error}", out.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_name_the_format() {
        let rows: &[(&str, &[&str], bool)] = &[
            ("a.png", &["png", "jpg"], true),
            ("a.JPG", &["png", "jpg"], true),
            ("a", &["png"], true),
            ("-", &["png"], true),
            ("a.tiff", &["png"], false),
            ("a.png.bak", &["png"], false),
            ("a.tiff", &[], true),
        ];
        for (path, extensions, accepted) in rows {
            let found = wrong_extension("--out", Path::new(path), extensions);
            assert_eq!(found.is_none(), *accepted, "{path}: {found:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let error = check_output("--out", &folder.path().join("no/a.tiff"), &["png", "jpg"]).unwrap_err();
        let [extension, missing] = error.faults.as_slice() else { panic!("{error:?}") };
        assert!(
            extension.ends_with(".tiff is not written, expected .png, .jpg, or no extension"),
            "{extension}"
        );
        assert!(missing.contains("does not exist"), "{missing}");
    }
}
