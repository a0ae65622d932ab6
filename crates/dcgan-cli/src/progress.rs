//! Progress on stderr: a progress bar on a terminal, otherwise a plain line every few seconds.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::logs::Logging;

/// Time between two plain lines, long enough to keep the log of a day's run readable.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// A progress display on stderr. Hidden with `--quiet`.
#[derive(Debug)]
pub struct Progress {
    display: Display,
}

#[derive(Debug)]
enum Display {
    Hidden,
    Bar(ProgressBar),
    Plain(Mutex<Plain>),
}

impl Progress {
    /// Starts a display of progress towards `total`. `unit` is a plural noun such as "steps" or "images".
    pub fn new(logging: &Logging, total: u64, unit: &str) -> Self {
        let display = if logging.is_quiet() {
            Display::Hidden
        } else if io::stderr().is_terminal() {
            let bar = logging.bars().add(ProgressBar::new(total));
            let template =
                format!("{{elapsed_precise}} [{{bar:28}}] {{human_pos}}/{{human_len}} {unit}, {{eta}} left");
            // Only the unit varies; if it makes the template invalid, indicatif's default style is used.
            let style =
                ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            Display::Bar(bar)
        } else {
            Display::Plain(Mutex::new(Plain::new(total, unit)))
        };
        Self { display }
    }

    /// Sets the number of completed units.
    pub fn set(&self, position: u64) {
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar) => bar.set_position(position),
            Display::Plain(plain) => {
                let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
                plain.position = position;
                if plain.printed_at.elapsed() >= PLAIN_INTERVAL {
                    plain.print();
                }
            }
        }
    }

    /// Ends the display; its last state stays on the screen. Dropping does the same.
    pub fn finish(self) {}
}

impl Drop for Progress {
    fn drop(&mut self) {
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar) => bar.abandon(),
            Display::Plain(plain) => {
                let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
                // Nothing was processed, so there is no progress to print.
                if plain.position > 0 {
                    plain.print();
                }
            }
        }
    }
}

/// The state behind the plain lines.
#[derive(Debug)]
struct Plain {
    total: u64,
    unit: String,
    position: u64,
    printed_at: Instant,
}

impl Plain {
    fn new(total: u64, unit: &str) -> Self {
        Self { total, unit: unit.to_owned(), position: 0, printed_at: Instant::now() }
    }

    fn line(&self) -> String {
        format!("{}/{} {}", self.position, self.total, self.unit)
    }

    fn print(&mut self) {
        self.printed_at = Instant::now();
        // A closed stderr must not stop the command.
        let _ = writeln!(io::stderr(), "{}", self.line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_names_position_total_and_unit() {
        let mut plain = Plain::new(200, "steps");
        plain.position = 50;
        assert_eq!(plain.line(), "50/200 steps");
    }
}
