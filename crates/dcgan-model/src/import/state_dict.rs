//! Finds the tensors in a pickle: state dicts, dicts of them, lists, and wrappers around state dicts.

use super::pickle::{Global, Id, Node, Pickle, PickleError, PickleErrorKind};
use crate::weights::HostTensor;

/// The deepest nesting of dicts; a checkpoint of several networks has three levels.
const MAX_DEPTH: usize = 16;

/// The most values visited, counting a shared value each time.
const MAX_VISITS: usize = 1 << 20;

/// Bytes of the longest key. A bound is needed because many tensors can share one long key.
pub(crate) const MAX_KEY: usize = 256;

/// A tensor in a file of another program.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ImportedTensor {
    /// Keys of the enclosing dicts, joined by `/`: `checkpoint/netG`; empty for a bare state dict.
    pub(crate) scope: String,
    /// Its name in the state dict: `main.0.weight`.
    pub(crate) name: String,
    /// Its shape and values.
    pub(crate) tensor: HostTensor,
}

/// The description of a tensor in a pickle.
pub(crate) struct TensorRef {
    pub(crate) scope: String,
    pub(crate) name: String,
    /// The argument tuple of `_rebuild_tensor_v2`.
    pub(crate) arguments: Id,
}

/// Every tensor of a pickle in the file's order, except those in the state of an optimizer.
pub(crate) fn tensors(pickle: &Pickle) -> Result<Vec<TensorRef>, PickleError> {
    let mut walk = Walk { pickle, visits: 0, tensors: Vec::new() };
    walk.visit(pickle.root(), &mut Vec::new())?;
    Ok(walk.tensors)
}

struct Walk<'a> {
    pickle: &'a Pickle,
    visits: usize,
    tensors: Vec<TensorRef>,
}

impl Walk<'_> {
    fn visit(&mut self, id: Id, path: &mut Vec<String>) -> Result<(), PickleError> {
        // A copy of the reference, because the loops below call methods that borrow `self` mutably.
        let pickle = self.pickle;
        self.visits += match pickle.node(id) {
            Node::Dict(pairs) => 1 + pairs.len(),
            _ => 1,
        };
        if self.visits > MAX_VISITS {
            return Err(PickleError { offset: 0, kind: PickleErrorKind::TooManyObjects(MAX_VISITS) });
        }
        if path.len() > MAX_DEPTH {
            return Err(expected("a state dict with at most 16 levels of nesting"));
        }
        match pickle.node(id) {
            Node::Dict(pairs) if pickle.entry(id, "param_groups").is_none() => {
                for (key, value) in pairs {
                    let name = match (pickle.node(*key), pickle.text(*key)) {
                        (_, Some(text)) if text.len() > MAX_KEY => {
                            return Err(expected("names of at most 256 bytes"));
                        }
                        (_, Some(text)) => text.to_owned(),
                        (Node::Int(number), _) => number.to_string(),
                        _ => continue,
                    };
                    self.visit_child(*value, name, path)?;
                }
            }
            Node::List(items) | Node::Tuple(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.visit_child(*item, i.to_string(), path)?;
                }
            }
            Node::Object { class: Global::RebuildTensor, arguments, .. } => self.push(path, *arguments),
            Node::Object { class: Global::RebuildParameter, arguments, .. } => {
                let tensor =
                    pickle.items(*arguments).and_then(<[Id]>::first).map(|tensor| pickle.node(*tensor));
                if let Some(Node::Object { class: Global::RebuildTensor, arguments, .. }) = tensor {
                    self.push(path, *arguments);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_child(&mut self, id: Id, name: String, path: &mut Vec<String>) -> Result<(), PickleError> {
        path.push(name);
        let visited = self.visit(id, path);
        path.pop();
        visited
    }

    fn push(&mut self, path: &[String], arguments: Id) {
        let (name, scope) = match path.split_last() {
            Some((name, scope)) => (name.clone(), scope.join("/")),
            None => ("the only tensor".to_owned(), String::new()),
        };
        self.tensors.push(TensorRef { scope, name, arguments });
    }
}

fn expected(what: &'static str) -> PickleError {
    PickleError { offset: 0, kind: PickleErrorKind::Expected(what) }
}
