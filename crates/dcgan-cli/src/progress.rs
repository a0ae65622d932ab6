//! Progress on stderr: a progress bar on a terminal, otherwise a plain line every few seconds.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

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
                plain.set(position);
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
    started_at: Instant,
    /// The first position that was set: a resumed run does not start at 0.
    started_from: Option<u64>,
    printed_at: Instant,
}

impl Plain {
    fn new(total: u64, unit: &str) -> Self {
        let now = Instant::now();
        Self {
            total,
            unit: unit.to_owned(),
            position: 0,
            started_at: now,
            started_from: None,
            printed_at: now,
        }
    }

    fn set(&mut self, position: u64) {
        self.position = position;
        if self.started_from.is_none() {
            (self.started_from, self.started_at) = (Some(position), Instant::now());
        }
    }

    fn line(&self) -> String {
        let line = format!("{}/{} {}", self.position, self.total, self.unit);
        match self.left() {
            Some(left) => format!("{line}, {} left", HumanDuration(left)),
            None => line,
        }
    }

    /// The time that the rest takes at the speed so far.
    fn left(&self) -> Option<Duration> {
        let from = self.started_from?;
        let done = self.position.checked_sub(from).filter(|done| *done > 0)?;
        let rest = self.total.checked_sub(self.position).filter(|rest| *rest > 0)?;
        // Not a number of seconds: centuries.
        Duration::try_from_secs_f64(self.started_at.elapsed().as_secs_f64() * rest as f64 / done as f64).ok()
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
    fn a_plain_line_names_position_total_unit_and_the_time_left() {
        let mut plain = Plain::new(200, "steps");
        plain.set(50);
        assert_eq!(plain.line(), "50/200 steps");
        plain.started_at = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        plain.set(100); // 50 steps in a minute, 100 to go
        assert_eq!(plain.line(), "100/200 steps, 2 minutes left");
        plain.set(200);
        assert_eq!(plain.line(), "200/200 steps");
    }
}
