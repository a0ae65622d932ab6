//! Reader for tar archives, which are not unpacked: images with or without class folders, WebDataset shards (samples
//! with a label in a file beside the image), and ILSVRC's archive of an archive for each class.

use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use crate::bytes::Bytes;
use crate::encoded::{ByteRange, EncodedImages, Shard, Storage};
use crate::error::DataError;
use crate::kind::{HEAD_BYTES, is_tar};
use crate::names::Names;
use crate::options::OpenOptions;
use crate::readers::folder::{has_image_extension, not_an_image};
use crate::readers::labels::{LABEL_FILE, MAX_LABEL_FILE_BYTES, labels_of};
use crate::readers::{shards, splits, webdataset};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// Archives within archives: ILSVRC has one level.
const MAX_LEVELS: usize = 1;

/// Scans the archives `files` below `root`, or the single file `root`. Images stay in the order of the archives.
pub(crate) fn scan(root: &Path, files: Vec<PathBuf>, options: &OpenOptions) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(root, Format::Tar);
    let files = shards::of_split(root, files, options.split, &mut report)?;
    let file_names: Vec<String> = files.iter().map(|file| shards::below(root, file)).collect();
    // Archives that are not numbered parts are classes, as folders would be.
    let are_classes = files.len() > 1 && !shards::are_numbered(&file_names);
    let mut members = Members::default();
    for (file, name) in files.into_iter().zip(&file_names) {
        let prefix = if are_classes { format!("{}/", shards::class_name(name)) } else { String::new() };
        members.add(file, &prefix, &mut report)?;
    }
    report.scanned_files = members.files;
    let Members { names, ranges, shards, label_file, samples, .. } = members;
    let samples = samples.finish(names.len(), &mut report);
    if samples.is_some() {
        report.format = Format::WebDataset;
    }
    let images: Vec<usize> =
        samples.as_ref().map_or_else(|| (0..names.len()).collect(), |samples| samples.images.clone());
    let all: Names = images.iter().filter_map(|i| names.get(*i)).collect();
    // Shards of samples that name their split have no folders of splits.
    let is_chosen =
        samples.is_some() && root.is_dir() && file_names.iter().any(|name| shards::names_split(name));
    let chosen = if is_chosen { None } else { splits::choose(root, &all, options.split, &mut report)? };
    let is_kept = |i: &usize| chosen.as_ref().is_none_or(|chosen| chosen.keep.get(*i) == Some(&true));
    let keep: Vec<usize> = (0..images.len()).filter(is_kept).collect();
    let names: Names = keep.iter().filter_map(|i| all.get(*i)).collect();
    let ranges: Vec<ByteRange> = keep.iter().filter_map(|i| ranges.get(*images.get(*i)?).copied()).collect();
    let (sample_labels, note) = samples.map_or((None, None), |samples| (samples.labels, Some(samples.note)));
    let (labels, class_names) = match sample_labels {
        Some(labels) => {
            (Some(keep.iter().filter_map(|i| labels.get(*i).copied()).collect::<Vec<u32>>()), None)
        }
        None => labels_of(root, &names, label_file.as_deref(), chosen.as_ref(), &mut report)?,
    };
    if labels.is_none() || class_names.is_none() {
        report.notes.extend(note);
    }
    let mut digest = Digest::default();
    for (name, range) in names.iter().zip(&ranges) {
        digest.field(name).number(u64::from(range.length));
    }
    for label in labels.iter().flatten() {
        digest.number(u64::from(*label));
    }
    Ok(Scan {
        labels,
        class_names,
        ..Scan::new(
            Source::Encoded(EncodedImages {
                root: root.to_owned(),
                names,
                storage: Storage::Ranges { shards, ranges },
            }),
            report,
            digest.hex(),
        )
    })
}

/// The images in archives, with what the labels come from.
#[derive(Default)]
struct Members {
    names: Names,
    ranges: Vec<ByteRange>,
    shards: Vec<Shard>,
    label_file: Option<Vec<u8>>,
    samples: webdataset::Samples,
    files: usize,
}

impl Members {
    fn add(&mut self, file: PathBuf, prefix: &str, report: &mut ScanReport) -> Result<(), DataError> {
        let bytes = Bytes::map(&file)?;
        let problem = self.add_range(&bytes, 0..bytes.len(), prefix, 0, report);
        problem.map_err(|problem| DataError::invalid_file(&file, problem))?;
        self.samples.end_sample();
        self.shards.push(Shard { path: file, bytes });
        Ok(())
    }

    /// Adds the members of the archive in `range` of a file.
    fn add_range(
        &mut self,
        file: &Bytes,
        range: Range<usize>,
        prefix: &str,
        level: usize,
        report: &mut ScanReport,
    ) -> Result<(), String> {
        let content = file.get(range.clone()).unwrap_or_default();
        let mut archive = Archive::new(Cursor::new(content));
        let damaged = |error: std::io::Error| format!("is a damaged tar archive: {error}");
        for entry in archive.entries_with_seek().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).replace('\\', "/");
            let name = format!("{prefix}{}", name.trim_start_matches("./"));
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {}
                EntryType::Directory | EntryType::XGlobalHeader => continue,
                EntryType::GNUSparse => {
                    report.skip("a sparse file", name);
                    continue;
                }
                _ => {
                    report.skip("a link or special file", name);
                    continue;
                }
            }
            self.files += 1;
            let (start, size) = (entry.raw_file_position(), entry.size());
            let inner = usize::try_from(start).ok().zip(usize::try_from(size).ok());
            let inner = inner.and_then(|(start, size)| {
                let start = range.start.checked_add(start)?;
                Some(start..start.checked_add(size)?).filter(|inner| inner.end <= range.end)
            });
            let inner = inner.ok_or_else(|| {
                let rest = (content.len() as u64).saturating_sub(start);
                format!("entry {name} declares {size} bytes, but {rest} follow (truncated?)")
            })?;
            self.add_member(file, inner, &name, level, report)?;
        }
        Ok(())
    }

    fn add_member(
        &mut self,
        file: &Bytes,
        range: Range<usize>,
        name: &str,
        level: usize,
        report: &mut ScanReport,
    ) -> Result<(), String> {
        let content = file.get(range.clone()).unwrap_or_default();
        let head = content.get(..usize::try_from(HEAD_BYTES).unwrap_or(0)).unwrap_or(content);
        if !shards::is_inside(name) {
            report.skip("a name that points outside the archive", name);
        } else if name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX") {
            report.skip("a hidden file or folder", name);
        } else if name == LABEL_FILE && content.len() as u64 <= MAX_LABEL_FILE_BYTES {
            self.label_file = Some(content.to_owned());
        } else if self.samples.add_label(name, content) {
            // Its sample has the label.
        } else if is_tar(head) && level < MAX_LEVELS {
            let class = name.strip_suffix(".tar").unwrap_or(name);
            self.add_range(file, range, &format!("{class}/"), level + 1, report)?;
        } else if has_image_extension(name) || not_an_image(head).is_none() {
            let length = u32::try_from(range.len()).map_err(|_| format!("entry {name} has 4 GiB or more"))?;
            let shard = u32::try_from(self.shards.len()).map_err(|error| error.to_string())?;
            self.samples.add_image(name, self.names.len());
            self.names.push(name);
            self.ranges.push(ByteRange { offset: range.start as u64, length, shard });
        } else {
            report.skip(not_an_image(head).unwrap_or_default(), name);
        }
        Ok(())
    }
}
