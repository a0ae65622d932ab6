//! Random draws of a few labeled images per class.

use super::ProtocolError;
use dcgan_base::random::{self, Purpose};
use rand::Rng;

fn short_class(class: usize, names: &[String], found: usize, needed: usize) -> ProtocolError {
    let class = names.get(class).map_or_else(|| class.to_string(), |name| format!("{class} ({name})"));
    ProtocolError::ShortClass { class, found, needed }
}

/// Rows by class.
#[derive(Clone, Debug)]
pub struct Classes {
    rows: Vec<Vec<usize>>,
}

impl Classes {
    /// Groups rows by class. `names` has the names of all classes, with or without rows; without names the classes are
    /// those of the rows.
    ///
    /// # Errors
    /// [`ProtocolError::ShortClass`] for the first class with fewer than `needed` rows.
    pub fn new(labels: &[usize], names: &[String], needed: usize) -> Result<Self, ProtocolError> {
        let count = names.len().max(labels.iter().map(|label| label + 1).max().unwrap_or(0));
        let mut rows = vec![Vec::new(); count];
        for (row, &label) in labels.iter().enumerate() {
            rows[label].push(row);
        }
        let is_class = |class: usize, rows: &[usize]| class < names.len() || !rows.is_empty();
        let mut few = (0..).zip(&rows).filter(|(class, rows)| is_class(*class, rows) && rows.len() < needed);
        match few.next().map(|(class, _)| class) {
            Some(class) => Err(short_class(class, names, rows[class].len(), needed)),
            None => Ok(Self { rows }),
        }
    }

    /// Rejects labels whose class has no row.
    ///
    /// # Errors
    /// [`ProtocolError::ShortClass`] for the first such label.
    pub fn check_known(&self, labels: &[usize], names: &[String]) -> Result<(), ProtocolError> {
        let unknown = |label: &&usize| self.rows.get(**label).is_none_or(Vec::is_empty);
        labels.iter().find(unknown).map_or(Ok(()), |&class| Err(short_class(class, names, 0, 1)))
    }

    /// `count` rows of every class without replacement, class by class; a function of seed, purpose and index.
    pub fn draw(&self, count: usize, seed: u64, purpose: Purpose, index: u64) -> Vec<usize> {
        let mut rng = random::stream(seed, purpose, index);
        let mut drawn = Vec::with_capacity(count * self.rows.len());
        for rows in &self.rows {
            // The first steps of a Fisher-Yates shuffle.
            let mut rows = rows.clone();
            let count = count.min(rows.len());
            for i in 0..count {
                let other = rng.random_range(i..rows.len());
                rows.swap(i, other);
            }
            drawn.extend(&rows[..count]);
        }
        drawn
    }
}
