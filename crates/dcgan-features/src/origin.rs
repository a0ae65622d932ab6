//! The origin of features: JSON in the header of a feature file that names the network, its weights and the images.
//!
//! Earlier versions wrote `pictures_sha256` instead of `images_sha256`, `reestimated on HASH` instead of `recalibrated
//! on HASH`, and other names in configurations. [`parse`] reads both. Hashes are computed over the earlier names, so
//! that equal experiments have equal hashes in all versions.

use serde_json::Value;

/// The key of the images' hash, and its earlier name.
const IMAGES: [&str; 2] = ["images_sha256", "pictures_sha256"];
/// Recalibrated batch norm statistics, and their earlier name.
pub(crate) const RECALIBRATED: [&str; 2] = ["recalibrated", "reestimated"];

/// An origin with the names of this version. Text that is not JSON becomes a string, no text null.
pub fn parse(text: Option<&str>) -> Value {
    let Some(text) = text else { return Value::Null };
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => {
            let current = |(key, value): (String, Value)| {
                let key = if key == IMAGES[1] { IMAGES[0].to_owned() } else { key };
                (key, rename_statistics(value, RECALIBRATED[1], RECALIBRATED[0]))
            };
            Value::Object(map.into_iter().map(current).collect())
        }
        Ok(other) => other,
        Err(_) => Value::String(text.to_owned()),
    }
}

/// The origin with the images' hash under its earlier name as well, for programs that read it.
pub fn with_earlier_keys(mut origin: Value) -> Value {
    if let Some(images) = origin.get(IMAGES[0]).cloned() {
        origin[IMAGES[1]] = images;
    }
    origin
}

/// JSON in the form that hashes are computed over: the names of the first version.
pub(crate) fn hashed_form(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let entry = |(key, value): (String, Value)| match key.as_str() {
        "images_sha256" => (IMAGES[1].to_owned(), value),
        "negative_slope" => ("leak".to_owned(), value),
        "project_norm" => {
            let norm = match value.as_str() {
                Some("per-channel") => "channel".into(),
                Some("per-activation") => "unit".into(),
                _ => value,
            };
            (key, norm)
        }
        "statistics" => (key, rename_statistics(value, RECALIBRATED[0], RECALIBRATED[1])),
        _ => (key, hashed_form(value)),
    };
    // The first version of configurations had no version number.
    Value::Object(map.into_iter().filter(|(key, _)| key != "version").map(entry).collect())
}

/// Replaces `from` by `to` at the start of `FROM on HASH`.
fn rename_statistics(value: Value, from: &str, to: &str) -> Value {
    match value.as_str().and_then(|text| text.strip_prefix(from)) {
        Some(rest) => Value::String(format!("{to}{rest}")),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn earlier_names_are_read() {
        let current = json!({ "images_sha256": "p", "statistics": "recalibrated on q", "width": 3 });
        let earlier = r#"{"pictures_sha256":"p","statistics":"reestimated on q","width":3}"#;
        assert_eq!(parse(Some(earlier)), current);
        assert_eq!(parse(Some(&current.to_string())), current);
        assert_eq!(hashed_form(current.clone()).to_string(), earlier);
        assert_eq!(with_earlier_keys(current)["pictures_sha256"], "p");
        let stored = json!({ "statistics": "stored" });
        assert_eq!(parse(Some(&stored.to_string())), stored);
        assert_eq!(with_earlier_keys(stored.clone()), stored);
        assert_eq!((parse(None), parse(Some("text"))), (Value::Null, json!("text")));
    }
}
