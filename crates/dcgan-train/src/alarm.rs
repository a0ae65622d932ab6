//! Alarms of a run: D is too strong, samples collapse or lose their contrast.

use crate::event::AlarmKind;
use serde::{Deserialize, Serialize};

/// A loss of D below this…
const LOW_LOSS: f64 = 0.05;
/// …for this many consecutive steps means that G gets no useful gradient.
const LOW_STEPS: u64 = 200;
/// Samples with a diversity below this have collapsed…
const COLLAPSED: f64 = 0.3;
/// …or become grey, if their contrast is below this and they differ as far as that contrast allows…
const GREY: f64 = 0.5;
/// …if they were as diverse as this before, or
const DIVERSE: f64 = 0.5;
/// …after this many steps: earlier, G may not have learned to be diverse yet.
const WARM_UP_STEPS: u64 = 2_000;

/// The state of the alarms, a part of each checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarms {
    /// First step of the current period of low losses of D.
    low_since: Option<u64>,
    /// Whether this period was reported.
    #[serde(rename = "low_told")]
    low_reported: bool,
    /// Whether samples were diverse since the last report of a collapse.
    was_diverse: bool,
    /// Whether a collapse was reported that samples have not recovered from.
    collapsed: bool,
}

/// The loss of a perfect D: the cross-entropy of the targets 1 - `label_smoothing` of real images with themselves.
fn least_loss(label_smoothing: f64) -> f64 {
    let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    term(label_smoothing) + term(1.0 - label_smoothing)
}

impl Alarms {
    /// Takes the loss of D at a step, trained with `label_smoothing`; steps may be left out. Returns one alarm for each
    /// period of low losses.
    pub fn observe_loss(
        &mut self,
        step: u64,
        loss: f64,
        label_smoothing: f64,
    ) -> Option<(AlarmKind, String)> {
        if loss - least_loss(label_smoothing) >= LOW_LOSS {
            (self.low_since, self.low_reported) = (None, false);
            return None;
        }
        let since = *self.low_since.get_or_insert(step);
        if self.low_reported || step - since < LOW_STEPS {
            return None;
        }
        self.low_reported = true;
        let (limit, remedy) = match label_smoothing {
            0.0 => (format!("{LOW_LOSS}"), "--label-smoothing 0.1, "),
            s => (format!("{:.2}, its least value plus {LOW_LOSS},", least_loss(s) + LOW_LOSS), ""),
        };
        let message = format!(
            "D is too strong: its loss has been below {limit} for {LOW_STEPS} steps, so G learns little; \
             try {remedy}a lower --learning-rate, or go back to the best checkpoint"
        );
        Some((AlarmKind::DiscriminatorWins, message))
    }

    /// Takes diversity and contrast of a sample grid (1 is that of real images). Returns one alarm for each collapse.
    pub fn observe_samples(
        &mut self,
        step: u64,
        diversity: f64,
        contrast: f64,
    ) -> Option<(AlarmKind, String)> {
        if diversity >= DIVERSE {
            (self.was_diverse, self.collapsed) = (true, false);
        }
        if diversity >= COLLAPSED || self.collapsed || !(self.was_diverse || step >= WARM_UP_STEPS) {
            return None;
        }
        (self.was_diverse, self.collapsed) = (false, true);
        if contrast < GREY && diversity > COLLAPSED * contrast {
            // D's first batch norm divides by the scale of its input: without a bias before it, D does not see the
            // contrast of a minibatch.
            let message = format!(
                "samples are grey: their contrast is {contrast:.2} of the real images'; D does not see contrast if \
                 its first layer has no bias, because batch norm divides by it: with --config, under \
                 [model.discriminator], bias = [true, false, ...], a value for each layer and the head"
            );
            return Some((AlarmKind::LowContrast, message));
        }
        let message = format!(
            "samples collapse: their mean pairwise distance is {diversity:.2} of the real images'; \
             the best checkpoint is kept, start again from it with --init-from and another --seed"
        );
        Some((AlarmKind::Collapse, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alarm_for_each_period_of_low_losses() {
        let mut alarms = Alarms::default();
        let mut reported = Vec::new();
        // 150 low, one high, 450 low, one high, 199 low: one alarm, 200 steps into the second period.
        let losses = [(150, 0.01), (1, 0.5), (450, 0.0), (1, 0.06), (199, 0.01)];
        let all = losses.iter().flat_map(|&(n, loss)| std::iter::repeat_n(loss, n));
        for (i, loss) in all.enumerate() {
            if alarms.observe_loss(i as u64, loss, 0.0).is_some() {
                reported.push(i);
            }
        }
        assert_eq!(reported, [150 + 1 + 200]);
        // Every 50th step, as on an accelerator.
        let mut alarms = Alarms::default();
        let reported: Vec<u64> =
            (0..20).map(|i| i * 50).filter(|&step| alarms.observe_loss(step, 0.01, 0.0).is_some()).collect();
        assert_eq!(reported, [200]);
        // With label smoothing of 0.1 the loss is at least 0.325.
        for (loss, expected) in [(0.33, Some(200)), (0.38, None)] {
            let mut alarms = Alarms::default();
            let reported = (0..=200).find(|&step| alarms.observe_loss(step, loss, 0.1).is_some());
            assert_eq!(reported, expected, "{loss}");
        }
    }

    #[test]
    fn one_alarm_for_each_collapse_after_samples_were_diverse() {
        let mut alarms = Alarms::default();
        let kind = |alarm: Option<(AlarmKind, String)>| alarm.map(|(kind, _)| kind);
        assert_eq!(kind(alarms.observe_samples(1, 0.6, 0.6)), None);
        assert_eq!(kind(alarms.observe_samples(2, 0.2, 0.3)), Some(AlarmKind::LowContrast));
        assert_eq!(kind(alarms.observe_samples(3, 0.1, 0.8)), None, "one alarm");
        assert_eq!(kind(alarms.observe_samples(4, 0.6, 0.8)), None);
        assert_eq!(kind(alarms.observe_samples(5, 0.2, 0.8)), Some(AlarmKind::Collapse));
        for (step, diversity, contrast) in [(6, 0.0, 0.0), (8, 0.02, 0.2)] {
            assert_eq!(kind(alarms.observe_samples(step, 0.6, 0.8)), None);
            let alarm = alarms.observe_samples(step + 1, diversity, contrast);
            assert_eq!(kind(alarm), Some(AlarmKind::Collapse), "grey and alike");
        }
        let check = |grids: &[(u64, f64)], expected: &[u64]| {
            let mut alarms = Alarms::default();
            let reported: Vec<u64> = grids
                .iter()
                .filter(|(step, d)| alarms.observe_samples(*step, *d, 1.0).is_some())
                .map(|(step, _)| *step)
                .collect();
            assert_eq!(reported, expected, "{grids:?}");
        };
        check(&[(0, 0.01), (500, 0.1), (1000, 0.6), (1500, 0.9)], &[]);
        check(&[(0, 0.01), (500, 0.7), (1000, 0.2), (1500, 0.1)], &[1000]);
        check(&[(0, 0.01), (500, 0.7), (1000, 0.2), (1500, 0.8), (2000, 0.2)], &[1000, 2000]);
        check(&[(0, 0.01), (1000, 0.2), (2000, 0.2), (2500, 0.2)], &[2000]);
        check(&[(500, 0.7), (1000, 0.4), (1500, 0.35)], &[]);
    }
}
