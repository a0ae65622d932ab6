//! Labels of folders and zips of images: from dataset.json (the format of StyleGAN2-ADA), otherwise from class folders.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;

use crate::error::DataError;
use crate::report::ScanReport;

/// Name of the label file at the root of a folder or zip.
pub(crate) const LABEL_FILE: &str = "dataset.json";

/// Maximum bytes of the label file; the labels of a million images take half of this.
pub(crate) const MAX_LABEL_FILE_BYTES: u64 = 64 << 20;

/// One label per image, and the class names if labels come from class folders.
pub(crate) type Labels = (Option<Vec<u32>>, Option<Vec<String>>);

/// The relevant keys of dataset.json; other keys are ignored.
#[derive(Deserialize)]
struct LabelFile {
    /// Pairs of image name and label; null or absent if there are no labels.
    #[serde(default)]
    labels: Option<Vec<(String, u32)>>,
}

/// Labels of the images `names` below `root`. `label_file` is the content of dataset.json, if it exists.
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
        .map_err(|error| DataError::invalid_file(&path, format!("is invalid: {error}")))?;
    let Some(pairs) = parsed.labels else {
        report.notes.push("no labels in dataset.json".to_owned());
        return Ok((None, None));
    };
    let by_name: HashMap<String, u32> =
        pairs.into_iter().map(|(name, label)| (name.replace('\\', "/"), label)).collect();
    let labels = names.iter().map(|name| {
        by_name
            .get(name)
            .copied()
            .ok_or_else(|| DataError::invalid_file(&path, format!("has no label for image {name}")))
    });
    let labels = labels.collect::<Result<Vec<_>, _>>()?;
    report.notes.push("labels from dataset.json".to_owned());
    if by_name.len() > names.len() {
        report
            .notes
            .push(format!("dataset.json lists {} images that do not exist", by_name.len() - names.len()));
    }
    Ok((Some(labels), None))
}

/// Labels from class folders: the first folder that differs between images is the class. There are no labels if some
/// images are in no class folder, or if all images are in one folder.
fn from_folders(names: &[String], report: &mut ScanReport) -> Labels {
    let prefix = common_prefix(names);
    let class_of = |name: &String| {
        name.get(prefix..).and_then(|rest| rest.split_once('/')).map(|(class, _)| class.to_owned())
    };
    let classes: Option<Vec<String>> = names.iter().map(class_of).collect();
    let Some(classes) = classes else {
        if names.iter().any(|name| class_of(name).is_some()) {
            report.notes.push("no labels: only some images are in class folders".to_owned());
        }
        return (None, None);
    };
    let sorted: BTreeSet<&String> = classes.iter().collect();
    let numbers: BTreeMap<&String, u32> = sorted.into_iter().zip(0..).collect();
    report.notes.push(format!("labels from {} folders", numbers.len()));
    let labels = classes.iter().filter_map(|class| numbers.get(class).copied()).collect();
    (Some(labels), Some(numbers.into_keys().cloned().collect()))
}

/// Length in bytes of the common parent folders of all names: an archive often has a single top-level folder.
fn common_prefix(names: &[String]) -> usize {
    let Some(first) = names.first() else { return 0 };
    let ends = first.match_indices('/').map(|(at, _)| at + 1);
    ends.take_while(|end| names.iter().all(|name| name.get(..*end) == first.get(..*end))).last().unwrap_or(0)
}
