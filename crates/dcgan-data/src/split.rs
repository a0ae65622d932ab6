//! The splits of datasets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The split of a published dataset, or of a folder or zip with the folders `train`, `val` and `test`. Formats without
/// splits (other folders and zips, caches, single files) return all images.
///
/// As text it is `train`, `val` or `test`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The training images.
    #[default]
    Train,
    /// The validation images.
    Val,
    /// The test images.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The split that the name of a folder stands for.
    pub(crate) fn of_folder(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Val),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }
}

impl FromStr for Split {
    type Err = String;

    /// Also `training`, `valid`, `validation` and `testing`, the other names of split folders.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::of_folder(text).ok_or_else(|| format!("split is {text:?}, expected train, val or test"))
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_splits() {
        for (text, split) in [
            ("train", Some(Split::Train)),
            ("Training", Some(Split::Train)),
            ("VAL", Some(Split::Val)),
            ("valid", Some(Split::Val)),
            ("validation", Some(Split::Val)),
            ("test", Some(Split::Test)),
            ("testing", Some(Split::Test)),
            ("trains", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Split>().ok(), split, "{text}");
        }
        for split in Split::ALL {
            assert_eq!(split.to_string().parse(), Ok(split));
        }
    }
}
