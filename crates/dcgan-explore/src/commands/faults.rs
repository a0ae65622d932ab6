//! What can be wrong with a command's options, gathered to be told at once.

use crate::cli::{DataArgs, ModelArgs};
use dcgan_cli::UsageError;
use dcgan_explore::latent::Spec;
use std::fmt::Display;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Faults of a command's options.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<String>);

/// Files that a command reads, with the options that name them.
#[derive(Debug, Default)]
pub(crate) struct Inputs(Vec<(&'static str, PathBuf)>);

impl Inputs {
    /// Those of a model.
    pub(crate) fn model(args: &ModelArgs) -> Self {
        Self::default().file("--model", args.model.as_ref()).file("--config", args.config.as_ref())
    }

    /// These and the images.
    pub(crate) fn data(self, args: &DataArgs) -> Self {
        self.file("--data", args.data.as_ref())
    }

    /// These and another one, where it is given.
    pub(crate) fn file(mut self, option: &'static str, path: Option<&PathBuf>) -> Self {
        self.0.extend(path.map(|path| (option, path.clone())));
        self
    }

    /// These and the files of z among `specs`. A spec that cannot be parsed is no file; it is refused where it is read.
    pub(crate) fn z(mut self, option: &'static str, specs: &[String]) -> Self {
        self.0.extend(specs.iter().filter_map(|spec| match spec.parse() {
            Ok(Spec::File { path, .. }) => Some((option, path)),
            _ => None,
        }));
        self
    }
}

impl Faults {
    /// Notes `fault` unless `ok`.
    pub(crate) fn check(&mut self, ok: bool, fault: impl FnOnce() -> String) {
        if !ok {
            self.0.push(fault());
        }
    }

    /// Notes a value of `option` that is out of its range.
    pub(crate) fn range<T: PartialOrd + Display + Copy>(
        &mut self,
        option: &str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        self.check(range.contains(&value), || {
            format!("{option} {value}: expected {} to {}", range.start(), range.end())
        });
    }

    /// Notes files to write that cannot be, that are one file, that are one of the `inputs`, or that stand in a folder of these.
    pub(crate) fn outputs(&mut self, inputs: &Inputs, outputs: &[(&'static str, Option<&Path>)]) {
        let read = inputs.0.iter().map(|(option, path)| (*option, path.as_path()));
        let mut known: Vec<(&str, PathBuf)> =
            read.filter_map(|(option, path)| Some((option, same_file(path)?))).collect();
        for (option, path) in outputs.iter().filter_map(|(option, path)| Some((*option, (*path)?))) {
            let shown = path.display();
            let folder = folder_of(path);
            self.check(folder.is_dir(), || {
                format!("{option} {shown}: the folder {} does not exist", folder.display())
            });
            self.check(!path.is_dir(), || format!("{option} {shown} is a folder"));
            let is_named =
                path.file_name().is_some() && !shown.to_string().ends_with(std::path::is_separator);
            self.check(is_named || path.is_dir(), || format!("{option} {shown} does not name a file"));
            let Some(file) = same_file(path) else { continue };
            for (other, _) in known.iter().filter(|(_, earlier)| *earlier == file) {
                self.0.push(format!("{other} and {option} are one file, {shown}: name another one to write"));
            }
            let within = |earlier: &Path| earlier.is_dir() && file.starts_with(earlier) && file.exists();
            for (other, _) in known.iter().filter(|(_, earlier)| within(earlier)) {
                self.0.push(format!("{option} {shown} is a file of {other}: name another one to write"));
            }
            known.push((option, file));
        }
    }

    /// The value of `result`, or a note of its error.
    pub(crate) fn take<T, E: Display>(&mut self, option: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.0.push(format!("{option}: {error}"))).ok()
    }

    /// An error where anything was noted.
    pub(crate) fn end(self) -> Result<(), UsageError> {
        if self.0.is_empty() { Ok(()) } else { Err(UsageError { faults: self.0 }) }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What is the same for all names of a file, whether it exists or not: its folder without links and dots, and its name in it.
/// None where the folder does not exist.
fn same_file(path: &Path) -> Option<PathBuf> {
    let new = || Some(fs::canonicalize(folder_of(path)).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(new)
}
