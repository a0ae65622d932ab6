//! Cooperative cancellation: a shared flag that long-running work polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A cloneable cancellation flag; all clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    requested: Arc<AtomicBool>,
}

impl Cancel {
    /// A flag that is not set yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether cancellation was requested.
    pub fn is_set(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Requests cancellation.
    pub fn set(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for signal handlers.
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
