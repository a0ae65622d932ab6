//! Progress on stderr: a progress bar on a terminal, otherwise a plain line with the time every few seconds.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use dcgan_base::time::time_of_day;
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
    printed_at: Instant,
    /// The first position that was set, and when: a resumed command does not start at 0.
    first: Option<(u64, Instant)>,
}

impl Plain {
    fn new(total: u64, unit: &str) -> Self {
        Self { total, unit: unit.to_owned(), position: 0, printed_at: Instant::now(), first: None }
    }

    fn set(&mut self, position: u64) {
        self.first.get_or_insert_with(|| (position, Instant::now()));
        self.position = position;
    }

    /// The time to the end at the speed so far. None before there is a speed, and at the end.
    fn left(&self) -> Option<Duration> {
        let (first, since) = self.first?;
        let (done, rest) = (self.position.checked_sub(first)?, self.total.checked_sub(self.position)?);
        let seconds = since.elapsed().as_secs_f64() * rest as f64 / done as f64;
        (done > 0 && rest > 0).then(|| Duration::try_from_secs_f64(seconds).ok())?
    }

    fn line(&self, left: Option<Duration>) -> String {
        let left = left.map_or_else(String::new, |left| {
            let seconds = left.as_secs();
            format!(", {}:{:02}:{:02} left", seconds / 3600, seconds / 60 % 60, seconds % 60)
        });
        format!("{}/{} {}{left}", self.position, self.total, self.unit)
    }

    fn print(&mut self) {
        self.printed_at = Instant::now();
        // One write, so that no other line begins within this one. A closed stderr must not stop the command.
        let line = format!("{} {}\n", time_of_day(SystemTime::now()), self.line(self.left()));
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_has_position_total_unit_and_time_left() {
        let mut plain = Plain::new(200, "steps");
        assert_eq!(plain.left(), None);
        plain.set(100); // resumed
        assert_eq!(plain.left(), None, "no speed yet");
        plain.first = Instant::now().checked_sub(Duration::from_secs(60)).map(|since| (100, since));
        plain.set(150);
        let left = plain.left().unwrap();
        assert!((60..62).contains(&left.as_secs()), "{left:?}");
        assert_eq!(plain.line(Some(Duration::from_secs(3661))), "150/200 steps, 1:01:01 left");
        plain.set(200);
        assert_eq!(plain.line(plain.left()), "200/200 steps");
    }
}
