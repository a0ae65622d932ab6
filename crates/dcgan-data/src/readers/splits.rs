//! Split folders: `train`, `val` and `test` below the root of a folder or zip of images are not classes.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::DataError;
use crate::names::Names;
use crate::report::ScanReport;
use crate::split::Split;

/// The images of a split.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Whether each name is in the split.
    pub(crate) keep: Vec<bool>,
    /// The names of all splits without the folder of the split, for class indices that all splits share.
    pub(crate) inner_names: Names,
    /// The names that are in the split, without its folder.
    pub(crate) own_names: Names,
}

/// Chooses the images of `split` among `names`, paths below `root`; `None` if there are no split folders, and all
/// images are read.
///
/// # Errors
///
/// [`DataError::NoSplit`] if there are split folders, but not of this one.
pub(crate) fn choose(
    root: &Path,
    names: &Names,
    split: Split,
    report: &mut ScanReport,
) -> Result<Option<Chosen>, DataError> {
    let prefix = parent(names);
    fn folder_of<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
        Some(name.get(prefix.len()..)?.split_once('/')?.0)
    }
    let folders: BTreeSet<&str> = names.iter().filter_map(|name| folder_of(name, prefix)).collect();
    let (named, others): (Vec<&str>, Vec<&str>) =
        folders.iter().partition(|folder| Split::of_folder(folder).is_some());
    let present: BTreeSet<Split> = named.iter().filter_map(|folder| Split::of_folder(folder)).collect();
    if present.is_empty() {
        if split != Split::Train {
            report.notes.push(format!("no split folders: all images are read, not only those of {split}"));
        }
        return Ok(None);
    }
    // A set of vehicles has a class "train". So one such folder beside others is a class, unless it is asked for.
    if present.len() == 1 && !others.is_empty() && split == Split::Train {
        let folders = named.join(", ");
        report
            .notes
            .push(format!("the folder {folders} is a class, not a split: there are other folders beside it"));
        return Ok(None);
    }
    let loose = names.iter().filter(|name| folder_of(name, prefix).is_none()).count();
    let split_of = |name: &str| match folder_of(name, prefix) {
        Some(folder) => Split::of_folder(folder),
        // Images beside a folder of test images only are the training images.
        None => (!present.contains(&Split::Train)).then_some(Split::Train),
    };
    // Many published datasets have no labels for the test images, so their users test on the validation images.
    let read = match split {
        Split::Test if !present.contains(&Split::Test) && present.contains(&Split::Val) => Split::Val,
        split => split,
    };
    let keep: Vec<bool> = names.iter().map(|name| split_of(name) == Some(read)).collect();
    if !keep.contains(&true) {
        return Err(DataError::NoSplit {
            path: root.to_owned(),
            split,
            expected: format!("a folder {split}"),
            found: folders.into_iter().collect::<Vec<_>>().join(", "),
        });
    }
    fn inner<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
        let rest = name.get(prefix.len()..)?;
        Some(rest.split_once('/').map_or(rest, |(_, rest)| rest))
    }
    let inner_names =
        names.iter().filter(|name| split_of(name).is_some()).filter_map(|name| inner(name, prefix)).collect();
    let own = names.iter().zip(&keep).filter(|(_, keep)| **keep);
    let own_names = own.filter_map(|(name, _)| inner(name, prefix)).collect();
    let instead =
        if read == split { String::new() } else { format!(" in place of {split}, which is missing") };
    report.notes.push(format!("split {read}{instead}; split folders: {}", named.join(", ")));
    if loose > 0 && present.contains(&Split::Train) {
        report.notes.push(format!("{loose} images outside the split folders are not read"));
    }
    if !others.is_empty() {
        report.notes.push(format!("folders that are not splits are not read: {}", others.join(", ")));
    }
    Ok(Some(Chosen { keep, inner_names, own_names }))
}

/// The folder that contains all of `names` and is not itself a split; archives often have a single top-level folder.
fn parent(names: &Names) -> &str {
    let Some(first) = names.get(0) else { return "" };
    let mut parent = 0;
    for (end, _) in first.match_indices('/') {
        let (Some(folder), Some(prefix)) = (first.get(parent..end), first.get(..=end)) else { break };
        if Split::of_folder(folder).is_some() || !names.iter().all(|name| name.starts_with(prefix)) {
            break;
        }
        parent = end + 1;
    }
    first.get(..parent).unwrap_or("")
}
