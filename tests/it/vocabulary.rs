//! One vocabulary in code and documents: words to avoid, each with its replacement, and the longest line.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Words to avoid and their replacements. A phrase of several words matches prose and identifiers: `move average` finds
/// "move average", `move_average` and `MoveAverage`. A `*` stands for the rest of a word. Case does not matter.
const WORDS: &[(&str, &str)] = &[
    ("picture*", "image"),
    ("sheet", "image grid"),
    ("sheets", "image grids"),
    ("data set", "dataset"),
    ("data sets", "datasets"),
    ("quality figure*", "random-feature Fréchet distance"),
    ("absorb*", "update the running statistics, update_running_stats"),
    ("move average*", "update the EMA, update_ema"),
    ("move the average*", "update the EMA"),
    ("reestimat*", "recalibrate"),
    ("re estimat*", "recalibrate"),
    ("bring near", "prefetch"),
    ("brought near", "prefetched"),
    ("norm scope*", "NormAxes"),
    ("foreign*", "import, file of another program"),
    ("easel*", "draw queue"),
    ("commission*", "draw job"),
    ("wish*", "draw request"),
    ("judge*", "d_loss, g_loss, logits, check"),
    ("derivative by", "gradient with respect to"),
    ("derivatives by", "gradients with respect to"),
    ("colour*", "color"),
    ("labelled", "labeled"),
    ("licence*", "license"),
    ("normalis*", "normalize"),
    ("initialis*", "initialize"),
];

/// Character sequences to avoid, case-sensitive: old names of tensors and configuration keys, and typography.
const TEXTS: &[(&str, &str)] = &[
    ("\"gain\"", "weight"),
    ("\"shift\"", "bias"),
    (".gain\"", ".weight"),
    (".shift\"", ".bias"),
    ("dgain", "grad_weight"),
    ("dshift", "grad_bias"),
    ("gain_std", "norm_weight_std"),
    ("\"leak\"", "negative_slope"),
    ("leak =", "negative_slope"),
    ("«", "\""),
    ("»", "\""),
];

/// A line that contains one of these is exempt: it reads a name of an earlier version, or a format's magic number.
const EXEMPT_LINES: &[&str] =
    &["alias", "earlier", "old name", "dcgan-pictures-1", "\"images_sha256\", \"pictures_sha256\""];
/// Files that quote old names.
const EXEMPT_FILES: &[&str] =
    &["CHANGELOG.md", "crates/dcgan-features/src/origin.rs", "tests/it/vocabulary.rs"];
const EXTENSIONS: &[&str] = &["rs", "md", "toml", "js", "mjs", "html", "py"];
const FOLDERS_SKIPPED: &[&str] = &["version1", "target", "runs", "node_modules", "__pycache__"];
const COLUMNS: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Paths and contents of the files of the repository that have one of `extensions`, sorted by path.
fn texts(extensions: &[&str]) -> Vec<(String, String)> {
    let mut folders = vec![root()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !name.starts_with('.') && !FOLDERS_SKIPPED.contains(&name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known)) {
                let relative = path.strip_prefix(root()).unwrap().display().to_string();
                files.push((relative, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    assert!(files.len() > 40, "found only {} files", files.len());
    files
}

/// A word of a line.
struct Word {
    bytes: Range<usize>,
    lowercase: String,
}

/// The words of a line. An identifier is split at `_` and where a capital letter follows a small one.
fn words(line: &str) -> Vec<Word> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut previous = ' ';
    for (at, letter) in line.char_indices() {
        let end = at + letter.len_utf8();
        let continues = previous.is_alphabetic() && !(previous.is_lowercase() && letter.is_uppercase());
        match ranges.last_mut() {
            Some(word) if letter.is_alphabetic() && continues => word.end = end,
            _ if letter.is_alphabetic() => ranges.push(at..end),
            _ => {}
        }
        previous = letter;
    }
    let word = |bytes: Range<usize>| Word { lowercase: line[bytes.clone()].to_lowercase(), bytes };
    ranges.into_iter().map(word).collect()
}

/// Whether `phrase` starts at the first of `words`, with at most one space, hyphen or underscore between two words.
fn starts_with(line: &str, words: &[Word], phrase: &str) -> bool {
    let mut previous: Option<&Word> = None;
    for (i, expected) in phrase.split(' ').enumerate() {
        let Some(word) = words.get(i) else { return false };
        let matches = match expected.strip_suffix('*') {
            Some(stem) => word.lowercase.starts_with(stem),
            None => word.lowercase == expected,
        };
        let gap = previous.map_or("", |previous| &line[previous.bytes.end..word.bytes.start]);
        if !matches || !["", " ", "-", "_"].contains(&gap) {
            return false;
        }
        previous = Some(word);
    }
    true
}

/// Each word to avoid in `line`, with its replacement.
fn words_to_avoid(line: &str) -> Vec<(&'static str, &'static str)> {
    let words = words(line);
    let has_phrase = |phrase| (0..words.len()).any(|i| starts_with(line, &words[i..], phrase));
    let phrases = WORDS.iter().filter(|(phrase, _)| has_phrase(phrase));
    phrases.chain(TEXTS.iter().filter(|(text, _)| line.contains(text))).copied().collect()
}

#[test]
fn words_are_found_in_prose_and_in_identifiers() {
    let rows: &[(&str, &[&str])] = &[
        ("an image grid of a dataset, a label, a shift of bits", &[]),
        ("a stylesheet; reading data. Set x; recalibrate", &[]),
        ("Two Pictures", &["picture*"]),
        ("fn picture_count() -> usize", &["picture*"]),
        ("struct NormScope; fn move_average()", &["move average*", "norm scope*"]),
        ("a data set, re-estimated", &["data set", "re estimat*"]),
        ("self.judge(x)", &["judge*"]),
        ("let spec = format!(\"{name}.gain\")", &[".gain\""]),
        ("in color, «quoted»", &["«", "»"]),
    ];
    for (line, expected) in rows {
        let found: Vec<&str> = words_to_avoid(line).iter().map(|(word, _)| *word).collect();
        assert_eq!(found, *expected, "{line}");
    }
}

#[test]
fn code_and_documents_use_one_vocabulary() {
    let mut report = String::new();
    let mut count = 0;
    for (name, text) in texts(EXTENSIONS) {
        if EXEMPT_FILES.contains(&name.as_str()) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if EXEMPT_LINES.iter().any(|exempt| line.contains(exempt)) {
                continue;
            }
            for (word, replacement) in words_to_avoid(line) {
                count += 1;
                writeln!(report, "{name}:{}: {word} -> {replacement}: {}", number + 1, line.trim()).unwrap();
            }
        }
    }
    assert!(count == 0, "{count} words to avoid (file:line: word -> replacement: text)\n{report}");
}

#[test]
fn lines_have_at_most_120_columns() {
    let mut report = String::new();
    let mut count = 0;
    for (name, text) in texts(&["rs", "py", "md"]) {
        for (number, line) in text.lines().enumerate() {
            // A table row, a URL or a string literal cannot be wrapped.
            let is_table = line.trim_start().trim_start_matches("//! ").starts_with('|');
            let comment = if name.ends_with(".py") { "#" } else { "//" };
            let is_comment = line.trim_start().starts_with(comment);
            let is_literal = !name.ends_with(".md") && !is_comment && line.contains(['"', '\\']);
            let columns = line.chars().count();
            if columns > COLUMNS && !is_table && !is_literal && !line.contains("://") {
                count += 1;
                writeln!(report, "{name}:{}: {columns} columns", number + 1).unwrap();
            }
        }
    }
    assert!(count == 0, "{count} lines have more than {COLUMNS} columns (file:line: columns)\n{report}");
}
