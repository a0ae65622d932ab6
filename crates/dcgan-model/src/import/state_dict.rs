//! Finds the tensors in a pickle: state dicts, dicts of them, lists, wrappers around state dicts, and whole modules,
//! whose attributes are read as data.

use super::modules::{MAX_MODULES, Module};
use super::pickle::{Class, Global, Id, Node, Pickle, PickleError, PickleErrorKind};
use crate::weights::HostTensor;

/// The deepest nesting of dicts and modules; a checkpoint of several whole networks has less than ten levels.
const MAX_DEPTH: usize = 16;

/// Maximum number of values visited, counting a shared value each time.
const MAX_VISITS: usize = 1 << 20;

/// Maximum number of objects without tensors that are named.
const MAX_SKIPPED: usize = 64;

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
    pub(crate) source: Source,
}

/// Where the values of a tensor are.
pub(crate) enum Source {
    /// The argument tuple of `_rebuild_tensor_v2`.
    Storage(Id),
    /// A numpy array.
    Array(Id),
    /// A kind of tensor that is not supported.
    Unsupported(&'static str),
}

/// The tensors of a pickle.
pub(crate) struct Found {
    /// In the file's order, without those in the state of an optimizer.
    pub(crate) tensors: Vec<TensorRef>,
    /// Objects without tensors, such as `args: argparse.Namespace`.
    pub(crate) skipped: Vec<String>,
    /// The modules of whole networks.
    pub(crate) modules: Vec<ModuleRef>,
}

/// A module of a whole network, with the scope and the name of its tensors.
#[derive(Debug)]
pub(crate) struct ModuleRef {
    pub(crate) scope: String,
    pub(crate) name: String,
    pub(crate) module: Module,
}

/// Every tensor of a pickle.
pub(crate) fn tensors(pickle: &Pickle) -> Result<Found, PickleError> {
    let found = Found { tensors: Vec::new(), skipped: Vec::new(), modules: Vec::new() };
    let mut walk = Walk { pickle, visits: 0, path: Vec::new(), found };
    walk.visit(pickle.root(), false)?;
    Ok(walk.found)
}

/// A key of a dict, or an attribute of a module.
struct Step {
    name: String,
    /// Whether it belongs to the name in the state dict together with the step before it, as in `main` and `0`.
    continues: bool,
}

struct Walk<'a> {
    pickle: &'a Pickle<'a>,
    visits: usize,
    path: Vec<Step>,
    found: Found,
}

impl Walk<'_> {
    /// Visits a value; `in_module` if it is an attribute of a module.
    fn visit(&mut self, id: Id, in_module: bool) -> Result<(), PickleError> {
        // A copy of the reference, because the loops below call methods that borrow `self` mutably.
        let pickle = self.pickle;
        self.charge(match pickle.node(id) {
            Node::Dict(pairs) => 1 + pairs.len(),
            _ => 1,
        })?;
        if self.path.len() > MAX_DEPTH {
            return Err(expected("a state dict with at most 16 levels of nesting"));
        }
        match pickle.node(id) {
            Node::Dict(pairs) if pickle.entry(id, "param_groups").is_none() => self.pairs(pairs, false)?,
            Node::List(items) | Node::Tuple(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.child(*item, i.to_string(), false, false)?;
                }
            }
            Node::Object { class: Class::Known(Global::RebuildParameter), arguments, .. } => {
                if let Some(tensor) = pickle.items(*arguments).and_then(<[Id]>::first) {
                    self.tensor(*tensor);
                }
            }
            Node::Object {
                class: Class::Opaque(_) | Class::Computed(_) | Class::Known(Global::Inert),
                state,
                arguments,
                ..
            } => {
                self.object(id, *state, *arguments, in_module)?;
            }
            Node::Object { .. } => self.tensor(id),
            _ => {}
        }
        Ok(())
    }

    /// The tensor at `id`, if it is one.
    fn tensor(&mut self, id: Id) {
        let Node::Object { class: Class::Known(class), arguments, state, .. } = self.pickle.node(id) else {
            return;
        };
        let first = || self.pickle.items(*arguments).and_then(<[Id]>::first).copied();
        let source = match class {
            Global::RebuildTensor => Source::Storage(*arguments),
            Global::RebuildFromType => match self.pickle.items(*arguments) {
                Some([function, _type, arguments, ..])
                    if *self.pickle.node(*function) == Node::Class(Class::Known(Global::RebuildTensor)) =>
                {
                    Source::Storage(*arguments)
                }
                _ => Source::Unsupported("of a subclass of torch.Tensor"),
            },
            Global::RebuildFromArray => match first() {
                Some(array) => Source::Array(array),
                None => return,
            },
            Global::NumpyReconstruct if state.is_some() => Source::Array(id),
            Global::RebuildOther(kind) => Source::Unsupported(kind),
            _ => return,
        };
        let (scope, name) = self.scope_and_name();
        let name = if name.is_empty() { "the only tensor".to_owned() } else { name };
        self.found.tensors.push(TensorRef { scope, name, source });
    }

    /// The scope of the value that is visited, and its name in the state dict.
    fn scope_and_name(&self) -> (String, String) {
        let start = self.path.iter().rposition(|step| !step.continues).unwrap_or(0);
        let join =
            |steps: &[Step], by| steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(by);
        (join(&self.path[..start], "/"), join(&self.path[start..], "."))
    }

    /// An object of another class: a module, or something with modules or state dicts among its attributes. The names
    /// of a module's tensors are those of its `state_dict()`.
    fn object(
        &mut self,
        id: Id,
        state: Option<Id>,
        arguments: Id,
        in_module: bool,
    ) -> Result<(), PickleError> {
        let pickle = self.pickle;
        let Node::Object { class, .. } = pickle.node(id) else { return Ok(()) };
        let before = self.found.tensors.len();
        let skipped = self.found.skipped.len();
        let attributes = match state.map(|state| (state, pickle.node(state))) {
            Some((state, Node::Dict(_))) => Some(state),
            // Attributes in `__dict__`, and attributes in slots.
            Some((_, Node::Tuple(items))) => items.first().copied(),
            _ => None,
        };
        if let Some(attributes) = attributes
            && let Node::Dict(pairs) = pickle.node(attributes)
            && pickle.entry(attributes, "param_groups").is_none()
        {
            self.charge(1 + pairs.len())?;
            let members = ["_parameters", "_buffers", "_modules"].map(|key| pickle.entry(attributes, key));
            let is_script = pickle.class_name(*class).is_some_and(|name| name.starts_with("__torch__."));
            if members.iter().any(Option::is_some) {
                if in_module && self.found.modules.len() < MAX_MODULES {
                    let (scope, name) = self.scope_and_name();
                    let module = Module::read(pickle, self.class_of(*class, arguments), pairs);
                    self.found.modules.push(ModuleRef { scope, name, module });
                }
                for member in members.into_iter().flatten() {
                    if let Node::Dict(pairs) = pickle.node(member) {
                        self.charge(pairs.len())?;
                        self.attributes(pairs, in_module)?;
                    }
                }
            } else if is_script {
                self.attributes(pairs, in_module)?;
            } else {
                self.pairs(pairs, in_module)?;
            }
        }
        if let Some(class) = pickle.class_name(self.class_of(*class, arguments))
            && self.found.tensors.len() == before
            && !in_module
            && skipped < MAX_SKIPPED
        {
            // The object says more than its attributes.
            self.found.skipped.truncate(skipped);
            let path: Vec<&str> = self.path.iter().map(|step| step.name.as_str()).collect();
            self.found.skipped.push(match path.join("/") {
                path if path.is_empty() => class.to_owned(),
                path => format!("{path}: {class}"),
            });
        }
        Ok(())
    }

    /// The class of an object that is made by a call of `class`.
    fn class_of(&self, class: Class<Global>, arguments: Id) -> Class<Global> {
        let first = self.pickle.items(arguments).and_then(<[Id]>::first);
        // torch.save before 1.6 wrote the source of a class beside it: ('module', class, file, source).
        if let Class::Computed(id) = class
            && let Node::Persistent(reference) = self.pickle.node(id)
            && let Some([_kind, saved, ..]) = self.pickle.items(*reference)
            && let Node::Class(class) = self.pickle.node(*saved)
        {
            return *class;
        }
        match first.map(|first| self.pickle.node(*first)) {
            // copyreg._reconstructor(class, object, None) of protocols 0 and 1.
            Some(Node::Class(class @ Class::Opaque(_))) => *class,
            _ => class,
        }
    }

    /// The parameters, buffers or modules of a module.
    fn attributes(&mut self, pairs: &[(Id, Id)], in_module: bool) -> Result<(), PickleError> {
        for (key, value) in pairs {
            if let Some(name) = self.key(*key)? {
                self.child(*value, name, in_module, true)?;
            }
        }
        Ok(())
    }

    /// The entries of a dict, or the attributes of an object that is not a module.
    fn pairs(&mut self, pairs: &[(Id, Id)], in_module: bool) -> Result<(), PickleError> {
        for (key, value) in pairs {
            if let Some(name) = self.key(*key)? {
                self.child(*value, name, in_module, false)?;
            }
        }
        Ok(())
    }

    /// A key of a dict as text; `None` for keys that are not part of a name.
    fn key(&self, key: Id) -> Result<Option<String>, PickleError> {
        match (self.pickle.node(key), self.pickle.text(key)) {
            (_, Some(text)) if text.len() > MAX_KEY => Err(expected("names of at most 256 bytes")),
            (_, Some(text)) => Ok(Some(text.to_owned())),
            (Node::Int(number), _) => Ok(Some(number.to_string())),
            _ => Ok(None),
        }
    }

    fn child(&mut self, id: Id, name: String, continues: bool, in_module: bool) -> Result<(), PickleError> {
        self.path.push(Step { name, continues });
        let visited = self.visit(id, in_module);
        self.path.pop();
        visited
    }

    fn charge(&mut self, visits: usize) -> Result<(), PickleError> {
        self.visits = self.visits.saturating_add(visits);
        if self.visits > MAX_VISITS {
            return Err(PickleError { offset: 0, kind: PickleErrorKind::TooManyObjects(MAX_VISITS) });
        }
        Ok(())
    }
}

fn expected(what: &'static str) -> PickleError {
    PickleError { offset: 0, kind: PickleErrorKind::Expected(what) }
}
