//! Samples of WebDataset archives: consecutive files with the same name up to the first dot of the base name, such as
//! `000001.jpg` and `000001.cls`.

use serde_json::Value;

use crate::report::ScanReport;

/// Maximum bytes of a label: captions and boxes are beside it in some files.
const MAX_LABEL_BYTES: usize = 1 << 20;

/// Keys of the class in a JSON file.
const CLASS_KEYS: [&str; 5] = ["cls", "label", "class", "class_id", "target"];

/// Extensions of the image of a sample, in the order of preference.
const IMAGES: [&str; 5] = ["jpg", "jpeg", "png", "webp", "img"];

/// The samples of archives, read in order.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// Key of the current sample.
    key: String,
    /// Images of the current sample: number and extension.
    images: Vec<(usize, String)>,
    /// Label of the current sample.
    label: Option<u32>,
    /// The image of each sample so far, and its label.
    found: Vec<(usize, Option<u32>)>,
    /// Whether a file with a label, or that may have one, was in a sample with an image.
    has_labels: bool,
    has_label_file: bool,
}

/// The images of all samples.
#[derive(Debug)]
pub(crate) struct Labeled {
    /// Numbers of the images, one for each sample.
    pub(crate) images: Vec<usize>,
    pub(crate) labels: Option<Vec<u32>>,
    /// Where the labels come from, or why there are none.
    pub(crate) note: String,
}

impl Samples {
    /// Takes a file that is not an image but part of a sample: `.cls`, or `.json` and `.txt` beside an image. Returns
    /// whether it is one.
    pub(crate) fn add_label(&mut self, name: &str, content: &[u8]) -> bool {
        let (key, extension) = split(name);
        if !matches!(extension, "cls" | "cls2" | "json" | "txt" | "index" | "id") {
            return false;
        }
        self.start(key);
        self.has_label_file = true;
        if content.len() <= MAX_LABEL_BYTES && self.label.is_none() {
            self.label = match extension {
                "cls" => std::str::from_utf8(content).ok().and_then(|text| text.trim().parse().ok()),
                "json" => class_of(content),
                _ => None,
            };
        }
        true
    }

    /// Takes image `number`.
    pub(crate) fn add_image(&mut self, name: &str, number: usize) {
        let (key, extension) = split(name);
        self.start(key);
        self.images.push((number, extension.to_ascii_lowercase()));
    }

    fn start(&mut self, key: &str) {
        if self.key != key {
            self.end_sample();
            key.clone_into(&mut self.key);
        }
    }

    /// Ends the current sample: the next archive starts another one.
    pub(crate) fn end_sample(&mut self) {
        let rank = |extension: &str| IMAGES.iter().position(|image| *image == extension);
        let first =
            |(number, extension): &&(usize, String)| (rank(extension).unwrap_or(IMAGES.len()), *number);
        if let Some((number, _)) = self.images.iter().min_by_key(first) {
            self.has_labels |= self.has_label_file;
            self.found.push((*number, self.label));
        }
        self.images.clear();
        (self.label, self.has_label_file) = (None, false);
        self.key.clear();
    }

    /// The image of each sample of `count` images; `None` if no sample has other files than images.
    pub(crate) fn finish(mut self, count: usize, report: &mut ScanReport) -> Option<Labeled> {
        self.end_sample();
        if !self.has_labels {
            return None;
        }
        let images: Vec<usize> = self.found.iter().map(|(number, _)| *number).collect();
        if images.len() < count {
            let more = count - images.len();
            report.notes.push(format!("{more} further images of samples are not read"));
        }
        let labels: Option<Vec<u32>> = self.found.iter().map(|(_, label)| *label).collect();
        let without = self.found.iter().filter(|(_, label)| label.is_none()).count();
        let note = match (&labels, without == images.len()) {
            (Some(_), _) => "labels from the samples' .cls or .json files".to_owned(),
            (None, true) => "unlabeled: no sample has a .cls file or a .json file with a class".to_owned(),
            (None, false) => format!("unlabeled: {without} of {} samples have no label", images.len()),
        };
        Some(Labeled { images, labels, note })
    }
}

/// Key and extension of a name: WebDataset splits at the first dot of the base name.
fn split(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    match name.get(base..).and_then(|rest| rest.find('.')) {
        Some(dot) => (name.get(..base + dot).unwrap_or(name), name.get(base + dot + 1..).unwrap_or("")),
        None => (name, ""),
    }
}

/// The class in a JSON file: an integer from 0, alone or in an object.
fn class_of(content: &[u8]) -> Option<u32> {
    let value: Value = serde_json::from_slice(content).ok()?;
    let class = match &value {
        Value::Object(entries) => CLASS_KEYS.iter().find_map(|key| entries.get(*key)?.as_u64()),
        other => other.as_u64(),
    };
    u32::try_from(class?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_first_dot_of_the_base_name() {
        for (name, expected) in [
            ("a/b.c/000.seg.png", ("a/b.c/000", "seg.png")),
            ("000.jpg", ("000", "jpg")),
            ("a.b/c", ("a.b/c", "")),
        ] {
            assert_eq!(split(name), expected);
        }
    }

    #[test]
    fn classes_in_json() {
        for (text, class) in [
            ("3", Some(3)),
            (r#"{"label": 7, "caption": "x"}"#, Some(7)),
            (r#"{"label": "cat"}"#, None),
            (r#"{"label": -1}"#, None),
            ("[1]", None),
            ("{", None),
        ] {
            assert_eq!(class_of(text.as_bytes()), class, "{text}");
        }
    }
}
