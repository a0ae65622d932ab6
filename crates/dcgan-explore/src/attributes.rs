//! Attributes of images in the format of CelebA's `list_attr_celeba.txt`: a line with the number of images, a line with
//! the attribute names, then a line per image with its path and 1 or -1 per attribute.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// A table of attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    path: PathBuf,
    names: Vec<String>,
    images: Vec<String>,
    /// Row-major, a row per image.
    values: Vec<bool>,
}

/// Why attributes could not be read or joined.
#[derive(Debug, thiserror::Error)]
pub enum AttributesError {
    /// The file cannot be read or is not text.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An invalid line.
    #[error(
        "{}, line {line}: {problem}; expected CelebA's format: a line with the number of images, a line with \
         the attribute names, then lines of PATH and 1 or -1 per attribute",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// An attribute missing in the file.
    #[error("there is no attribute {name:?} in {}, expected one of {}", path.display(), known.join(", "))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name given.
        name: String,
        /// The names in the file.
        known: Vec<String>,
    },
    /// No image of the dataset is in the file.
    #[error(
        "{} has attributes of none of the {images} images: it lists {listed:?}, the dataset has {found:?}; \
         paths must match, or unique file names (a cache keeps no names: use the folder or zip that it was \
         packed from)",
        path.display()
    )]
    NoMatch {
        /// The file.
        path: PathBuf,
        /// Images of the dataset.
        images: usize,
        /// The first path in the file.
        listed: String,
        /// The first image of the dataset.
        found: String,
    },
}

/// An attribute that a concept requires (`Smiling`) or excludes (`-Male`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The attribute's name.
    pub attribute: String,
    /// Whether images of the concept have the attribute.
    pub present: bool,
}

impl From<&str> for Condition {
    fn from(text: &str) -> Self {
        match text.strip_prefix('-') {
            Some(attribute) => Self { attribute: attribute.to_owned(), present: false },
            None => Self { attribute: text.to_owned(), present: true },
        }
    }
}

impl Attributes {
    /// Reads a file.
    ///
    /// # Errors
    /// [`AttributesError::Io`]; [`AttributesError::Line`] with the first invalid line.
    pub fn read(path: &Path) -> Result<Self, AttributesError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| AttributesError::Io { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file; `path` is for errors.
    ///
    /// # Errors
    /// [`AttributesError::Line`] with the first invalid line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, AttributesError> {
        let invalid =
            |line: usize, problem: String| AttributesError::Line { path: path.into(), line, problem };
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        let count = lines.next().map_or("", |(_, line)| line);
        let count: usize = count
            .parse()
            .map_err(|_| invalid(1, format!("invalid number of images {:?}", truncated(count))))?;
        let header = lines.next().map_or("", |(_, line)| line);
        let names: Vec<String> = header.split_whitespace().map(str::to_owned).collect();
        if names.is_empty() {
            return Err(invalid(2, "no attribute names".to_owned()));
        }
        let (mut images, mut values, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
        for (line, text) in lines.filter(|(_, text)| !text.is_empty()) {
            // A path may contain spaces: the attributes are the last words.
            let (mut path, mut row) = (text, Vec::with_capacity(names.len()));
            while row.len() < names.len() {
                let Some((before, word)) = path.trim_end().rsplit_once(char::is_whitespace) else {
                    return Err(invalid(
                        line,
                        format!("found {} values, expected {}", row.len(), names.len()),
                    ));
                };
                row.push(match word {
                    "1" | "+1" => true,
                    "-1" => false,
                    other => {
                        return Err(invalid(
                            line,
                            format!("invalid value {:?}, expected 1 or -1", truncated(other)),
                        ));
                    }
                });
                path = before;
            }
            let path = path.trim_end().to_owned();
            if let Some(before) = seen.insert(path.clone(), line) {
                return Err(invalid(line, format!("duplicate image {path:?}, first on line {before}")));
            }
            values.extend(row.into_iter().rev());
            images.push(path);
        }
        if images.len() != count {
            return Err(invalid(1, format!("expected {count} images, found {}", images.len())));
        }
        Ok(Self { path: path.into(), names, images, values })
    }

    /// The column of each condition's attribute, and whether the attribute must be present.
    ///
    /// # Errors
    /// [`AttributesError::Unknown`] with the names in the file.
    pub fn columns(&self, conditions: &[Condition]) -> Result<Vec<(usize, bool)>, AttributesError> {
        let column = |condition: &Condition| {
            let found = self.names.iter().position(|name| *name == condition.attribute);
            let unknown = || AttributesError::Unknown {
                path: self.path.clone(),
                name: condition.attribute.clone(),
                known: self.names.clone(),
            };
            Ok((found.ok_or_else(unknown)?, condition.present))
        };
        conditions.iter().map(column).collect()
    }

    /// Whether the image of row `row` matches all `conditions`, as returned by [`Attributes::columns`].
    pub fn matches(&self, row: usize, conditions: &[(usize, bool)]) -> bool {
        let values = &self.values[row * self.names.len()..][..self.names.len()];
        conditions.iter().all(|&(column, present)| values[column] == present)
    }

    /// The row of each image: the row with the same path, else the row with the same file name if that is unique both
    /// in the file and among `images`.
    ///
    /// # Errors
    /// [`AttributesError::NoMatch`] if no image has a row.
    pub fn join(&self, images: &[String]) -> Result<Vec<Option<usize>>, AttributesError> {
        let normalized = |name: &str| name.replace('\\', "/");
        let by_path: HashMap<String, usize> =
            self.images.iter().enumerate().map(|(row, name)| (normalized(name), row)).collect();
        // None for a name that is not unique.
        let by_name = |names: &[String]| {
            let mut rows: HashMap<String, Option<usize>> = HashMap::new();
            for (row, name) in names.iter().enumerate() {
                let entry = rows.entry(file_name(&normalized(name)).to_owned());
                entry.and_modify(|row| *row = None).or_insert(Some(row));
            }
            rows
        };
        let (rows_by_name, images_by_name) = (by_name(&self.images), by_name(images));
        let find = |name: &String| {
            let name = normalized(name);
            by_path.get(&name).copied().or_else(|| {
                let file = file_name(&name);
                images_by_name.get(file).copied().flatten()?;
                rows_by_name.get(file).copied().flatten()
            })
        };
        let rows: Vec<Option<usize>> = images.iter().map(find).collect();
        if rows.iter().all(Option::is_none) {
            return Err(AttributesError::NoMatch {
                path: self.path.clone(),
                images: images.len(),
                listed: self.images.first().cloned().unwrap_or_default(),
                found: images.first().cloned().unwrap_or_default(),
            });
        }
        Ok(rows)
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// At most 40 characters of a word: an invalid file may be a single line of megabytes.
fn truncated(word: &str) -> String {
    word.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "3\nSmiling Male \none/a.jpg  1 -1\ntwo/b.jpg -1 -1\n two/my face.jpg 1  1\n";

    fn parse(text: &str) -> Result<Attributes, AttributesError> {
        Attributes::parse(Path::new("list.txt"), text)
    }

    #[test]
    fn conditions_match_rows() {
        let attributes = parse(TEXT).unwrap();
        let rows: &[(&[&str], [bool; 3])] = &[
            (&["Smiling"], [true, false, true]),
            (&["-Smiling"], [false, true, false]),
            (&["Smiling", "-Male"], [true, false, false]),
            (&[], [true, true, true]),
        ];
        for (conditions, expected) in rows {
            let conditions: Vec<Condition> = conditions.iter().map(|&text| text.into()).collect();
            let columns = attributes.columns(&conditions).unwrap();
            assert_eq!([0, 1, 2].map(|row| attributes.matches(row, &columns)), *expected, "{conditions:?}");
        }
        let with_space = attributes.join(&["two/my face.jpg".to_owned()]).unwrap();
        assert_eq!(with_space, [Some(2)]);
        let unknown = attributes.columns(&["Happy".into()]).unwrap_err().to_string();
        assert!(unknown.contains("\"Happy\"") && unknown.contains("Smiling, Male"), "{unknown}");
    }

    #[test]
    fn images_are_joined_by_path_or_unique_file_name() {
        let attributes = parse("4\nA\none/a.jpg 1\ntwo/a.jpg 1\ntwo/b.jpg -1\nc.jpg 1\n").unwrap();
        let rows: &[(&[&str], &[Option<usize>])] = &[
            (&["two/a.jpg", "one/a.jpg"], &[Some(1), Some(0)]),
            (&["img/b.jpg", "img/a.jpg"], &[Some(2), None]), // a.jpg is not unique in the file
            (&["x/c.jpg", "y/c.jpg", "b.jpg"], &[None, None, Some(2)]), // c.jpg is not unique in the dataset
            (&["two\\b.jpg"], &[Some(2)]),
        ];
        for (images, expected) in rows {
            let names: Vec<String> = images.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(attributes.join(&names).unwrap(), *expected, "{images:?}");
        }
        let none = attributes.join(&["d.png".to_owned()]).unwrap_err().to_string();
        assert!(
            none.contains("none of the 1 images") && none.contains("one/a.jpg") && none.contains("d.png")
        );
    }

    #[test]
    fn invalid_lines_are_refused() {
        let rows = [
            ("", "line 1: invalid number of images \"\""),
            ("x\nA\na 1\n", "line 1: invalid number of images \"x\""),
            ("1\n\na 1\n", "line 2: no attribute"),
            ("1\nA B\na 1\n", "line 3: found 1 values, expected 2"),
            ("1\nA B\na 1 0\n", "line 3: invalid value \"0\""),
            ("2\nA\na 1\n", "line 1: expected 2 images, found 1"),
            ("1\nA\n1\n", "line 3: found 0 values"),
            ("3\nA\na 1\nb 1\na -1\n", "line 5: duplicate image \"a\", first on line 3"),
        ];
        for (text, expected) in rows {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }
}
