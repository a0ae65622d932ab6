//! The names of many images in one text.

use std::ops::Range;

/// Names in a fixed order: one text and the end of each name in it, 8 bytes a name beside the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    text: String,
    ends: Vec<u64>,
}

impl Names {
    /// The text of all names and the end of each in it; `None` if an end is outside.
    pub(crate) fn from_parts(text: String, ends: Vec<u64>) -> Option<Self> {
        let last = ends.last().copied().unwrap_or(0);
        (ends.is_sorted() && usize::try_from(last).is_ok_and(|last| last == text.len()))
            .then_some(Self { text, ends })
    }

    pub(crate) fn parts(&self) -> (&str, &[u64]) {
        (&self.text, &self.ends)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len() as u64);
    }

    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        self.text.get(self.range(index)?)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }

    /// Whether they are in the order of their bytes.
    pub(crate) fn is_sorted(&self) -> bool {
        self.iter().is_sorted()
    }

    /// The numbers of the names in the order of their bytes. Equal names keep their order.
    pub(crate) fn sorted(&self) -> Vec<u32> {
        let name = |number: &u32| usize::try_from(*number).ok().and_then(|index| self.get(index));
        let mut order: Vec<u32> = (0..u32::try_from(self.len()).unwrap_or(u32::MAX)).collect();
        // Folders are listed in order, so that there are few runs to merge.
        order.sort_by(|a, b| name(a).cmp(&name(b)));
        order
    }

    fn range(&self, index: usize) -> Option<Range<usize>> {
        let before = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        Some(usize::try_from(before).ok()?..usize::try_from(*self.ends.get(index)?).ok()?)
    }
}

impl<S: AsRef<str>> FromIterator<S> for Names {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut all = Self::default();
        names.into_iter().for_each(|name| all.push(name.as_ref()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_and_sorted() {
        let names: Names = ["b", "", "aé", "b"].into_iter().collect();
        assert_eq!(names.iter().collect::<Vec<_>>(), ["b", "", "aé", "b"]);
        assert_eq!((names.get(2), names.get(4)), (Some("aé"), None));
        assert_eq!(names.sorted(), [1, 2, 0, 3]);
        assert!(!names.is_sorted());
        assert!(Names::from_iter(["", "aé", "b", "b"]).is_sorted());
    }
}
