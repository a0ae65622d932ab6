//! `/metrics` in Prometheus's text format.

use super::AppState;
use super::devices::WorkerDevice;
use super::record::JobState;
use super::store::StoreError;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use dcgan_base::files::free_bytes;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of the latency histogram, in seconds.
const BOUNDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Method, matched path and status of a request: a bounded set, whatever clients send.
type Labels = (&'static str, String, u16);

/// Counters since the start of the service.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Real images by label of the device.
    images: Vec<(String, AtomicU64)>,
    requests: Mutex<BTreeMap<Labels, Latency>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Latency {
    /// Cumulative counts: requests no longer than each bound.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    pub(crate) fn new(devices: &[WorkerDevice]) -> Self {
        let images = devices.iter().map(|device| (device.label.clone(), AtomicU64::new(0))).collect();
        Self { images, requests: Mutex::default() }
    }

    /// Adds real images of a training step on a device.
    pub(crate) fn count_images(&self, device: &str, images: u64) {
        if let Some((_, count)) = self.images.iter().find(|(label, _)| label == device) {
            count.fetch_add(images, Ordering::Relaxed);
        }
    }

    /// Adds a request to its histogram.
    fn count_request(&self, method: &str, path: &str, status: u16, duration: Duration) {
        const METHODS: [&str; 5] = ["GET", "POST", "DELETE", "HEAD", "OPTIONS"];
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("OTHER");
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = requests.entry((method, path.to_owned(), status)).or_default();
        let seconds = duration.as_secs_f64();
        for (bucket, bound) in latency.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        latency.count += 1;
        latency.seconds += seconds;
    }
}

/// Middleware that measures a request under its matched path, so that ids do not become labels.
pub(crate) async fn measure(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let path = path.as_deref().unwrap_or("other");
    state.metrics.count_request(method.as_str(), path, response.status().as_u16(), started.elapsed());
    response
}

/// The response body of `/metrics`.
///
/// # Errors
/// Errors of the store.
pub(crate) fn render(state: &AppState) -> Result<String, StoreError> {
    let mut text = Exposition::default();
    let counts = state.store.counts()?;
    text.family("dcgan_jobs", "gauge", "Jobs by state");
    for (job_state, count) in &counts {
        text.sample("dcgan_jobs", &format!("state=\"{job_state}\""), *count as f64);
    }
    let queued =
        counts.iter().find(|(job_state, _)| *job_state == JobState::Queued).map_or(0, |(_, count)| *count);
    text.family("dcgan_queue_length", "gauge", "Queued jobs");
    text.sample("dcgan_queue_length", "", queued as f64);
    text.family("dcgan_images_trained_total", "counter", "Real images trained on since the service started");
    let images: Vec<(&str, u64)> = state
        .metrics
        .images
        .iter()
        .map(|(label, count)| (label.as_str(), count.load(Ordering::Relaxed)))
        .collect();
    text.sample(
        "dcgan_images_trained_total",
        "",
        images.iter().map(|(_, images)| images).sum::<u64>() as f64,
    );
    render_devices(&mut text, state, &images);
    render_disk(&mut text, state)?;
    let name = "dcgan_http_request_duration_seconds";
    text.family(name, "histogram", "Time until the response starts, by matched path");
    let requests = state.metrics.requests.lock().unwrap_or_else(PoisonError::into_inner);
    for ((method, path, status), latency) in requests.iter() {
        let labels = format!("method=\"{method}\",path=\"{path}\",status=\"{status}\"");
        for (bucket, bound) in latency.buckets.iter().zip(BOUNDS) {
            text.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), *bucket as f64);
        }
        text.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), latency.count as f64);
        text.sample(&format!("{name}_sum"), &labels, latency.seconds);
        text.sample(&format!("{name}_count"), &labels, latency.count as f64);
    }
    Ok(text.0)
}

/// What each device does; the last log line of its job.
fn render_devices(text: &mut Exposition, state: &AppState, images: &[(&str, u64)]) {
    let running = state.running_jobs.all();
    text.family("dcgan_device_busy", "gauge", "Whether the device runs a job");
    for (label, _) in images {
        let is_busy = running.iter().any(|job| job.device == *label);
        text.sample("dcgan_device_busy", &format!("device=\"{label}\""), f64::from(u8::from(is_busy)));
    }
    let help = "Real images trained on since the service started, by device";
    text.family("dcgan_device_images_trained_total", "counter", help);
    for (label, count) in images {
        text.sample("dcgan_device_images_trained_total", &format!("device=\"{label}\""), *count as f64);
    }
    let lines: Vec<_> = running.iter().filter_map(|job| Some((&job.device, job.line()?))).collect();
    if lines.is_empty() {
        return;
    }
    let help = "Real images per second in the last log interval of the running job";
    text.family("dcgan_images_per_second", "gauge", help);
    for (device, line) in &lines {
        text.sample("dcgan_images_per_second", &format!("device=\"{device}\""), line.images_per_s);
    }
    text.family("dcgan_loss", "gauge", "Losses in the last log line of the running job");
    for (device, line) in &lines {
        for (network, loss) in [("discriminator", line.loss_d), ("generator", line.loss_g)] {
            if let Some(loss) = loss {
                text.sample("dcgan_loss", &format!("device=\"{device}\",network=\"{network}\""), loss);
            }
        }
    }
}

/// Disk space of the store and of its largest jobs.
fn render_disk(text: &mut Exposition, state: &AppState) -> Result<(), StoreError> {
    let disk = state.store.disk_use()?;
    text.family("dcgan_store_disk_bytes", "gauge", "Disk space of the store");
    text.sample("dcgan_store_disk_bytes", "", disk.total() as f64);
    if let Some(free) = free_bytes(state.runs.path()) {
        text.family("dcgan_store_free_bytes", "gauge", "Free space of the store's file system");
        text.sample("dcgan_store_free_bytes", "", free as f64);
    }
    text.family("dcgan_jobs_disk_bytes", "gauge", "Disk space of jobs by state");
    for (job_state, _, bytes) in &disk.states {
        text.sample("dcgan_jobs_disk_bytes", &format!("state=\"{job_state}\""), *bytes as f64);
    }
    text.family("dcgan_job_disk_bytes", "gauge", "Disk space of the largest jobs");
    for (id, bytes) in &disk.largest {
        text.sample("dcgan_job_disk_bytes", &format!("job=\"{id}\""), *bytes as f64);
    }
    Ok(())
}

/// Text in the exposition format.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// The header of a metric family.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
