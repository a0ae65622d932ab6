//! Finds the tensors in what a file holds: dicts of dicts, lists, and wrappers of every kind around state dicts.

use super::pickle::{Global, Id, Node, Pickle, PickleError, PickleFault};
use crate::weights::HostTensor;

/// Dicts within dicts: a checkpoint of several networks has three.
const MAX_DEPTH: usize = 16;

/// Values looked at, however often a file shares them.
const MAX_VISITS: usize = 1 << 20;

/// Bytes of one key; a file may share one long key between many tensors.
pub(crate) const MAX_KEY: usize = 256;

/// A tensor of a file of another program.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// Keys of the dicts around it, joined by `/`: `checkpoint/netG`; empty for a bare state dict.
    pub(crate) place: String,
    /// Its name: `main.0.weight`.
    pub(crate) name: String,
    /// Its values.
    pub(crate) tensor: HostTensor,
}

/// A tensor that is described in a pickle.
pub(crate) struct TensorRef {
    pub(crate) place: String,
    pub(crate) name: String,
    /// The tuple that `_rebuild_tensor_v2` takes.
    pub(crate) arguments: Id,
}

/// Every tensor of a pickle in its order, but for the states of optimizers.
pub(crate) fn tensors(pickle: &Pickle) -> Result<Vec<TensorRef>, PickleError> {
    let mut walk = Walk { pickle, visits: 0, found: Vec::new() };
    walk.visit(pickle.root(), &mut Vec::new())?;
    Ok(walk.found)
}

struct Walk<'a> {
    pickle: &'a Pickle,
    visits: usize,
    found: Vec<TensorRef>,
}

impl Walk<'_> {
    fn visit(&mut self, id: Id, path: &mut Vec<String>) -> Result<(), PickleError> {
        // Borrowed from the file, not from `self`, which changes while its values are visited.
        let pickle = self.pickle;
        self.visits += match pickle.node(id) {
            Node::Dict(pairs) => 1 + pairs.len(),
            _ => 1,
        };
        if self.visits > MAX_VISITS {
            return Err(PickleError { at: 0, fault: PickleFault::TooMany(MAX_VISITS) });
        }
        if path.len() > MAX_DEPTH {
            return Err(odd("a state dict, not dicts within dicts without end"));
        }
        match pickle.node(id) {
            Node::Dict(pairs) if pickle.entry(id, "param_groups").is_none() => {
                for (key, value) in pairs {
                    let name = match (pickle.node(*key), pickle.text(*key)) {
                        (_, Some(text)) if text.len() > MAX_KEY => return Err(odd("shorter names")),
                        (_, Some(text)) => text.to_owned(),
                        (Node::Int(number), _) => number.to_string(),
                        _ => continue,
                    };
                    self.visit_below(*value, name, path)?;
                }
            }
            Node::List(items) | Node::Tuple(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.visit_below(*item, i.to_string(), path)?;
                }
            }
            Node::Object { class: Global::RebuildTensor, arguments, .. } => self.keep(path, *arguments),
            Node::Object { class: Global::RebuildParameter, arguments, .. } => {
                let tensor =
                    pickle.items(*arguments).and_then(<[Id]>::first).map(|tensor| pickle.node(*tensor));
                if let Some(Node::Object { class: Global::RebuildTensor, arguments, .. }) = tensor {
                    self.keep(path, *arguments);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_below(&mut self, id: Id, name: String, path: &mut Vec<String>) -> Result<(), PickleError> {
        path.push(name);
        let visited = self.visit(id, path);
        path.pop();
        visited
    }

    fn keep(&mut self, path: &[String], arguments: Id) {
        let (name, place) = match path.split_last() {
            Some((name, place)) => (name.clone(), place.join("/")),
            None => ("the only tensor".to_owned(), String::new()),
        };
        self.found.push(TensorRef { place, name, arguments });
    }
}

fn odd(expected: &'static str) -> PickleError {
    PickleError { at: 0, fault: PickleFault::Expected(expected) }
}
