//! `/metrics` in Prometheus's text format.

use super::Shared;
use super::record::JobState;
use super::store::StoreError;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the latency histogram, in seconds.
const BOUNDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Method, matched path and status of a request: few, whatever is asked for.
type Label = (&'static str, String, u16);

/// What is counted from the start of the service.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    images: AtomicU64,
    requests: Mutex<BTreeMap<Label, Latency>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Latency {
    /// Requests at most as long as each bound, those of lower bounds included.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    /// Real images were trained on.
    pub(crate) fn count_images(&self, images: u64) {
        self.images.fetch_add(images, Ordering::Relaxed);
    }

    /// A request was answered.
    pub(crate) fn count_request(&self, method: &str, path: &str, status: u16, took: Duration) {
        const METHODS: [&str; 5] = ["GET", "POST", "DELETE", "HEAD", "OPTIONS"];
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("OTHER");
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = requests.entry((method, path.to_owned(), status)).or_default();
        let seconds = took.as_secs_f64();
        for (bucket, bound) in latency.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        latency.count += 1;
        latency.seconds += seconds;
    }
}

/// The whole text.
///
/// # Errors
/// What the store says.
pub(crate) fn text(shared: &Shared) -> Result<String, StoreError> {
    let mut text = Text::default();
    let counts = shared.store.counts()?;
    text.head("dcgan_jobs", "gauge", "Jobs by state");
    for (state, count) in &counts {
        text.line("dcgan_jobs", &format!("state=\"{state}\""), *count as f64);
    }
    let queued = counts.iter().find(|(state, _)| *state == JobState::Queued).map_or(0, |(_, count)| *count);
    text.head("dcgan_queue_length", "gauge", "Jobs that wait for the device");
    text.line("dcgan_queue_length", "", queued as f64);
    text.head("dcgan_images_trained_total", "counter", "Real images trained on since the service started");
    let images = shared.metrics.images.load(Ordering::Relaxed);
    text.line("dcgan_images_trained_total", "", images as f64);
    if let Some(line) = shared.live.current().and_then(|running| running.line()) {
        text.head(
            "dcgan_images_per_second",
            "gauge",
            "Real images a second in the running job's last interval",
        );
        text.line("dcgan_images_per_second", "", line.images_per_s);
        text.head("dcgan_loss", "gauge", "Losses of the running job at its last log line");
        for (network, loss) in [("discriminator", line.loss_d), ("generator", line.loss_g)] {
            if let Some(loss) = loss {
                text.line("dcgan_loss", &format!("network=\"{network}\""), loss);
            }
        }
    }
    let name = "dcgan_http_request_duration_seconds";
    text.head(name, "histogram", "Time to the beginning of the answer, by matched path");
    let requests = shared.metrics.requests.lock().unwrap_or_else(PoisonError::into_inner);
    for ((method, path, status), latency) in requests.iter() {
        let labels = format!("method=\"{method}\",path=\"{path}\",status=\"{status}\"");
        for (bucket, bound) in latency.buckets.iter().zip(BOUNDS) {
            text.line(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), *bucket as f64);
        }
        text.line(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), latency.count as f64);
        text.line(&format!("{name}_sum"), &labels, latency.seconds);
        text.line(&format!("{name}_count"), &labels, latency.count as f64);
    }
    Ok(text.0)
}

/// Lines of the format.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
