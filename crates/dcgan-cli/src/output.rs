//! Results on stdout.

use std::io::{self, ErrorKind, Write};

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
