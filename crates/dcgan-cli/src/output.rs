//! Results on stdout.

use crate::{Logging, UsageError};
use dcgan_base::files::Destination;
use indicatif::MultiProgress;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;

/// Prints the results of a command: text for people and, with `--json`, one line of JSON for programs.
///
/// What else is on stdout decides where text goes. By default it is printed on stdout. With `--json`, stdout carries
/// the line of JSON and nothing else; where an output file is `-`, stdout carries that file and nothing else. Text then
/// goes to stderr, and with `--quiet` nowhere.
#[derive(Clone, Debug, Default)]
pub struct Results {
    text: Text,
    json: bool,
}

#[derive(Clone, Debug, Default)]
enum Text {
    #[default]
    Stdout,
    Stderr(MultiProgress),
    Hidden,
}

impl Results {
    /// The results of a command with the flag `--json` and the output files `outputs`.
    ///
    /// # Errors
    /// More than one of them is to be written to stdout.
    pub fn new(logging: &Logging, json: bool, outputs: &[Option<&Path>]) -> Result<Self, UsageError> {
        let is_stdout = |path: &&Path| Destination::of(path).is_ok_and(|to| to == Destination::Stdout);
        let files = outputs.iter().flatten().filter(|path| is_stdout(path)).count();
        if files + usize::from(json) > 1 {
            let other = if json { "--json" } else { "another output" };
            let fault = format!("an output file is standard output (-), and so is {other}: name a file");
            return Err(UsageError::one(fault));
        }
        let text = match (files + usize::from(json), logging.is_quiet()) {
            (0, _) => Text::Stdout,
            (_, true) => Text::Hidden,
            (_, false) => Text::Stderr(logging.bars().clone()),
        };
        Ok(Self { text, json })
    }

    /// Whether `--json` is given.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints text for people.
    ///
    /// # Errors
    /// Those of [`print_result`].
    pub fn text(&self, text: &str) -> io::Result<()> {
        match &self.text {
            Text::Stdout => print_result(text),
            Text::Hidden => Ok(()),
            Text::Stderr(bars) => {
                let write = || writeln!(io::stderr(), "{text}");
                // A closed stderr must not stop the command.
                let _ = if io::stderr().is_terminal() { bars.suspend(write) } else { write() };
                Ok(())
            }
        }
    }

    /// Prints a line of JSON, if `--json` is given.
    ///
    /// # Errors
    /// Those of [`print_result`].
    pub fn json(&self, line: &impl Display) -> io::Result<()> {
        if self.json { print_result(&line.to_string()) } else { Ok(()) }
    }
}

/// Writes one line to stdout and flushes it.
///
/// A closed pipe (`| head -1`) is not an error: the command itself succeeded.
///
/// # Errors
///
/// Any other failure to write to stdout, such as a full disk.
pub fn print_result(line: &str) -> io::Result<()> {
    write_line(&mut io::stdout().lock(), line)
}

fn write_line(out: &mut impl Write, line: &str) -> io::Result<()> {
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot write to stdout: {error}"))),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_broken_pipe_is_ignored_and_other_failures_are_errors() {
        assert!(write_line(&mut Failing(ErrorKind::BrokenPipe), "x").is_ok());
        assert!(write_line(&mut Failing(ErrorKind::StorageFull), "x").is_err());
        let mut out = Vec::new();
        write_line(&mut out, "x").unwrap();
        assert_eq!(out, b"x\n");
    }
}
