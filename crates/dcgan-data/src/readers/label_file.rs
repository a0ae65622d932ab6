//! The labels in dataset.json. Values other than classes are accepted, because other programs have other uses for them:
//! vectors (StyleGAN3, EG3D), floats, strings and nulls.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The content of dataset.json as far as it matters here; other keys are ignored.
#[derive(Debug)]
pub(crate) enum LabelFile {
    /// `labels` is null or absent.
    Absent,
    /// Pairs of image name and label.
    Pairs(Vec<(String, Label)>),
    /// Something else, in words.
    Other(&'static str),
}

/// The label of an image.
#[derive(Debug)]
pub(crate) enum Label {
    /// A class.
    Class(u32),
    /// A string; in place of the label it is not a class.
    Text(String),
    /// Something else, in words.
    Other(&'static str),
}

/// Implements the methods of a visitor for values that are described in words only.
macro_rules! other_values {
    ($other:expr, $($method:ident: $type:ty => $words:literal),*) => {
        $(fn $method<E: Error>(self, _: $type) -> Result<Self::Value, E> {
            Ok($other($words))
        })*
    };
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LabelVisitor)
    }
}

struct LabelVisitor;

impl<'de> Visitor<'de> for LabelVisitor {
    type Value = Label;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Label, E> {
        Ok(u32::try_from(value).map_or(Label::Other("an integer above 2^32"), Label::Class))
    }

    fn visit_unit<E: Error>(self) -> Result<Label, E> {
        Ok(Label::Other("null"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Label, E> {
        Ok(Label::Text(text.to_owned()))
    }

    other_values!(Label::Other, visit_i64: i64 => "a negative integer", visit_f64: f64 => "a floating-point number",
        visit_bool: bool => "true or false");

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Label, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Label::Other("a vector"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Label, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Label::Other("an object"))
    }
}

/// One entry of `labels`: a pair, or something else.
struct Entry(Option<(String, Label)>);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl EntryVisitor {
    fn none<T>(_: T) -> Entry {
        Entry(None)
    }
}

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair of image and label")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Entry, A::Error> {
        let (name, label) = (values.next_element::<Label>()?, values.next_element::<Label>()?);
        let mut is_pair = true;
        while values.next_element::<IgnoredAny>()?.is_some() {
            is_pair = false;
        }
        Ok(Entry(match (name, label) {
            (Some(Label::Text(name)), Some(label)) if is_pair => Some((name, label)),
            _ => None,
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Entry, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Entry(None))
    }

    fn visit_unit<E: Error>(self) -> Result<Entry, E> {
        Ok(Entry(None))
    }

    other_values!(Self::none, visit_u64: u64 => "", visit_i64: i64 => "", visit_f64: f64 => "",
        visit_bool: bool => "", visit_str: &str => "");
}

/// The value of the key `labels`.
struct LabelList(LabelFile);

impl<'de> Deserialize<'de> for LabelList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor)
    }
}

struct ListVisitor;

impl ListVisitor {
    fn other(found: &'static str) -> LabelList {
        LabelList(LabelFile::Other(found))
    }
}

impl<'de> Visitor<'de> for ListVisitor {
    type Value = LabelList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of labels")
    }

    fn visit_unit<E: Error>(self) -> Result<LabelList, E> {
        Ok(LabelList(LabelFile::Absent))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<LabelList, A::Error> {
        let mut pairs = Some(Vec::new());
        while let Some(entry) = values.next_element::<Entry>()? {
            // The rest is read for its syntax.
            match (entry.0, &mut pairs) {
                (Some(pair), Some(pairs)) => pairs.push(pair),
                _ => pairs = None,
            }
        }
        Ok(LabelList(pairs.map_or(LabelFile::Other("labels of another form"), LabelFile::Pairs)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<LabelList, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = entries.next_entry::<String, Label>()? {
            pairs.push(pair);
        }
        Ok(LabelList(LabelFile::Pairs(pairs)))
    }

    other_values!(Self::other, visit_u64: u64 => "a number as labels", visit_i64: i64 => "a number as labels",
        visit_f64: f64 => "a number as labels", visit_bool: bool => "a truth value as labels",
        visit_str: &str => "a string as labels");
}

impl<'de> Deserialize<'de> for LabelFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = LabelFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the content of dataset.json")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<LabelFile, A::Error> {
        let mut labels = LabelFile::Absent;
        while let Some(key) = entries.next_key::<String>()? {
            if key == "labels" {
                labels = entries.next_value::<LabelList>()?.0;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(labels)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<LabelFile, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(LabelFile::Other("a list"))
    }

    fn visit_unit<E: Error>(self) -> Result<LabelFile, E> {
        Ok(LabelFile::Absent)
    }

    other_values!(LabelFile::Other, visit_u64: u64 => "a number", visit_i64: i64 => "a number",
        visit_f64: f64 => "a number", visit_bool: bool => "a truth value", visit_str: &str => "a string");
}
