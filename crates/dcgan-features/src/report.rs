//! The result of an experiment: a table for people, a line of JSON for programs.

use crate::extract::StatisticsSource;
use crate::protocol::Outcome;
use crate::task::{Measure, PaperRow, Task};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// One method's result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the method.
    pub name: String,
    /// Its result.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Source of the batch norm statistics, for networks.
    pub statistics: Option<StatisticsSource>,
    /// SHA-256 of the weights, for networks.
    pub weights_sha256: Option<String>,
    /// Wall time of extraction, in seconds.
    pub extraction_seconds: f64,
    /// Wall time of the search for C, fitting and scoring, in seconds.
    pub fit_seconds: f64,
}

impl Row {
    /// The result in a line, for the log of a long experiment.
    pub fn line(&self, measure: Measure) -> String {
        let interval = self.outcome.interval95.map_or_else(String::new, |i| format!(" +- {i:.2}"));
        format!(
            "{}: {} {:.2}{interval} at C {:e}, after {:.1} s",
            self.name,
            measure.name(),
            measure.of_error(self.outcome.error_percent),
            self.outcome.c,
            self.extraction_seconds + self.fit_seconds
        )
    }
}

/// Result of the supervised network of section 5.2.
#[derive(Clone, Debug, Serialize)]
pub struct SupervisedRow {
    /// Error of the best trial on the held-out images, in percent, as in the paper.
    pub validation_error_percent: f64,
    /// Its error on the test set, in percent.
    pub error_percent: f64,
    /// Trials of random search.
    pub trials: usize,
    /// Labeled training images.
    pub train: usize,
    /// Test images.
    pub test: usize,
    /// Wall time, in seconds.
    pub seconds: f64,
}

/// Results of an experiment.
#[derive(Clone, Debug)]
pub struct Report {
    /// The experiment.
    pub task: Task,
    /// Labels per class; `None` for all labels.
    pub labels_per_class: Option<usize>,
    /// The model's row, then the baselines'.
    pub rows: Vec<Row>,
    /// The supervised baseline, if requested.
    pub supervised: Option<SupervisedRow>,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// SHA-256 of the training images and their preprocessing.
    pub train_sha256: String,
    /// The same of the test images.
    pub test_sha256: String,
    /// SHA-256 of the network's configuration.
    pub config_sha256: String,
    /// The protocol.
    pub protocol: Value,
    /// SHA-256 of `protocol` as JSON.
    pub protocol_sha256: String,
    /// Peak memory of the process in bytes, if the system reports it.
    pub peak_memory_bytes: Option<u64>,
}

/// Columns of the table after the name; all but the name are right-aligned.
const HEADS: [&str; 6] = ["+- 95 %", "C", "features", "train", "test", "seconds"];

impl Report {
    fn measure(&self) -> Measure {
        self.task.measure()
    }

    /// The table: this program's rows, then the paper's.
    pub fn table(&self) -> String {
        let measure = self.measure();
        let labels = match self.labels_per_class {
            Some(n) => format!("{n} labels per class"),
            None => "all labels".to_owned(),
        };
        let mut lines = vec![
            std::iter::once(format!("{}, {labels}", self.task.name()))
                .chain(std::iter::once(measure.name().to_owned()))
                .chain(HEADS.map(str::to_owned))
                .collect::<Vec<_>>(),
        ];
        for row in &self.rows {
            let o = &row.outcome;
            lines.push(vec![
                row.name.clone(),
                format!("{:.2}", measure.of_error(o.error_percent)),
                o.interval95.map_or_else(String::new, |i| format!("{i:.2}")),
                format!("{:e}", o.c),
                thousands(o.features),
                thousands(o.train),
                thousands(o.test),
                format!("{:.1}", row.extraction_seconds + row.fit_seconds),
            ]);
        }
        if let Some(row) = &self.supervised {
            lines.push(vec![
                format!("supervised CNN, best of {} trials", row.trials),
                format!("{:.2}", measure.of_error(row.error_percent)),
                String::new(),
                String::new(),
                String::new(),
                thousands(row.train),
                thousands(row.test),
                format!("{:.1}", row.seconds),
            ]);
            lines.push(vec![
                "  the same on the held-out images".to_owned(),
                format!("{:.2}", measure.of_error(row.validation_error_percent)),
            ]);
        }
        let ours = lines.len();
        for PaperRow { method, percent, plus_minus, features } in self.task.paper(self.labels_per_class) {
            lines.push(vec![
                format!("paper: {method}"),
                format!("{percent:.2}"),
                plus_minus.map_or_else(String::new, |i| format!("{i:.2}")),
                String::new(),
                features.map_or_else(String::new, thousands),
            ]);
        }
        let mut text = layout(&lines, ours);
        if let Some(over) = self.rows.first().map(|row| &row.outcome.interval_over) {
            text.push_str(&format!("intervals: 1.96 sigma over {over}\n"));
        }
        if lines.len() > ours {
            text.push_str(
                "rows marked \"paper\" are quoted from Radford, Metz and Chintala (2016) or \
                 the authors' release, on full data\n",
            );
        }
        text
    }

    /// A JSON object: the model's result at the top level, the baselines in `baselines`.
    pub fn json(&self) -> Value {
        let measure = self.measure();
        let mut rows = self.rows.iter().map(|row| {
            let o = &row.outcome;
            let mut object = Map::new();
            let percent = measure.of_error(o.error_percent);
            match measure {
                Measure::Error => object.insert("error_percent".into(), json!(percent)),
                Measure::Accuracy => object.insert("accuracy_percent".into(), json!(percent)),
            };
            let classes = self.class_names.iter().zip(&o.per_class_accuracy);
            let per_class: Map<_, _> = classes.map(|(name, value)| (name.clone(), json!(value))).collect();
            let fields = json!({
                "name": row.name,
                "interval95": o.interval95,
                "interval_over": o.interval_over,
                "c": o.c,
                "features": o.features,
                "train": o.train,
                "held_out": o.held_out,
                "test": o.test,
                "seconds": row.extraction_seconds + row.fit_seconds,
                "extraction_seconds": row.extraction_seconds,
                "fit_seconds": row.fit_seconds,
                "statistics": row.statistics,
                "weights_sha256": row.weights_sha256,
                "per_class_accuracy": per_class,
                "held_out_error_percent": o.validation,
                "draws": o.draws.len(),
            });
            if let Value::Object(fields) = fields {
                object.extend(fields);
            }
            object
        });
        let mut object = rows.next().unwrap_or_default();
        let baselines: Vec<_> = rows.collect();
        object.insert("task".into(), json!(self.task));
        object.insert("labels_per_class".into(), json!(self.labels_per_class));
        object.insert("baselines".into(), json!(baselines));
        object.insert("supervised".into(), json!(self.supervised));
        object.insert("config_sha256".into(), json!(self.config_sha256));
        object.insert("train_sha256".into(), json!(self.train_sha256));
        object.insert("test_sha256".into(), json!(self.test_sha256));
        object.insert("protocol".into(), self.protocol.clone());
        object.insert("protocol_sha256".into(), json!(self.protocol_sha256));
        object.insert("peak_memory_bytes".into(), json!(self.peak_memory_bytes));
        object.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
        Value::Object(object)
    }
}

/// Formats 28672 as 28,672.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Lines of cells as text: the first column left-aligned, a rule below the headings and before line `rule`.
pub fn layout(lines: &[Vec<String>], rule: usize) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let total = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i == 1 || i == rule {
            text.push_str(&"-".repeat(total));
            text.push('\n');
        }
        let mut row = String::new();
        for (column, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let cell = if column == 0 { format!("{cell}{pad}") } else { format!("  {pad}{cell}") };
            row.push_str(&cell);
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_columns() {
        let rows = [(0, "0"), (999, "999"), (1000, "1,000"), (28_672, "28,672"), (1_234_567, "1,234,567")];
        for (n, expected) in rows {
            assert_eq!(thousands(n), expected);
        }
        let lines = [
            vec!["a".to_owned(), "long".to_owned()],
            vec!["bcd".to_owned(), "1".to_owned()],
            vec!["p".to_owned()],
        ];
        assert_eq!(layout(&lines, 2), "a    long\n---------\nbcd     1\n---------\np\n");
    }
}
