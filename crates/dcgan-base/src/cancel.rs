//! A flag that asks the work to stop at the next safe place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A cloneable cancellation flag; all clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    requested: Arc<AtomicBool>,
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a stop was requested.
    pub fn is_set(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Requests a stop.
    pub fn set(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for signal handlers, which may do no more than set it.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.requested)
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
        assert!(cancel.flag().load(Ordering::Relaxed));
    }
}
