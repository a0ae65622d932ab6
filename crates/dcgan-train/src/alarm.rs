//! Alarms for long runs: D wins, samples collapse.

use crate::event::AlarmKind;
use serde::{Deserialize, Serialize};

/// D's loss below this…
const LOW_LOSS: f64 = 0.05;
/// …for this many steps on end means that G has nothing left to learn from.
const LOW_STEPS: u64 = 200;
/// Samples whose distances fall below this share of the real images' have collapsed…
const COLLAPSED: f64 = 0.3;
/// …once they were as diverse as this, or
const DIVERSE: f64 = 0.5;
/// after this many steps in any case: before, G may not have learned to be diverse.
const WARM_UP_STEPS: u64 = 2_000;

/// What the alarms remember: part of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarms {
    /// Since which step D's loss has been low.
    low_since: Option<u64>,
    /// Whether the alarm of this spell has been given.
    low_told: bool,
    /// Whether samples have been diverse since the last alarm of collapse.
    was_diverse: bool,
    /// Whether the alarm of collapse has been given and not taken back.
    collapsed: bool,
}

impl Alarms {
    /// Takes D's loss at one step (not every step has to be seen); speaks once per spell of low losses.
    pub fn see_loss(&mut self, step: u64, loss: f64) -> Option<(AlarmKind, String)> {
        if loss >= LOW_LOSS {
            (self.low_since, self.low_told) = (None, false);
            return None;
        }
        let since = *self.low_since.get_or_insert(step);
        if self.low_told || step - since < LOW_STEPS {
            return None;
        }
        self.low_told = true;
        let message = format!(
            "D wins: its loss has been below {LOW_LOSS} for {LOW_STEPS} steps, so G learns little; \
             try --label-smoothing 0.1, a lower --learning-rate, or go back to the best checkpoint"
        );
        Some((AlarmKind::DiscriminatorWins, message))
    }

    /// Takes the diversity of a sample grid (1 is that of real images); speaks once per collapse.
    pub fn see_diversity(&mut self, step: u64, diversity: f64) -> Option<(AlarmKind, String)> {
        if diversity >= DIVERSE {
            (self.was_diverse, self.collapsed) = (true, false);
        }
        if diversity >= COLLAPSED || self.collapsed || !(self.was_diverse || step >= WARM_UP_STEPS) {
            return None;
        }
        (self.was_diverse, self.collapsed) = (false, true);
        let message = format!(
            "samples collapse: their mean distance is {diversity:.2} of the real images'; \
             the best checkpoint is kept, start again from it with --init-from and another --seed"
        );
        Some((AlarmKind::Collapse, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_losses_speak_once_a_spell() {
        let mut alarms = Alarms::default();
        let mut spoken = Vec::new();
        // 150 low, one high, 450 low, one high, 199 low: one alarm, 200 steps into the second spell.
        let losses = [(150, 0.01), (1, 0.5), (450, 0.0), (1, 0.06), (199, 0.01)];
        let all = losses.iter().flat_map(|&(n, loss)| std::iter::repeat_n(loss, n));
        for (i, loss) in all.enumerate() {
            if alarms.see_loss(i as u64, loss).is_some() {
                spoken.push(i);
            }
        }
        assert_eq!(spoken, [150 + 1 + 200]);
        // Every 50th step seen, as on an accelerator: the same spell.
        let mut alarms = Alarms::default();
        let spoken: Vec<u64> =
            (0..20).map(|i| i * 50).filter(|&step| alarms.see_loss(step, 0.01).is_some()).collect();
        assert_eq!(spoken, [200]);
    }

    #[test]
    fn collapse_speaks_once_and_not_before_samples_were_diverse() {
        let check = |grids: &[(u64, f64)], expected: &[u64]| {
            let mut alarms = Alarms::default();
            let spoken: Vec<u64> = grids
                .iter()
                .filter(|(step, d)| alarms.see_diversity(*step, *d).is_some())
                .map(|(step, _)| *step)
                .collect();
            assert_eq!(spoken, expected, "{grids:?}");
        };
        check(&[(0, 0.01), (500, 0.1), (1000, 0.6), (1500, 0.9)], &[]);
        check(&[(0, 0.01), (500, 0.7), (1000, 0.2), (1500, 0.1)], &[1000]);
        check(&[(0, 0.01), (500, 0.7), (1000, 0.2), (1500, 0.8), (2000, 0.2)], &[1000, 2000]);
        check(&[(0, 0.01), (1000, 0.2), (2000, 0.2), (2500, 0.2)], &[2000]);
        check(&[(500, 0.7), (1000, 0.4), (1500, 0.35)], &[]);
    }
}
