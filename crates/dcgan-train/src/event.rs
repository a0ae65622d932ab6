//! Events of a run: one enum for the console, stats.jsonl, event files of TensorBoard and the service.

use crate::step::StepOutput;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A line of stats.jsonl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// When it was recorded, in UTC as in RFC 3339. Lines of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// An event. In stats.jsonl each is a line of JSON with its kind under `event`, and the time ([`EventLine`]).
///
/// Paths are relative to the run folder, so that it can be moved. In runs of earlier versions they start with the run
/// folder as it was given; only the file name is the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A log interval ended.
    Step(StepLine),
    /// A sample grid was written.
    Sample {
        /// Steps taken.
        step: u64,
        /// Real images read.
        images: u64,
        /// The file, relative to the run folder.
        path: PathBuf,
        /// Mean pairwise distance between images of the grid, relative to that of real images; near 0 all samples are
        /// alike.
        diversity: f64,
        /// Mean standard deviation of the values of an image of the grid, relative to that of real images. None in runs
        /// of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contrast: Option<f64>,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps taken.
        step: u64,
        /// The folder, relative to the run folder.
        path: PathBuf,
        /// Random-feature Fréchet distance ([`crate::frechet`]); lower is better. None for a checkpoint of an
        /// interruption.
        frechet: Option<f64>,
        /// The same distance between two halves of the real images: what perfect samples would have.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        real_frechet: Option<f64>,
        /// Whether it is the best of the run so far.
        best: bool,
    },
    /// FID and KID of samples were measured.
    Metrics {
        /// Steps taken.
        step: u64,
        /// Fréchet Inception distance; lower is better.
        fid: f64,
        /// Kernel Inception distance; none for fewer images than a subset has.
        kid: Option<f64>,
        /// Samples, and real images.
        samples: usize,
        /// How images were prepared: the name of a program.
        convention: String,
        /// SHA-256 of the file of Inception weights.
        inception_sha256: String,
    },
    /// A sign of failed training.
    Alarm {
        /// Steps taken.
        step: u64,
        /// Which alarm.
        alarm: AlarmKind,
        /// The observation and what helps.
        message: String,
    },
}

/// The kinds of alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// The loss of D stays near zero: G gets no useful gradient.
    DiscriminatorWins,
    /// Samples have become alike.
    Collapse,
    /// Samples have become grey.
    LowContrast,
}

/// Losses and outputs of D as GAN training usually logs them, and the speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Steps taken.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Real images read.
    pub images: u64,
    /// Passes over the data, counted from 0.
    pub epoch: u64,
    /// Loss of D on real plus on generated images; 2 ln 2 = 1.386 where D cannot tell them apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_d: Option<f64>,
    /// G's loss, -ln D(G(z)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_g: Option<f64>,
    /// Mean D(x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d_x: Option<f64>,
    /// Mean D(G(z)) before D's update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d_gz_before: Option<f64>,
    /// Mean D(G(z)) of the update of G.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d_gz_after: Option<f64>,
    /// Euclidean norm of D's gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm_d: Option<f64>,
    /// Euclidean norm of G's gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm_g: Option<f64>,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Real images a second since the last line.
    pub images_per_s: f64,
    /// Seconds to the end of the run at this speed.
    pub seconds_left: f64,
    /// Fraction of the time since the last line that training waited for data.
    pub data_wait_share: f64,
    /// Where the processes of the run spent that time.
    #[serde(flatten)]
    pub exchange: Option<ExchangeShares>,
}

/// Time that several processes spend on each other, as fractions of the time since the last line. Means over the
/// processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeShares {
    /// Processes of the run.
    pub processes: usize,
    /// Sums of gradients over all processes.
    pub all_reduce_share: f64,
    /// Exchanges of batch norm and of losses, with the wait for the last process.
    pub batch_norm_share: f64,
    /// Waiting for the slowest process, before a step and before gradients are summed.
    pub wait_share: f64,
    /// The process that waited least for others.
    pub slowest_rank: usize,
}

impl StepLine {
    /// Adds the output of the last updates.
    pub(crate) fn with_output(mut self, output: &StepOutput) -> Self {
        if let Some(d) = output.discriminator {
            self.loss_d = Some(d.loss);
            self.d_x = Some(d.real);
            self.d_gz_before = Some(d.fake);
            self.gradient_norm_d = Some(d.gradient_norm);
        }
        if let Some(g) = output.generator {
            self.loss_g = Some(g.loss);
            self.d_gz_after = Some(g.fake);
            self.gradient_norm_g = Some(g.gradient_norm);
        }
        self
    }

    /// The line that pytorch/examples prints, with speed and remaining time.
    pub fn console(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let exchange = self.exchange.as_ref().map_or_else(String::new, |exchange| {
            format!(
                ", {:.0} % all-reduce, {:.0} % batch norm exchange, {:.0} % waiting for rank {}",
                100.0 * exchange.all_reduce_share,
                100.0 * exchange.batch_norm_share,
                100.0 * exchange.wait_share,
                exchange.slowest_rank,
            )
        });
        format!(
            "[{}/{}] Loss_D: {} Loss_G: {} D(x): {} D(G(z)): {} / {}  {:.0} images/s, {} left, \
             {:.0} % waiting for data{exchange}",
            self.step,
            self.total_steps,
            number(self.loss_d),
            number(self.loss_g),
            number(self.d_x),
            number(self.d_gz_before),
            number(self.d_gz_after),
            self.images_per_s,
            duration(self.seconds_left),
            100.0 * self.data_wait_share,
        )
    }
}

/// `1:02:03` or `2:03`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a range that fits")]
pub fn duration(seconds: f64) -> String {
    let s = seconds.clamp(0.0, 3.6e9) as u64;
    let (hours, minutes, s) = (s / 3600, s / 60 % 60, s % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{s:02}") } else { format!("{minutes}:{s:02}") }
}

impl Event {
    /// Whether the event belongs to the samples or the checkpoint of its step, not to the step itself.
    pub(crate) fn is_of_recording(&self) -> bool {
        match self {
            Self::Sample { .. } | Self::Checkpoint { .. } | Self::Metrics { .. } => true,
            Self::Alarm { alarm, .. } => matches!(alarm, AlarmKind::Collapse | AlarmKind::LowContrast),
            Self::Step(_) => false,
        }
    }

    /// Steps taken by then.
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(StepLine { step, .. })
            | Self::Sample { step, .. }
            | Self::Checkpoint { step, .. }
            | Self::Metrics { step, .. }
            | Self::Alarm { step, .. } => *step,
        }
    }
}
