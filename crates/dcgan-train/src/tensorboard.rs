//! Event files of TensorBoard with the events of stats.jsonl: `tensorboard --logdir runs` shows every run below `runs`.
//!
//! A resumed run has one file for each start. TensorBoard reads them in the order of their names, up to an incomplete
//! record, and drops the events of an interrupted run after its checkpoint, because the next file starts with the step
//! of the checkpoint. The messages are `Event` and `Summary` of `tensorboard/compat/proto`.

mod wire;

use crate::event::{AlarmKind, Event};
use crate::run_folder::{RunFolderError, io_error};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use wire::Message;

/// Prefix of the names of event files, before the second of their creation.
pub(crate) const FILE_PREFIX: &str = "events.out.tfevents.";

/// An event file.
#[derive(Debug)]
pub(crate) struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Creates a file in `folder`. TensorBoard drops the events of earlier ones from `first_step` on.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn create(folder: &Path, first_step: u64) -> Result<Self, RunFolderError> {
        let seconds = now().as_secs().max(newest(folder)?.map_or(0, |newest| newest.saturating_add(1)));
        let path = folder.join(format!("{FILE_PREFIX}{seconds:010}.dcgan-train"));
        let file = File::create_new(&path).map_err(io_error(&path))?;
        let mut this = Self { file, path };
        this.write(&head(now().as_secs_f64(), first_step))?;
        Ok(this)
    }

    /// Appends the record of `event`, where TensorBoard shows it. Paths of events are relative to `folder`.
    ///
    /// # Errors
    /// Those of the file system, also of reading the image grid of `event`.
    pub(crate) fn append(&mut self, event: &Event, folder: &Path) -> Result<(), RunFolderError> {
        match summary(event, folder)? {
            Some(summary) => {
                let message = stamped(now().as_secs_f64(), event.step()).message(5, &summary);
                self.write(&message.record())
            }
            None => Ok(()),
        }
    }

    /// Flushes to the disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn sync(&self) -> Result<(), RunFolderError> {
        self.file.sync_all().map_err(io_error(&self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RunFolderError> {
        self.file.write_all(bytes).map_err(io_error(&self.path))
    }
}

/// Since 1970.
fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The second in the name of the newest event file. The next one's is greater, also where a run is resumed within a
/// second or a clock was set back: names must sort in order of time.
fn newest(folder: &Path) -> Result<Option<u64>, RunFolderError> {
    let mut newest = None;
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let name = entry.map_err(io_error(folder))?.file_name();
        let seconds = name.to_str().and_then(|name| name.strip_prefix(FILE_PREFIX)?.split('.').next());
        newest = newest.max(seconds.and_then(|seconds| seconds.parse().ok()));
    }
    Ok(newest)
}

/// `Event` with its first fields, wall_time (1) and step (2).
fn stamped(wall_time: f64, step: u64) -> Message {
    Message::default().double(1, wall_time).integer(2, step)
}

/// Two records: file_version (3); session_log (7) with status (1) START (1).
fn head(wall_time: f64, first_step: u64) -> Vec<u8> {
    let version = stamped(wall_time, 0).bytes(3, b"brain.Event:2");
    let start = stamped(wall_time, first_step).message(7, &Message::default().integer(1, 1));
    [version.record(), start.record()].concat()
}

/// `Summary`: values (1), each with its tag; none for an event without any.
fn summary(event: &Event, folder: &Path) -> Result<Option<Message>, RunFolderError> {
    let values = match event {
        Event::Step(line) => {
            let exchange = line.exchange.as_ref();
            let scalars = [
                ("loss/D", line.loss_d),
                ("loss/G", line.loss_g),
                ("D/x", line.d_x),
                ("D/G_z_before", line.d_gz_before),
                ("D/G_z_after", line.d_gz_after),
                ("gradient_norm/D", line.gradient_norm_d),
                ("gradient_norm/G", line.gradient_norm_g),
                ("learning_rate", Some(line.learning_rate)),
                ("speed/images_per_s", Some(line.images_per_s)),
                ("speed/data_wait_share", Some(line.data_wait_share)),
                ("speed/all_reduce_share", exchange.map(|exchange| exchange.all_reduce_share)),
                ("speed/batch_norm_share", exchange.map(|exchange| exchange.batch_norm_share)),
                ("speed/wait_share", exchange.map(|exchange| exchange.wait_share)),
            ];
            scalars.into_iter().filter_map(|(tag, value)| Some(scalar(tag, value?))).collect()
        }
        Event::Sample { path, diversity, contrast, .. } => {
            let path = folder.join(path);
            let png = fs::read(&path).map_err(io_error(&path))?;
            let image = image("samples", &png).map_err(io_error(&path))?;
            let contrast = contrast.map(|contrast| scalar("quality/contrast", contrast));
            [image, scalar("quality/diversity", *diversity)].into_iter().chain(contrast).collect()
        }
        Event::Checkpoint { frechet, real_frechet, .. } => {
            let scalars = [("quality/frechet", frechet), ("quality/real_frechet", real_frechet)];
            scalars.iter().filter_map(|(tag, value)| Some(scalar(tag, (*value).as_ref().copied()?))).collect()
        }
        Event::Metrics { fid, kid, .. } => {
            let scalars = [("quality/fid", Some(*fid)), ("quality/kid", *kid)];
            scalars.into_iter().filter_map(|(tag, value)| Some(scalar(tag, value?))).collect()
        }
        Event::Alarm { alarm: AlarmKind::DiscriminatorWins, message, .. } => {
            vec![text("alarm/discriminator_wins", message)]
        }
        Event::Alarm { alarm: AlarmKind::Collapse, message, .. } => vec![text("alarm/collapse", message)],
        Event::Alarm { alarm: AlarmKind::LowContrast, message, .. } => {
            vec![text("alarm/low_contrast", message)]
        }
    };
    let add = |summary: Message, value: &Message| summary.message(1, value);
    Ok((!values.is_empty()).then(|| values.iter().fold(Message::default(), add)))
}

/// `Summary.Value` with its tag (1).
fn value(tag: &str) -> Message {
    Message::default().bytes(1, tag.as_bytes())
}

/// simple_value (2).
#[expect(clippy::cast_possible_truncation, reason = "TensorBoard's scalars are f32")]
fn scalar(tag: &str, number: f64) -> Message {
    value(tag).float(2, number as f32)
}

/// image (4): height (1), width (2), colorspace (3: number of channels), encoded_image_string (4). The first three are
/// read from the header of the PNG.
fn image(tag: &str, png: &[u8]) -> io::Result<Message> {
    let Some(&[a, b, c, d, e, f, g, h, _depth, color]) = png.get(16..26) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a PNG"));
    };
    let [width, height] = [[a, b, c, d], [e, f, g, h]].map(|side| u64::from(u32::from_be_bytes(side)));
    let channels = match color {
        0 => 1,
        6 => 4,
        _ => 3,
    };
    let image = Message::default().integer(1, height).integer(2, width).integer(3, channels).bytes(4, png);
    Ok(value(tag).message(4, &image))
}

/// tensor (8): dtype (1) DT_STRING (7), an empty shape (2), string_val (8); metadata (9): plugin_data (1) with
/// plugin_name (1).
fn text(tag: &str, text: &str) -> Message {
    let tensor = Message::default().integer(1, 7).message(2, &Message::default()).bytes(8, text.as_bytes());
    let plugin = Message::default().bytes(1, b"text");
    value(tag).message(8, &tensor).message(9, &Message::default().message(1, &plugin))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make.py` in the folder writes the records.
    #[test]
    fn records_are_those_of_tensorboards_writer() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/tensorboard"));
        let lines = fs::read_to_string(folder.join("stats.jsonl")).unwrap();
        let mut found = head(1e9, 301);
        for (i, line) in lines.lines().enumerate() {
            let event: Event = serde_json::from_str(line).unwrap();
            if let Some(summary) = summary(&event, folder).unwrap() {
                found.extend(stamped(1e9 + 0.5 * i as f64, event.step()).message(5, &summary).record());
            }
        }
        let expected = fs::read(folder.join("case.tfevents")).unwrap();
        let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert!(
            found == expected,
            "{} of {} bytes, the first other at {differs:?}",
            found.len(),
            expected.len()
        );
    }

    #[test]
    fn names_sort_in_order_of_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut made = Vec::new();
        let mut create = || made.push(EventFile::create(folder.path(), 0).unwrap().path);
        (0..3).for_each(|_| create());
        // A file of another program with a later clock; names that are not event files.
        for name in ["events.out.tfevents.9999999990.host.1.0", "events.out.tfevents.x.y", "9999999999"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        (0..2).for_each(|_| create());
        assert!(
            made.is_sorted() && made[3].ends_with("events.out.tfevents.9999999991.dcgan-train"),
            "{made:?}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_of_the_run() {
        let path = PathBuf::from("/dev/full");
        let mut full = EventFile { file: File::options().write(true).open(&path).unwrap(), path };
        let event = |frechet| Event::Checkpoint {
            step: 1,
            path: "1".into(),
            frechet,
            real_frechet: None,
            best: true,
        };
        let error = full.append(&event(Some(1.0)), Path::new("")).unwrap_err();
        let RunFolderError::Io { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().starts_with("/dev/full: "), "{error}");
        // An event without values writes nothing.
        full.append(&event(None), Path::new("")).unwrap();
    }
}
