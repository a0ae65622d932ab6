//! `dcgan-train export --to hub`: a model folder with the metadata of a model repository of the Hugging Face Hub.

use std::path::Path;

use dcgan_cli::UsageError;
use dcgan_model::ModelFiles;
use serde_json::Value;

/// Licenses by the names of the Hub; others are `other`, with a name of their own.
const LICENSES: [&str; 24] = [
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "artistic-2.0",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsl-1.0",
    "cc",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gpl-2.0",
    "gpl-3.0",
    "lgpl-3.0",
    "mit",
    "mpl-2.0",
    "openrail",
    "pddl",
    "unknown",
    "unlicense",
];

/// Metrics of result files, by their key there: type and name on the Hub.
const METRICS: [(&str, &str, &str); 9] = [
    ("fid", "fid", "FID"),
    ("fid_infinity", "fid-infinity", "FID-infinity"),
    ("kid", "kid", "KID"),
    ("inception_score", "inception-score", "Inception score"),
    ("precision", "precision", "Precision"),
    ("recall", "recall", "Recall"),
    ("density", "density", "Density"),
    ("coverage", "coverage", "Coverage"),
    ("best_frechet", "random-feature-frechet-distance", "Random-feature Fréchet distance"),
];

/// The metrics of one result file.
#[derive(Debug)]
pub(crate) struct Results {
    /// The real images they were compared with.
    reference: Option<String>,
    /// Type, name and value.
    metrics: Vec<(&'static str, String, f64)>,
}

impl Results {
    /// Reads the JSON that `dcgan-eval metrics --json` prints, or result.json of a run.
    pub(crate) fn read(path: &Path) -> Result<Self, UsageError> {
        let fault = |problem: String| UsageError::one(format!("--results {}: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        let values: Value = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        let count = |key: &str| values.get(key).and_then(Value::as_u64);
        let how = match (values.get("convention").and_then(Value::as_str), count("generated_images")) {
            (Some(convention), Some(generated)) => {
                let real =
                    count("reference_images").map(|real| format!(" against {real}")).unwrap_or_default();
                format!(" ({convention}, {generated} images{real})")
            }
            _ => String::new(),
        };
        let metric = |(key, kind, name): (&str, &'static str, &str)| {
            Some((kind, format!("{name}{how}"), values.get(key)?.as_f64()?))
        };
        let metrics: Vec<_> = METRICS.into_iter().filter_map(metric).collect();
        if metrics.is_empty() {
            let expected = "expected the output of `dcgan-eval metrics --json`, or result.json of a run";
            return Err(fault(format!("it has no metrics; {expected}")));
        }
        let reference = values.get("reference").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { reference, metrics })
    }
}

/// A string in YAML, whose double-quoted strings are those of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The metadata of the card of a model, which the Hub reads. The task of a discriminator alone is feature extraction.
pub(crate) fn front_matter(
    files: &ModelFiles,
    license: &str,
    datasets: &[String],
    results: &[Results],
) -> String {
    let mut lines = vec!["---".to_owned()];
    let known = license.to_lowercase();
    if LICENSES.contains(&known.as_str()) {
        lines.push(format!("license: {known}"));
    } else {
        lines.push("license: other".to_owned());
        lines.push(format!("license_name: {}", quoted(license)));
    }
    lines.push("library_name: dcgan-rs".to_owned());
    let (task, tag) = match files.generator {
        Some(_) => ("unconditional-image-generation", "image-generation"),
        None => ("image-feature-extraction", "feature-extraction"),
    };
    lines.push(format!("pipeline_tag: {task}"));
    lines.push("tags:".to_owned());
    lines.extend(["dcgan", "gan", tag].map(|tag| format!("- {tag}")));
    if !datasets.is_empty() {
        lines.push("datasets:".to_owned());
        lines.extend(datasets.iter().map(|name| format!("- {}", quoted(name))));
    }
    if !results.is_empty() {
        lines.push("model-index:".to_owned());
        lines.push(format!("- name: {}", quoted(&files.model.config().name)));
        lines.push("  results:".to_owned());
        for result in results {
            let dataset = result.reference.as_ref().or(datasets.first());
            let dataset = quoted(dataset.map_or("the training data", |name| name.as_str()));
            lines.push("  - task:".to_owned());
            lines.push(format!("      type: {task}"));
            lines.push("    dataset:".to_owned());
            lines.push(format!("      name: {dataset}"));
            lines.push(format!("      type: {dataset}"));
            lines.push("    metrics:".to_owned());
            for (kind, name, value) in &result.metrics {
                lines.push(format!("    - type: {kind}"));
                lines.push(format!("      name: {}", quoted(name)));
                lines.push(format!("      value: {value}"));
            }
        }
    }
    lines.push("---\n".to_owned());
    lines.join("\n")
}

/// The card of a model without the metadata of an earlier export.
pub(crate) fn without_front_matter(card: &str) -> &str {
    let rest = card.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n"));
    rest.map_or(card, |(_, rest)| rest.trim_start())
}

/// A configuration with the fields by which the Hub shows what a repository is; reading leaves them out.
pub(crate) fn with_class_name(config: &str) -> String {
    let fields = format!(
        "{{\n  \"_class_name\": \"DCGAN\",\n  \"_dcgan_rs_version\": \"{}\",",
        env!("CARGO_PKG_VERSION")
    );
    config.replacen('{', &fields, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_have_the_metrics_of_result_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let metrics = write(
            "metrics.json",
            r#"{"convention": "clean", "generated_images": 50000, "reference_images": 100, "reference": "a \"b\": c",
                "fid": 12.5, "kid": null, "precision": 0.25}"#,
        );
        let run = write("result.json", r#"{"steps": 3, "best_frechet": 0.125}"#);
        let results = [Results::read(&metrics).unwrap(), Results::read(&run).unwrap()];
        let mut files = ModelFiles::embedded_digits().unwrap();
        let text = front_matter(&files, "MIT", &["mnist".to_owned()], &results);
        for expected in [
            "license: mit\n",
            "pipeline_tag: unconditional-image-generation\ntags:\n- dcgan\n- gan\n- image-generation\n",
            "datasets:\n- \"mnist\"\n",
            "      name: \"a \\\"b\\\": c\"\n",
            "    - type: fid\n      name: \"FID (clean, 50000 images against 100)\"\n      value: 12.5\n",
            "      value: 0.25\n",
            "      name: \"mnist\"\n",
            "      value: 0.125\n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("kid"));
        files.generator = None;
        let other = front_matter(&files, "My License", &[], &[]);
        assert!(other.contains("pipeline_tag: image-feature-extraction\n"), "{other}");
        assert!(other.contains("license: other\nlicense_name: \"My License\"\n"), "{other}");
        let card = format!("{text}\n# digits\n\n---\n\nmore\n");
        assert_eq!(without_front_matter(&card), "# digits\n\n---\n\nmore\n");
        assert_eq!(without_front_matter("# digits\n"), "# digits\n");
        for (name, content) in [("empty.json", "{}"), ("broken.json", "{")] {
            let faults = Results::read(&write(name, content)).unwrap_err().faults;
            assert!(faults[0].contains(name), "{faults:?}");
        }
    }
}
