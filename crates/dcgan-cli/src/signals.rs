//! Cancellation on signals.

use dcgan_base::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[cfg(unix)]
use signal_hook::consts::SIGHUP;

/// Exit status after a second signal: the status that shells report for SIGINT.
const INTERRUPTED: i32 = 130;

/// A cancellation flag that is set by SIGINT, SIGTERM and SIGHUP. A second signal exits immediately with status 130.
///
/// # Errors
///
/// A signal handler cannot be installed.
pub fn cancel_on_signals() -> io::Result<Cancel> {
    let cancel = Cancel::new();
    // Separate from `cancel`: after a cancellation by the program itself, the first signal must not exit immediately.
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [
        SIGINT,
        SIGTERM,
        #[cfg(unix)]
        SIGHUP, // the terminal was closed
    ] {
        // Handlers run in the order of registration: at the first signal `signalled` is unset here and is set below.
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
    fn the_first_signal_sets_the_flag_without_exiting() {
        let cancel = cancel_on_signals().unwrap();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(cancel.is_set());
    }
}
