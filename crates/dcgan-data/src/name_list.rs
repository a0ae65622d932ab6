//! Lists of names of images, one in the first column of each line (`--exclude`, the list of `dcgan-eval dedup`).

use std::borrow::Cow;

/// A name as a column of a list: in quotes, as a string of JSON, if it could be taken for something else.
pub fn list_column(name: &str) -> Cow<'_, str> {
    let is_plain = !name.starts_with(['#', '"']) && name.trim() == name && !name.contains(char::is_control);
    if is_plain { name.into() } else { serde_json::Value::from(name).to_string().into() }
}

/// The names in the first column of a list. Columns end with a tab. Lines that start with `# `, as the head of a list
/// does, and empty lines are no names.
pub fn listed_names(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with("# ") && !line.trim().is_empty());
    let name = |line: &str| {
        let column = line.split('\t').next().unwrap_or(line);
        // What is not a string of JSON is the name itself.
        serde_json::from_str(column).unwrap_or_else(|_| column.to_owned())
    };
    lines.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let names = [
            "a.png",
            "a b/1.png",
            "#01.png",
            "# 1.png",
            " a",
            "a ",
            "a\tb",
            "a\nb",
            "a\rb",
            "\"a\".png",
            "é",
            "1",
        ];
        let text: String = names.iter().map(|name| format!("{}\tkept.png\t3\n", list_column(name))).collect();
        assert_eq!(listed_names(&format!("# removed\tkept\tbits\n\n{text}")), names);
        assert_eq!(list_column("a b/1.png"), "a b/1.png");
        // Lists of users.
        assert_eq!(listed_names("#01.png\n\"quote.png\r\n"), ["#01.png", "\"quote.png"]);
    }
}
