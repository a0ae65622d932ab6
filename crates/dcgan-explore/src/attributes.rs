//! Attributes of images in the format of CelebA's `list_attr_celeba.txt`: a line with the number of images, a line with the
//! attributes' names, then for each image its path and 1 or -1 for each attribute.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// A table of attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    path: PathBuf,
    names: Vec<String>,
    images: Vec<String>,
    /// Row after row.
    values: Vec<bool>,
}

/// Why attributes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AttributesError {
    /// The operating system refused, or the file is not text.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that does not fit the format.
    #[error(
        "{}, line {line}: {problem}; expected CelebA's format: a line with the number of images, a line with the attributes' names, then PATH and 1 or -1 for each attribute",
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
    /// An attribute that the file does not have.
    #[error("there is no attribute {name:?}; {} has {}", path.display(), known.join(", "))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Images and attributes of different data.
    #[error(
        "{} has attributes of none of the {images} images: it names {theirs:?}, the data have {ours:?}; paths must agree, or file names where no two are alike (a cache keeps no names: give the folder or zip that it was packed from)",
        path.display()
    )]
    NoMatch {
        /// The file.
        path: PathBuf,
        /// Images of the data.
        images: usize,
        /// A path of the file.
        theirs: String,
        /// An image's name.
        ours: String,
    },
}

/// An attribute that a concept asks for, or that it excludes: `Smiling`, `-Male`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Name of the attribute.
    pub attribute: String,
    /// Whether images of the concept have it.
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
    /// [`AttributesError::Io`]; [`AttributesError::Line`] with the first line that does not fit.
    pub fn read(path: &Path) -> Result<Self, AttributesError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| AttributesError::Io { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file; `path` is for errors.
    ///
    /// # Errors
    /// [`AttributesError::Line`] with the first line that does not fit.
    pub fn parse(path: &Path, text: &str) -> Result<Self, AttributesError> {
        let wrong = |line: usize, problem: String| AttributesError::Line { path: path.into(), line, problem };
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        let count = lines.next().map_or("", |(_, line)| line);
        let count: usize =
            count.parse().map_err(|_| wrong(1, format!("{:?} is no number of images", shortened(count))))?;
        let header = lines.next().map_or("", |(_, line)| line);
        let names: Vec<String> = header.split_whitespace().map(str::to_owned).collect();
        if names.is_empty() {
            return Err(wrong(2, "no attribute is named".to_owned()));
        }
        let (mut images, mut values, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
        for (line, text) in lines.filter(|(_, text)| !text.is_empty()) {
            // A path may hold spaces: the attributes are the last words.
            let (mut path, mut row) = (text, Vec::with_capacity(names.len()));
            while row.len() < names.len() {
                let Some((before, word)) = path.trim_end().rsplit_once(char::is_whitespace) else {
                    return Err(wrong(line, format!("{} values, expected {}", row.len(), names.len())));
                };
                row.push(match word {
                    "1" | "+1" => true,
                    "-1" => false,
                    other => {
                        return Err(wrong(
                            line,
                            format!("a value is {:?}, expected 1 or -1", shortened(other)),
                        ));
                    }
                });
                path = before;
            }
            let path = path.trim_end().to_owned();
            if let Some(before) = seen.insert(path.clone(), line) {
                return Err(wrong(line, format!("{path:?} has attributes already, from line {before}")));
            }
            values.extend(row.into_iter().rev());
            images.push(path);
        }
        if images.len() != count {
            return Err(wrong(1, format!("{count} images are announced, {} follow", images.len())));
        }
        Ok(Self { path: path.into(), names, images, values })
    }

    /// For each condition the column of its attribute.
    ///
    /// # Errors
    /// [`AttributesError::Unknown`] with the names that there are.
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

    /// Whether the image of row `row` meets all of the conditions that [`Attributes::columns`] gave.
    pub fn meets(&self, row: usize, conditions: &[(usize, bool)]) -> bool {
        let values = &self.values[row * self.names.len()..][..self.names.len()];
        conditions.iter().all(|&(column, present)| values[column] == present)
    }

    /// For each of the images named the row of its attributes: the row of the same path; else of the same file name, where the
    /// table and the images have no second one of that name.
    ///
    /// # Errors
    /// [`AttributesError::NoMatch`] where no image has one.
    pub fn join(&self, images: &[String]) -> Result<Vec<Option<usize>>, AttributesError> {
        let unified = |name: &str| name.replace('\\', "/");
        let by_path: HashMap<String, usize> =
            self.images.iter().enumerate().map(|(row, name)| (unified(name), row)).collect();
        // None where a name comes twice.
        let by_name = |names: &[String]| {
            let mut rows: HashMap<String, Option<usize>> = HashMap::new();
            for (row, name) in names.iter().enumerate() {
                let place = rows.entry(file_name(&unified(name)).to_owned());
                place.and_modify(|row| *row = None).or_insert(Some(row));
            }
            rows
        };
        let (theirs, ours) = (by_name(&self.images), by_name(images));
        let find = |name: &String| {
            let name = unified(name);
            by_path.get(&name).copied().or_else(|| {
                let file = file_name(&name);
                ours.get(file).copied().flatten()?;
                theirs.get(file).copied().flatten()
            })
        };
        let rows: Vec<Option<usize>> = images.iter().map(find).collect();
        if rows.iter().all(Option::is_none) {
            return Err(AttributesError::NoMatch {
                path: self.path.clone(),
                images: images.len(),
                theirs: self.images.first().cloned().unwrap_or_default(),
                ours: images.first().cloned().unwrap_or_default(),
            });
        }
        Ok(rows)
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Enough of a word to recognize it: a wrong file may be one line of megabytes.
fn shortened(word: &str) -> String {
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
    fn conditions_on_rows() {
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
            assert_eq!([0, 1, 2].map(|row| attributes.meets(row, &columns)), *expected, "{conditions:?}");
        }
        let spaced = attributes.join(&["two/my face.jpg".to_owned()]).unwrap();
        assert_eq!(spaced, [Some(2)]);
        let unknown = attributes.columns(&["Happy".into()]).unwrap_err().to_string();
        assert!(unknown.contains("\"Happy\"") && unknown.contains("Smiling, Male"), "{unknown}");
    }

    #[test]
    fn images_find_their_rows() {
        let attributes = parse("4\nA\none/a.jpg 1\ntwo/a.jpg 1\ntwo/b.jpg -1\nc.jpg 1\n").unwrap();
        let rows: &[(&[&str], &[Option<usize>])] = &[
            (&["two/a.jpg", "one/a.jpg"], &[Some(1), Some(0)]),
            (&["img/b.jpg", "img/a.jpg"], &[Some(2), None]), // a.jpg is two images of the table
            (&["x/c.jpg", "y/c.jpg", "b.jpg"], &[None, None, Some(2)]), // and c.jpg two of the data
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
    fn lines_that_do_not_fit() {
        let rows = [
            ("", "line 1: \"\" is no number"),
            ("x\nA\na 1\n", "line 1: \"x\" is no number"),
            ("1\n\na 1\n", "line 2: no attribute"),
            ("1\nA B\na 1\n", "line 3: 1 values, expected 2"),
            ("1\nA B\na 1 0\n", "line 3: a value is \"0\""),
            ("2\nA\na 1\n", "line 1: 2 images are announced, 1 follow"),
            ("1\nA\n1\n", "line 3: 0 values"),
            ("3\nA\na 1\nb 1\na -1\n", "line 5: \"a\" has attributes already, from line 3"),
        ];
        for (text, expected) in rows {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }
}
