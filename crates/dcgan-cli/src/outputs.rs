//! Output files that would overwrite what a command reads, or each other.

use crate::{UsageError, check_output};
use dcgan_base::files::Destination;
use std::fs;
use std::path::{Path, PathBuf};

/// An output file of a command.
#[derive(Clone, Copy, Debug)]
pub struct OutputFile<'a> {
    /// The option that names it.
    pub option: &'a str,
    /// Its path.
    pub path: &'a Path,
    /// The extensions of its format, lowercase; without any, every name is accepted.
    pub extensions: &'a [&'a str],
}

/// The faults of output files that cannot be written, that have the extension of another format ([`check_output`]), or
/// that would overwrite each other, one of `inputs`, or a file in a folder of `inputs`. An input is a path with the
/// option that names it.
pub fn check_outputs(inputs: &[(&str, &Path)], outputs: &[OutputFile<'_>]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut known: Vec<(&str, PathBuf)> =
        inputs.iter().filter_map(|(option, path)| Some((*option, canonical(path)?))).collect();
    for OutputFile { option, path, extensions } in outputs {
        let shown = path.display();
        faults.extend(UsageError::faults_of(check_output(option, path, extensions)));
        // Devices and pipes can be named twice.
        let Ok(Destination::File(target)) = Destination::of(path) else { continue };
        let Some(file) = canonical(&target) else { continue };
        for (other, _) in known.iter().filter(|(_, earlier)| *earlier == file) {
            faults.push(format!("{other} and {option} are the same file, {shown}: name another output"));
        }
        let contains = |earlier: &Path| earlier.is_dir() && file.starts_with(earlier) && file.exists();
        for (other, _) in known.iter().filter(|(_, earlier)| contains(earlier)) {
            faults.push(format!("{option} {shown} is a file in {other}: name another output"));
        }
        known.push((option, file));
    }
    faults
}

/// A path that is equal for all names of a file, whether it exists or not: its canonical folder joined with its name.
/// None if the folder does not exist.
fn canonical(path: &Path) -> Option<PathBuf> {
    let new = || Some(fs::canonicalize(folder_of(path)).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(new)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
