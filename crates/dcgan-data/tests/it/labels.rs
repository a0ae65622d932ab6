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
    check(&names, Some(r#"{"labels": [["00/a.png", 3]]}"#), Err("has no label for image 01/b.png"));
    check(&names, Some(r#"{"labels": [["00/a.png", -1]]}"#), Err("dataset.json: is invalid: invalid value"));
    check(&names, Some("{"), Err("dataset.json: is invalid: EOF"));
}
