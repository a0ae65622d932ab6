//! Labels of folders and zips of images: from dataset.json (the layout of StyleGAN2-ADA), else from folders.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;

use crate::error::DataError;
use crate::report::ScanReport;

/// Name of the label file at the root of a folder or zip.
pub(crate) const LABEL_FILE: &str = "dataset.json";

/// Most bytes of it that are read: the labels of a million images take half of this.
pub(crate) const MAX_LABEL_FILE_BYTES: u64 = 64 << 20;

/// One label an image and, where folders give them, the names of the classes.
pub(crate) type Labels = (Option<Vec<u32>>, Option<Vec<String>>);

/// The part of dataset.json that is read; other keys are somebody else's.
#[derive(Deserialize)]
struct LabelFile {
    /// Pairs of a name and a class number; null or absent where there are no labels.
    #[serde(default)]
    labels: Option<Vec<(String, u32)>>,
}

/// Labels of the images `names` below `root`; `label_file` is the content of dataset.json where there is one.
pub(crate) fn labels_of(
    root: &Path,
    names: &[String],
    label_file: Option<&[u8]>,
    report: &mut ScanReport,
) -> Result<Labels, DataError> {
    let Some(content) = label_file else {
        return Ok(from_folders(names, report));
    };
    let path = root.join(LABEL_FILE);
    let parsed: LabelFile = serde_json::from_slice(content)
        .map_err(|error| DataError::bad_file(&path, format!("is not understood: {error}")))?;
    let Some(pairs) = parsed.labels else {
        report.notes.push("dataset.json says that there are no labels".to_owned());
        return Ok((None, None));
    };
    let by_name: HashMap<String, u32> =
        pairs.into_iter().map(|(name, label)| (name.replace('\\', "/"), label)).collect();
    let labels = names.iter().map(|name| {
        by_name
            .get(name)
            .copied()
            .ok_or_else(|| DataError::bad_file(&path, format!("has no label for image {name}")))
    });
    let labels = labels.collect::<Result<Vec<_>, _>>()?;
    report.notes.push("labels from dataset.json".to_owned());
    if by_name.len() > names.len() {
        report
            .notes
            .push(format!("dataset.json names {} images that are not there", by_name.len() - names.len()));
    }
    Ok((Some(labels), None))
}

/// The first folder that differs between images is the class; images beside such folders, or a single folder, mean
/// that folders are only storage.
fn from_folders(names: &[String], report: &mut ScanReport) -> Labels {
    let shared = shared_folders(names);
    let class_of = |name: &String| {
        name.get(shared..).and_then(|rest| rest.split_once('/')).map(|(class, _)| class.to_owned())
    };
    let classes: Option<Vec<String>> = names.iter().map(class_of).collect();
    let Some(classes) = classes else {
        if names.iter().any(|name| class_of(name).is_some()) {
            report.notes.push("no labels: images lie both in folders and beside them".to_owned());
        }
        return (None, None);
    };
    let sorted: BTreeSet<&String> = classes.iter().collect();
    let numbers: BTreeMap<&String, u32> = sorted.into_iter().zip(0..).collect();
    report.notes.push(format!("labels from {} folders", numbers.len()));
    let labels = classes.iter().filter_map(|class| numbers.get(class).copied()).collect();
    (Some(labels), Some(numbers.into_keys().cloned().collect()))
}

/// Bytes of the folders that all names begin with: an archive often wraps everything in one folder.
fn shared_folders(names: &[String]) -> usize {
    let Some(first) = names.first() else { return 0 };
    let ends = first.match_indices('/').map(|(at, _)| at + 1);
    ends.take_while(|end| names.iter().all(|name| name.get(..*end) == first.get(..*end))).last().unwrap_or(0)
}
