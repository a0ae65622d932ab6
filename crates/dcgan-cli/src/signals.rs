//! Signals that ask the process to stop.

use dcgan_base::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[cfg(unix)]
use signal_hook::consts::SIGHUP;

/// Exit status of a process ended by its second signal, as shells report SIGINT.
const INTERRUPTED: i32 = 130;

/// A cancellation flag that SIGINT, SIGTERM and SIGHUP set; a second signal ends the process at once with 130.
///
/// # Errors
///
/// The operating system's error when a handler cannot be installed.
pub fn cancel_on_signals() -> io::Result<Cancel> {
    let cancel = Cancel::new();
    // Apart from `cancel`, so that a stop requested by the program does not turn the first signal into the last.
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
        flag::register(signal, cancel.flag())?;
    }
    Ok(cancel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_sets_the_flag_and_the_process_lives() {
        let cancel = cancel_on_signals().unwrap();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(cancel.is_set());
    }
}
