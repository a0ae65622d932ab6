//! Labels of folders and zips of images: from dataset.json (the format of StyleGAN2-ADA), otherwise from class folders.

use std::collections::HashMap;
use std::path::Path;

use crate::error::DataError;
use crate::names::Names;
use crate::readers::label_file::{Label, LabelFile};
use crate::readers::splits::Chosen;
use crate::report::ScanReport;

/// Name of the label file at the root of a folder or zip.
pub(crate) const LABEL_FILE: &str = "dataset.json";

/// Maximum bytes of the label file; the labels of a million images take half of this.
pub(crate) const MAX_LABEL_FILE_BYTES: u64 = 64 << 20;

/// One label per image, and the class names if labels come from class folders.
pub(crate) type Labels = (Option<Vec<u32>>, Option<Vec<String>>);

/// Labels of the images `names` below `root`. `label_file` is the content of dataset.json, if it exists; `chosen` is
/// the split, if there are split folders.
///
/// # Errors
///
/// A label file that is not JSON. Labels that are not classes give an unlabeled dataset and a note.
pub(crate) fn labels_of(
    root: &Path,
    names: &Names,
    label_file: Option<&[u8]>,
    chosen: Option<&Chosen>,
    report: &mut ScanReport,
) -> Result<Labels, DataError> {
    let Some(content) = label_file else {
        return Ok(match chosen {
            Some(Chosen { own_names, inner_names, .. }) => from_folders(own_names, inner_names, report),
            None => from_folders(names, names, report),
        });
    };
    let path = root.join(LABEL_FILE);
    let parsed: LabelFile = serde_json::from_slice(content)
        .map_err(|error| DataError::invalid_file(&path, format!("is invalid: {error}")))?;
    let labels = match parsed {
        LabelFile::Absent => Err("no labels in dataset.json".to_owned()),
        LabelFile::Other(found) => {
            Err(format!("unlabeled: dataset.json contains {found}, expected pairs of image and label"))
        }
        LabelFile::Pairs(pairs) => from_pairs(names, pairs, report),
    };
    match labels {
        Ok(labels) => {
            report.notes.push("labels from dataset.json".to_owned());
            Ok((Some(labels), None))
        }
        Err(note) => {
            report.notes.push(note);
            Ok((None, None))
        }
    }
}

/// The labels of `names`, or why there are none.
fn from_pairs(
    names: &Names,
    pairs: Vec<(String, Label)>,
    report: &mut ScanReport,
) -> Result<Vec<u32>, String> {
    let by_name: HashMap<String, Label> =
        pairs.into_iter().map(|(name, label)| (name.replace('\\', "/"), label)).collect();
    let mut labels = Vec::with_capacity(names.len());
    let mut unlabeled: Vec<&str> = Vec::new();
    for name in names.iter() {
        match by_name.get(name) {
            Some(Label::Class(label)) => labels.push(*label),
            Some(other) => {
                let found = match other {
                    Label::Other(found) => found,
                    _ => "a string",
                };
                return Err(format!(
                    "unlabeled: the label of {name} in dataset.json is {found}, expected an integer from 0"
                ));
            }
            None => unlabeled.push(name),
        }
    }
    if let Some(first) = unlabeled.first() {
        return Err(format!(
            "unlabeled: dataset.json has no label for {} of {} images, such as {first}",
            unlabeled.len(),
            names.len()
        ));
    }
    if by_name.len() > names.len() {
        report
            .notes
            .push(format!("dataset.json lists {} images that are not read", by_name.len() - names.len()));
    }
    Ok(labels)
}

/// Labels from class folders: the first folder that differs between images is the class. There are no labels if some
/// images are in no class folder, or if all images are in one folder.
///
/// Classes are numbered over `all_names`, the images of all splits, so that a class has the same number in each of
/// them. If only some splits have class folders, they are numbered over `names`.
fn from_folders(names: &Names, all_names: &Names, report: &mut ScanReport) -> Labels {
    let prefix = common_prefix(all_names);
    fn class_of(name: &str, prefix: usize) -> Option<&str> {
        Some(name.get(prefix..)?.split_once('/')?.0)
    }
    let has_folders = |names: &Names| names.iter().all(|name| class_of(name, prefix).is_some());
    if !has_folders(names) || !(std::ptr::eq(names, all_names) || has_folders(all_names)) {
        if all_names.len() > names.len() {
            return from_folders(names, names, report);
        }
        if names.iter().any(|name| class_of(name, prefix).is_some()) {
            report.notes.push("no labels: only some images are in class folders".to_owned());
        }
        return (None, None);
    }
    // Names are sorted, so that most have the class of the name before.
    let mut classes: Vec<&str> = Vec::new();
    for class in all_names.iter().filter_map(|name| class_of(name, prefix)) {
        if classes.last() != Some(&class) {
            classes.push(class);
        }
    }
    classes.sort_unstable();
    classes.dedup();
    report.notes.push(format!("labels from {} folders", classes.len()));
    let mut last = ("", 0);
    let number = |name| {
        let class = class_of(name, prefix)?;
        if class != last.0 {
            last = (class, u32::try_from(classes.binary_search(&class).ok()?).ok()?);
        }
        Some(last.1)
    };
    let labels = names.iter().filter_map(number).collect();
    (Some(labels), Some(classes.iter().map(|class| (*class).to_owned()).collect()))
}

/// Length in bytes of the common parent folders of all names: an archive often has a single top-level folder.
fn common_prefix(names: &Names) -> usize {
    let Some(first) = names.get(0) else { return 0 };
    let ends = first.match_indices('/').map(|(at, _)| at + 1);
    ends.take_while(|end| names.iter().all(|name| name.get(..*end) == first.get(..*end))).last().unwrap_or(0)
}
