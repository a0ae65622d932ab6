//! Labels of folders and zips: from class folders and from dataset.json.

use dcgan_data::{Dataset, OpenOptions};

use crate::fixtures::{Folder, png, shape, zip};

type Expected<'a> = Result<(Option<&'a [u32]>, Option<&'a [&'a str]>), &'a str>;

fn check(names: &[&str], json: Option<&str>, expected: Expected<'_>) {
    let mut files: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (*name, png(0))).collect();
    files.extend(json.map(|json| ("dataset.json", json.as_bytes().to_vec())));
    let archive = Folder::new(&[("x.zip", zip(&files))]);
    let folder = Folder::new(&files);
    for path in [folder.path().to_owned(), archive.join("x.zip")] {
        let opened = Dataset::open(&path, &OpenOptions::new(shape(5, 4, 3)));
        match (opened, expected) {
            (Ok(dataset), Ok((labels, classes))) => {
                assert_eq!(dataset.labels(), labels, "{names:?} {json:?}");
                let names: Option<Vec<&str>> =
                    dataset.class_names().map(|names| names.iter().map(String::as_str).collect());
                assert_eq!(names.as_deref(), classes);
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (opened, expected) => panic!("{names:?} {json:?}: {opened:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn folders_are_classes_only_if_every_image_is_in_one_of_several() {
    check(&["cat/1.png", "dog/1.png", "dog/2.png"], None, Ok((Some(&[0, 1, 1]), Some(&["cat", "dog"]))));
    check(&["all/cat/1.png", "all/dog/deep/2.png"], None, Ok((Some(&[0, 1]), Some(&["cat", "dog"]))));
    check(&["1.png", "2.png"], None, Ok((None, None)));
    check(&["img/1.png", "img/2.png"], None, Ok((None, None)));
    check(&["1.png", "dog/2.png"], None, Ok((None, None)));
}

#[test]
fn dataset_json_overrides_folders() {
    let names = ["00/a.png", "01/b.png"];
    check(&names, Some(r#"{"labels": null}"#), Ok((None, None)));
    check(&names, Some("{}"), Ok((None, None)));
    check(
        &names,
        Some(r#"{"labels": [["01/b.png", 7], ["00\\a.png", 3], ["gone.png", 1]]}"#),
        Ok((Some(&[3, 7]), None)),
    );
    check(&names, Some("{"), Err("dataset.json: is invalid: EOF"));
    check(&names, Some(r#"{"labels": [["00/a.png", 3]"#), Err("dataset.json: is invalid: EOF"));
}

/// Labels that are not classes are for other programs: the dataset is unlabeled, and the report says why.
#[test]
fn other_labels_in_dataset_json_give_an_unlabeled_dataset() {
    let label = |label: &str| format!(r#"{{"labels": [["a.png", {label}], ["b.png", 1]]}}"#);
    let rows = [
        (label("[0.0, 1.0]"), "the label of a.png in dataset.json is a vector"),
        (label("[]"), "is a vector"),
        (label("0.5"), "is a floating-point number"),
        (label("1.0"), "is a floating-point number"),
        (label("null"), "is null"),
        (label("\"cat\""), "is a string"),
        (label("-1"), "is a negative integer"),
        (label("4294967296"), "is an integer above 2^32"),
        (label("true"), "is true or false"),
        (label(r#"{"x": [1]}"#), "is an object"),
        (r#"{"labels": [["a.png", 1]]}"#.to_owned(), "has no label for 1 of 2 images, such as b.png"),
        (r#"{"labels": [["a.png", 1, 2], ["b.png", 1]]}"#.to_owned(), "contains labels of another form"),
        (r#"{"labels": [{"file": "a.png"}]}"#.to_owned(), "contains labels of another form"),
        (r#"{"labels": 3}"#.to_owned(), "contains a number as labels"),
        (r#"[{"image": "a.png", "caption": "x"}]"#.to_owned(), "contains a list"),
    ];
    for (json, part) in rows {
        let folder =
            Folder::new(&[("a.png", png(0)), ("b.png", png(1)), ("dataset.json", json.clone().into_bytes())]);
        let dataset = Dataset::open(folder.path(), &OpenOptions::new(shape(5, 4, 3))).unwrap();
        assert_eq!((dataset.len(), dataset.labels()), (2, None), "{json}");
        let notes = dataset.report().notes.join("; ");
        assert!(notes.contains("unlabeled") && notes.contains(part), "{json}: {notes}");
    }
    let pairs = r#"{"labels": {"a.png": 2, "b.png": 0}}"#;
    check(&["a.png", "b.png"], Some(pairs), Ok((Some(&[2, 0]), None)));
}
