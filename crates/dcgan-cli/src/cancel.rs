//! A flag that asks the work to stop at the next safe place, set by the program or by a signal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status of a process ended by its second signal, as shells report SIGINT.
const INTERRUPTED: i32 = 130;

/// A cloneable cancellation flag; all clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    requested: Arc<AtomicBool>,
}

impl Cancel {
    /// A flag that only the program sets.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that SIGINT, SIGTERM and SIGHUP set; a second signal ends the process at once with 130.
    ///
    /// # Errors
    ///
    /// The operating system's error when a handler cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let cancel = Self::new();
        // Apart from `requested`, so that a stop asked for by the program does not turn the first signal into the last.
        let signalled = Arc::new(AtomicBool::new(false));
        for signal in [
            SIGINT,
            SIGTERM,
            #[cfg(unix)]
            SIGHUP, // the terminal was closed
        ] {
            // Handlers run in the order of registration: the first signal finds `signalled` unset here and sets it below.
            flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&signalled))?;
            flag::register(signal, Arc::clone(&signalled))?;
            flag::register(signal, Arc::clone(&cancel.requested))?;
        }
        Ok(cancel)
    }

    /// Whether a stop was asked for.
    pub fn is_set(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Asks for a stop.
    pub fn set(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_one_flag() {
        let cancel = Cancel::new();
        let other = cancel.clone();
        assert!(!other.is_set());
        cancel.set();
        assert!(other.is_set());
    }

    #[test]
    fn the_first_signal_sets_the_flag_and_the_process_lives() {
        let cancel = Cancel::on_signals().unwrap();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(cancel.is_set());
    }
}
