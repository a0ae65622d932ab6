//! Parsing and checks of options shared by several binaries.

use crate::UsageError;
use clap::{Arg, Command, Parser};
use dcgan_base::files;
use std::any::TypeId;
use std::fmt::Display;
use std::path::Path;
use std::sync::OnceLock;

/// Parses the command line. Negative numbers are values of numeric options: `--seed -1` is a seed out of range and not
/// an unknown option.
///
/// # Errors
/// Those of clap: wrong usage, and `--help`.
pub fn try_parse<C: Parser>() -> Result<C, clap::Error> {
    let mut command = with_negative_numbers(C::command());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    C::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn with_negative_numbers(command: Command) -> Command {
    let subcommands: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = command.mut_args(|argument| {
        let value = argument.get_value_parser().type_id();
        let is = |types: &[TypeId]| types.iter().any(|known| value == *known);
        // A pair is a size.
        let integers =
            [TypeId::of::<u64>(), TypeId::of::<usize>(), TypeId::of::<u32>(), TypeId::of::<(usize, usize)>()];
        if is(&[TypeId::of::<f64>()]) {
            number(argument).value_parser(float::<f64>)
        } else if is(&[TypeId::of::<f32>()]) {
            number(argument).value_parser(float::<f32>)
        } else if is(&integers) && argument.get_action().takes_values() {
            number(argument)
        } else {
            argument
        }
    });
    subcommands.iter().fold(command, |command, name| command.mut_subcommand(name, with_negative_numbers))
}

/// A numeric option. A list such as `-1,2` is not a number to clap.
fn number(argument: Arg) -> Arg {
    if argument.get_value_delimiter().is_some() {
        argument.allow_hyphen_values(true)
    } else {
        argument.allow_negative_numbers(true)
    }
}

fn float<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| "expected a number".to_owned())
}

/// A parser of integers whose messages name the limits, `u64::MAX` for none. Integers that `T` holds pass, also those
/// out of the limits: the command reports these together with its other faults.
pub fn integer<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let value = text.trim().parse::<u64>().ok().and_then(|value| T::try_from(value).ok());
        value.ok_or_else(|| match max {
            u64::MAX => format!("expected an integer of at least {min}"),
            max => format!("expected an integer from {min} to {max}"),
        })
    }
}

impl UsageError {
    /// The faults of a check, to be reported together with those of others.
    pub fn faults_of<T>(check: Result<T, Self>) -> Vec<String> {
        check.err().map(|error| error.faults).unwrap_or_default()
    }

    /// A usage error with the message of `error`.
    pub fn because(error: impl Display) -> Self {
        Self::one(error.to_string())
    }
}

/// The size of the global rayon pool, once it was set.
static SIZE: OnceLock<usize> = OnceLock::new();

/// Sets the size of the global rayon pool (`--threads`). `None` keeps the default, one thread per core.
///
/// # Errors
/// A number outside 1 to 4096; the pool cannot be created.
pub fn set_threads(threads: Option<usize>) -> anyhow::Result<()> {
    if let Some(threads) = threads.filter(|threads| !(1..=4096).contains(threads)) {
        return Err(UsageError::one(format!("--threads is {threads}, expected 1 to 4096")).into());
    }
    // A command with several runs sets it for each.
    if let Some(threads) = threads.filter(|threads| SIZE.get() != Some(threads)) {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        let _ = SIZE.set(threads);
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
    use clap::Args;

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

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Work,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Work {
        Draw(Draw),
    }

    #[derive(Args, Debug)]
    struct Draw {
        #[arg(long, default_value_t = 0, value_parser = integer::<u64>(0, u64::MAX))]
        seed: u64,
        #[arg(long, default_value_t = 1, value_parser = integer::<u32>(1, 50))]
        rate: u32,
        #[arg(long, value_delimiter = ',')]
        c: Vec<f64>,
        #[arg(long)]
        out: Option<String>,
    }

    #[test]
    fn numbers_out_of_range_name_the_option_and_its_limits() {
        let parse = |arguments: &[&str]| {
            let command = with_negative_numbers(<Cli as clap::CommandFactory>::command());
            command.try_get_matches_from([&["x", "draw"], arguments].concat()).map_err(|e| e.to_string())
        };
        for (arguments, parts) in [
            (["--seed", "-1"], ["'-1' for '--seed", "expected an integer of at least 0"]),
            (["--seed", "1e3"], ["'1e3' for '--seed", "expected an integer of at least 0"]),
            (["--seed", "18446744073709551616"], ["for '--seed", "expected an integer of at least 0"]),
            (["--rate", "-3"], ["'-3' for '--rate", "expected an integer from 1 to 50"]),
            (["--rate", "4294967296"], ["'4294967296' for '--rate", "expected an integer from 1 to 50"]),
            (["--c", "x"], ["'x' for '--c", "expected a number"]),
            (["--c", "-x"], ["'-x' for '--c", "expected a number"]),
            (["--out", "-1"], ["unexpected argument '-1'", "Usage"]),
        ] {
            let message = parse(&arguments).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{arguments:?}: {message}");
        }
        // Numbers that the type holds are left to the command.
        for arguments in [["--rate", "70"], ["--c", "-1,1e-3"], ["--c", "-1e-3"]] {
            parse(&arguments).unwrap();
        }
    }
}
