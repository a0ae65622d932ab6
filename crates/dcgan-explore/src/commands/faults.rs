//! Configuration errors of a command, collected to report all of them at once.

use crate::cli::{DataArgs, ModelArgs};
use dcgan_cli::{Logging, OutputFile, Results, UsageError, check_outputs};
use dcgan_data::image_file::EXTENSIONS;
use dcgan_explore::latent::LatentSpec;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Maximum size of the images of a command, in bytes. Several copies of them are in memory at a time.
pub(crate) const MAX_IMAGE_BYTES: usize = 512 << 20;

/// Configuration errors.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<String>);

/// The files that a command reads, with their options.
#[derive(Debug, Default)]
pub(crate) struct InputFiles(Vec<(&'static str, PathBuf)>);

impl InputFiles {
    /// The files of a model.
    pub(crate) fn model(args: &ModelArgs) -> Self {
        Self::default().file("--model", args.model.as_ref()).file("--config", args.config.as_ref())
    }

    /// Adds the dataset.
    pub(crate) fn data(self, args: &DataArgs) -> Self {
        self.file("--data", args.data.as_ref())
    }

    /// Adds a file, if it is given.
    pub(crate) fn file(mut self, option: &'static str, path: Option<&PathBuf>) -> Self {
        self.0.extend(path.map(|path| (option, path.clone())));
        self
    }

    /// Adds the files of z among `specs`. Invalid specs are skipped here and reported when they are resolved.
    pub(crate) fn z(mut self, option: &'static str, specs: &[String]) -> Self {
        let path = |spec: &String| spec.parse::<LatentSpec>().ok()?.path().map(Path::to_owned);
        self.0.extend(specs.iter().filter_map(path).map(|path| (option, path)));
        self
    }
}

impl Faults {
    /// Records `fault` unless `ok`.
    pub(crate) fn check(&mut self, ok: bool, fault: impl FnOnce() -> String) {
        if !ok {
            self.0.push(fault());
        }
    }

    /// Whether no fault was recorded.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Records the faults of `result`.
    pub(crate) fn record<T>(&mut self, result: Result<T, UsageError>) {
        self.0.extend(UsageError::faults_of(result));
    }

    /// Records a value of `option` out of range.
    pub(crate) fn check_range<T: PartialOrd + Display + Copy>(
        &mut self,
        option: &str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        self.check(range.contains(&value), || {
            format!("{option} {value}: expected {} to {}", range.start(), range.end())
        });
    }

    /// Records the faults of output files ([`dcgan_cli::check_outputs`]). Returns where results are printed, with or
    /// without `--json`.
    pub(crate) fn check_outputs(
        &mut self,
        (logging, json): (&Logging, bool),
        inputs: &InputFiles,
        outputs: &[(&'static str, Option<&Path>)],
    ) -> Results {
        let read: Vec<_> = inputs.0.iter().map(|(option, path)| (*option, path.as_path())).collect();
        let given = outputs.iter().filter_map(|(option, path)| Some((*option, (*path)?)));
        let written: Vec<_> =
            given.map(|(option, path)| OutputFile { option, path, extensions: extensions(option) }).collect();
        self.0.extend(check_outputs(&read, &written));
        let paths: Vec<Option<&Path>> = outputs.iter().map(|(_, path)| *path).collect();
        Results::new(logging, json, &paths).unwrap_or_else(|error| {
            self.0.extend(error.faults);
            Results::default() // not used after a fault
        })
    }

    /// Records more images than fit in [`MAX_IMAGE_BYTES`], each of `bytes`; `option` sets their number.
    pub(crate) fn check_bytes(&mut self, option: &str, count: usize, bytes: usize) {
        self.check_bytes_within(MAX_IMAGE_BYTES, option, count, bytes);
    }

    /// Records more items than fit in `limit`, each of `bytes`; `option` sets their number.
    pub(crate) fn check_bytes_within(&mut self, limit: usize, option: &str, count: usize, bytes: usize) {
        self.check(count.saturating_mul(bytes) <= limit, || {
            let max = limit / bytes.max(1);
            format!("{option}: {count} x {bytes} bytes exceed {} MiB, use at most {max}", limit >> 20)
        });
    }

    /// The value of `result`. Usage errors are recorded, other errors returned.
    pub(crate) fn collect<T>(&mut self, result: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        match result.map_err(anyhow::Error::downcast::<UsageError>) {
            Ok(value) => Ok(Some(value)),
            Err(Ok(usage)) => {
                self.0.extend(usage.faults);
                Ok(None)
            }
            Err(Err(error)) => Err(error),
        }
    }

    /// The value of `result`; its error is recorded.
    pub(crate) fn ok_or_record<T, E: Display>(&mut self, option: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.0.push(format!("{option}: {error}"))).ok()
    }

    /// `value` if no fault was recorded, else an error with all faults. `value` is None only if a fault was recorded.
    pub(crate) fn into_result<T>(self, value: Option<T>) -> Result<T, UsageError> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(UsageError { faults: self.0 }),
        }
    }
}

/// Extensions of the files that `option` writes.
fn extensions(option: &str) -> &'static [&'static str] {
    match option {
        "--out" | "--grid" => &EXTENSIONS,
        "--gif" => &["gif"],
        "--save-z" => &["safetensors"],
        "--save" | "--template" => &["json"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_depend_on_the_size_of_images() {
        // Number of images, height x width x channels, and whether they fit.
        let rows = [(10_000, 64 * 64 * 3, true), (50_000, 64 * 64 * 3, false), (171, 1024 * 1024 * 3, false)];
        for (count, bytes, fits) in rows {
            let mut faults = Faults::default();
            faults.check_bytes("--n", count, bytes);
            assert_eq!(faults.is_empty(), fits, "{count} images of {bytes} bytes");
        }
        let mut faults = Faults::default();
        faults.check_bytes("--n", 1000, 1 << 20);
        let message = faults.into_result(Some(())).unwrap_err().to_string();
        assert_eq!(message, "--n: 1000 x 1048576 bytes exceed 512 MiB, use at most 512");
    }
}
