//! Cancellation on signals.
//!
//! A signal is a request to save and stop. Launchers and schedulers repeat it by habit: `timeout` signals the process
//! and its group, a logout sends SIGHUP and SIGTERM, schedulers send SIGTERM several times. A repetition is the same
//! request. Only a second Ctrl-C typed at the terminal, clearly later than the first, ends the process at once.

use dcgan_base::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::{Mutex, PoisonError};

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU};

/// A cancellation flag that is set by SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU.
///
/// Slurm's `--signal`, Grid Engine's `-notify` and limits of CPU time send the last three. A SIGHUP that the parent
/// process ignores stays ignored, as `nohup` expects. A second Ctrl-C at the terminal, at least two seconds after the
/// first, exits with status 130.
///
/// All calls in a process return the same flag: a signal during one part of a command ends the next parts too.
///
/// # Errors
///
/// A signal handler cannot be installed.
pub fn cancel_on_signals() -> io::Result<Cancel> {
    static INSTALLED: Mutex<Option<Cancel>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cancel) = &*installed {
        return Ok(cancel.clone());
    }
    let cancel = Cancel::new();
    let mut signals = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    {
        signals.extend([SIGUSR1, SIGUSR2, SIGXCPU]);
        if !unix::is_ignored(SIGHUP) {
            signals.push(SIGHUP); // the terminal was closed
        }
    }
    for signal in &signals {
        flag::register(*signal, cancel.flag())?;
    }
    #[cfg(unix)]
    unix::watch(&signals)?;
    *installed = Some(cancel.clone());
    Ok(cancel)
}

#[cfg(unix)]
mod unix {
    use rustix::process::getpgrp;
    use rustix::termios::tcgetpgrp;
    use signal_hook::consts::SIGINT;
    use signal_hook::iterator::Signals;
    use signal_hook::low_level;
    use std::fs;
    use std::io::{self, IsTerminal};
    use std::thread;
    use std::time::{Duration, Instant};

    /// Exit status after a second Ctrl-C: the status that shells report for SIGINT.
    const INTERRUPTED: i32 = 130;

    /// From this time after the first Ctrl-C on, another one ends the process.
    pub(super) const FORCE_AFTER: Duration = Duration::from_secs(2);

    /// What a signal asks for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Request {
        /// To save and stop.
        Stop,
        /// The same again.
        Repeated,
        /// To end at once.
        Force,
    }

    /// The signals so far.
    #[derive(Debug, Default)]
    pub(super) struct Requests {
        is_stopping: bool,
        first_typed: Option<Instant>,
    }

    impl Requests {
        /// Takes a signal received at `now`; `typed` for a Ctrl-C at the terminal.
        pub(super) fn take(&mut self, typed: bool, now: Instant) -> Request {
            let repeated = std::mem::replace(&mut self.is_stopping, true);
            if typed {
                let first = *self.first_typed.get_or_insert(now);
                if now.duration_since(first) >= FORCE_AFTER {
                    return Request::Force;
                }
            }
            if repeated { Request::Repeated } else { Request::Stop }
        }
    }

    /// Whether the parent process has set `signal` to be ignored, where the system reports it.
    pub(super) fn is_ignored(signal: i32) -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        ignored_in(&status, signal)
    }

    /// `SigIgn:` is followed by a mask in hexadecimal; its lowest bit is signal 1.
    pub(super) fn ignored_in(status: &str, signal: i32) -> bool {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        (mask >> (signal - 1)) & 1 == 1
    }

    /// Whether a Ctrl-C typed at the terminal reaches this process.
    fn is_in_foreground() -> bool {
        let group = if io::stdin().is_terminal() {
            tcgetpgrp(io::stdin())
        } else if io::stderr().is_terminal() {
            tcgetpgrp(io::stderr())
        } else {
            return false;
        };
        group.is_ok_and(|group| group == getpgrp())
    }

    /// Starts a thread that reports signals and ends the process where that is asked for.
    pub(super) fn watch(signals: &[i32]) -> io::Result<()> {
        let mut received = Signals::new(signals)?;
        let watch = move || {
            let mut requests = Requests::default();
            for signal in received.forever() {
                let typed = signal == SIGINT && is_in_foreground();
                let name = low_level::signal_name(signal).unwrap_or("a signal");
                match (requests.take(typed, Instant::now()), typed) {
                    (Request::Stop, false) => tracing::warn!("{name} received: saving and stopping"),
                    (Request::Stop | Request::Repeated, true) => tracing::warn!(
                        "Ctrl-C: saving and stopping; another Ctrl-C, {} s after the first, stops at once and loses \
                         what is not saved yet",
                        FORCE_AFTER.as_secs()
                    ),
                    (Request::Repeated, false) => tracing::debug!("{name} received again"),
                    (Request::Force, _) => {
                        tracing::warn!("Ctrl-C again: stopped at once");
                        low_level::exit(INTERRUPTED);
                    }
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(watch)?;
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::unix::{FORCE_AFTER, Request, Requests, ignored_in};
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn every_signal_sets_the_flag_and_repetitions_do_not_exit() {
        let cancel = cancel_on_signals().unwrap();
        assert!(!cancel.is_set());
        for signal in [SIGUSR1, SIGUSR1, SIGTERM, SIGTERM, SIGHUP, SIGXCPU, SIGUSR2] {
            signal_hook::low_level::raise(signal).unwrap();
            assert!(cancel.is_set());
        }
        assert!(cancel_on_signals().unwrap().is_set(), "the next part of the command stops too");
    }

    #[test]
    fn only_a_late_second_ctrl_c_forces_the_end() {
        use Request::{Force, Repeated, Stop};
        let second = Duration::from_secs(1);
        // Signals as (typed, time), and what each asks for.
        let rows: [&[(bool, Duration, Request)]; 6] = [
            &[(true, second, Stop), (true, second + FORCE_AFTER, Force)],
            // A launcher signals the process and its group; a scheduler repeats.
            &[(true, second, Stop), (true, second, Repeated), (true, 2 * second, Repeated)],
            &[(false, second, Stop), (false, second, Repeated), (false, 60 * second, Repeated)],
            // The first Ctrl-C counts, not the first signal.
            &[(false, second, Stop), (true, 10 * second, Repeated), (true, 12 * second, Force)],
            &[(true, second, Stop), (false, 60 * second, Repeated)],
            &[(true, second, Stop), (true, 2 * second, Repeated), (true, 4 * second, Force)],
        ];
        let start = Instant::now();
        for row in rows {
            let mut requests = Requests::default();
            for (typed, after, expected) in row {
                assert_eq!(requests.take(*typed, start + *after), *expected, "{row:?}");
            }
        }
    }

    #[test]
    fn an_ignored_signal_is_found_in_the_status_of_the_process() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let ignored: Vec<i32> = (1..=64).filter(|&signal| ignored_in(status, signal)).collect();
        assert_eq!(ignored, [SIGHUP, 13]); // and SIGPIPE
        assert!(!ignored_in("", SIGHUP));
    }
}
