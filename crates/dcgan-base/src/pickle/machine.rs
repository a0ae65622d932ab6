//! The stack machine of pickles.

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::{PickleError, PickleErrorKind};
use super::reader::Reader;
use super::value::{Class, Id, KnownClass, Limits, Node, Pickle};

/// Bytes of the name of a class. A bound is needed because many names can have one long text.
const MAX_CLASS_NAME: usize = 256;

/// Reads the pickle at the start of `file`.
pub(super) fn read<K: KnownClass>(file: &[u8], limits: Limits) -> Result<Pickle<'_, K>, PickleError> {
    let mut machine = Machine {
        reader: Reader::new(file),
        pickle: Pickle { file, nodes: Vec::new(), classes: Vec::new(), root: Id(0), length: 0 },
        limits,
        classes: BTreeMap::new(),
        steps: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    loop {
        let opcode = machine.reader.u8()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { root, length: machine.reader.position(), ..machine.pickle });
        }
        machine.charge(1)?;
        machine.step(opcode)?;
    }
}

struct Machine<'a, K> {
    reader: Reader<'a>,
    /// The nodes built so far.
    pickle: Pickle<'a, K>,
    limits: Limits,
    steps: usize,
    stack: Vec<Id>,
    /// The height of the stack at each open mark.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Id>,
    /// Positions in [`Pickle::classes`].
    classes: BTreeMap<String, usize>,
}

impl<'a, K: KnownClass> Machine<'a, K> {
    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            0x80 => self.reader.u8().map(drop),    // PROTO
            0x95 => self.reader.take(8).map(drop), // FRAME
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                self.stack.push(self.top()?);
                Ok(())
            }
            b'g' | b'h' | b'j' | b'p' | b'q' | b'r' | 0x94 => self.memo(opcode),
            b'a' | b'e' | b's' | b'u' | 0x90 => self.extend(opcode),
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'i' | b'o' | b'b' | b'Q' | b'P' => self.object(opcode),
            _ => {
                let node = self.literal(opcode)?;
                self.push(node);
                Ok(())
            }
        }
    }

    /// A literal value, or a container of the values on the stack.
    fn literal(&mut self, opcode: u8) -> Result<Node<'a, K>, PickleError> {
        Ok(match opcode {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b'J' => Node::Int(i32::from_le_bytes(self.reader.array()?).into()),
            b'K' => Node::Int(self.reader.u8()?.into()),
            b'M' => Node::Int(u16::from_le_bytes(self.reader.array()?).into()),
            0x8a => {
                let n = self.reader.length::<1>()?;
                long(self.reader.take(n)?)
            }
            0x8b => {
                let n = self.reader.length::<4>()?;
                long(self.reader.take(n)?)
            }
            b'I' | b'L' => {
                let line = self.reader.line()?;
                match line {
                    "00" => Node::Bool(false),
                    "01" => Node::Bool(true),
                    _ => line.trim_end_matches('L').parse().map_or(Node::LongInt, Node::Int),
                }
            }
            b'F' => {
                let line = self.reader.line()?;
                Node::Float(line.parse().map_err(|_| self.expected("a number"))?)
            }
            b'G' => Node::Float(f64::from_be_bytes(self.reader.array()?)),
            b'S' => self.quoted()?,
            b'V' => Node::Text(self.reader.line()?),
            b'X' => self.text::<4>()?,
            0x8c => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            b'T' | b'B' => self.bytes::<4>()?,
            b'U' | b'C' => self.bytes::<1>()?,
            0x8e | 0x96 => self.bytes::<8>()?,
            b']' | 0x8f => Node::List(Vec::new()), // 0x8f is an empty set
            b'l' | 0x91 => Node::List(self.pop_mark()?), // 0x91 is a frozenset
            b')' => Node::Tuple(Vec::new()),
            b't' => Node::Tuple(self.pop_mark()?),
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(n).filter(|start| *start >= self.floor());
                let Some(start) = start else { return Err(self.expected("a tuple's items")) };
                Node::Tuple(self.stack.split_off(start))
            }
            b'}' => Node::Dict(Vec::new()),
            b'd' => {
                let items = self.pop_mark()?;
                Node::Dict(self.pairs(&items)?)
            }
            _ => return Err(self.reader.error(PickleErrorKind::Opcode(opcode))),
        })
    }

    /// Stores the top of the stack in the memo, or pushes a value of the memo.
    fn memo(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = match opcode {
            b'h' | b'q' => self.reader.length::<1>()?,
            b'j' | b'r' => self.reader.length::<4>()?,
            0x94 => self.memo.len(),
            _ => {
                let line = self.reader.line()?;
                line.parse().map_err(|_| self.expected("a memo number"))?
            }
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let Some(id) = self.memo.get(&key) else { return Err(self.expected("a value in the memo")) };
            self.stack.push(*id);
        } else {
            self.memo.insert(key, self.top()?);
        }
        Ok(())
    }

    /// APPEND, APPENDS, ADDITEMS, SETITEM and SETITEMS: extends the list or dict on the stack.
    fn extend(&mut self, opcode: u8) -> Result<(), PickleError> {
        let mut items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let container = self.top()?;
        let has_pairs = matches!(opcode, b's' | b'u');
        let pairs = if has_pairs { self.pairs(&items)? } else { Vec::new() };
        match &mut self.pickle.nodes[container.0] {
            Node::List(list) if !has_pairs => list.append(&mut items),
            Node::Dict(dict) if has_pairs => dict.extend(pairs),
            // A subclass of dict or list, such as defaultdict or deque: only its content is of interest.
            object @ Node::Object { class: Class::Opaque(_), .. } if has_pairs => *object = Node::Dict(pairs),
            object @ Node::Object { class: Class::Opaque(_), .. } => *object = Node::List(items),
            _ => return Err(self.expected("a list or a dict to add to")),
        }
        Ok(())
    }

    /// Classes, calls, attributes and persistent references.
    fn object(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            b'c' => {
                let class = self.class_in_lines()?;
                self.push(Node::Class(class));
                Ok(())
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let names = (self.pickle.node(module), self.pickle.node(name));
                let (Node::Text(module), Node::Text(name)) = names else {
                    return Err(self.expected("the name of a class"));
                };
                let class = self.class(module, name)?;
                self.push(Node::Class(class));
                Ok(())
            }
            b'Q' => {
                let reference = self.pop()?;
                self.push(Node::Persistent(reference));
                Ok(())
            }
            b'P' => {
                let reference = Node::Text(self.reader.line()?);
                self.push(reference);
                let reference = self.pop()?;
                self.push(Node::Persistent(reference));
                Ok(())
            }
            b'b' => self.build(),
            b'i' | b'o' => {
                let named = if opcode == b'i' { Some(self.class_in_lines()?) } else { None };
                let mut items = self.pop_mark()?;
                let class = match named {
                    Some(class) => class,
                    None if items.is_empty() => return Err(self.expected("a class")),
                    None => self.callee(items.remove(0)),
                };
                self.push(Node::Tuple(items));
                let arguments = self.pop()?;
                self.record_call(class, arguments)
            }
            _ => {
                if opcode == 0x92 {
                    self.pop()?; // NEWOBJ_EX: keyword arguments
                }
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.record_call(self.callee(class), arguments)
            }
        }
    }

    /// The class or function of a call; [`Class::Computed`] if it is itself a value.
    fn callee(&self, id: Id) -> Class<K> {
        match self.pickle.nodes[id.0] {
            Node::Class(class) => class,
            _ => Class::Computed(id),
        }
    }

    /// REDUCE, NEWOBJ, NEWOBJ_EX, INST and OBJ: records the call of a class or function with a tuple of arguments.
    fn record_call(&mut self, class: Class<K>, arguments: Id) -> Result<(), PickleError> {
        let Node::Tuple(items) = self.pickle.node(arguments) else {
            return Err(self.expected("a tuple of arguments"));
        };
        let text = items.first().map(|first| self.pickle.node(*first));
        let node = match (class, text) {
            (Class::OrderedDict, None) => Node::Dict(Vec::new()),
            (Class::OrderedDict, Some(_)) => Node::Dict(self.ordered_pairs(items[0])?),
            (Class::Encode, Some(Node::Text(text))) => Node::Latin1(text),
            _ => Node::Object { class, arguments, state: None, data: 0..0 },
        };
        self.push(node);
        Ok(())
    }

    /// The class or function in the next two lines: its module and its name.
    fn class_in_lines(&mut self) -> Result<Class<K>, PickleError> {
        let (module, name) = (self.reader.line()?, self.reader.line()?);
        self.class(module, name)
    }

    fn class(&mut self, module: &str, name: &str) -> Result<Class<K>, PickleError> {
        match (module, name) {
            ("collections", "OrderedDict") => return Ok(Class::OrderedDict),
            ("_codecs", "encode") => return Ok(Class::Encode),
            _ => {}
        }
        if let Some(known) = K::find(module, name) {
            return Ok(Class::Known(known));
        }
        let name = class_name(module, name);
        if let Some(at) = self.classes.get(&name) {
            return Ok(Class::Opaque(*at));
        }
        let (at, limit) = (self.pickle.classes.len(), self.limits.classes);
        if at >= limit {
            return Err(self.reader.error(PickleErrorKind::TooManyClasses { limit, name }));
        }
        self.pickle.classes.push(name.clone());
        self.classes.insert(name, at);
        Ok(Class::Opaque(at))
    }

    /// BUILD: sets the state of the object on the stack.
    fn build(&mut self) -> Result<(), PickleError> {
        let built = self.pop()?;
        let object = self.top()?;
        let known = match &mut self.pickle.nodes[object.0] {
            Node::Object { class, state, .. } => {
                *state = Some(built);
                if let Class::Known(known) = class { Some(*known) } else { None }
            }
            // The `_metadata` of a state dict, and the attributes of a subclass of dict or list.
            Node::Dict(_) | Node::List(_) => None,
            _ => return Err(self.expected("an object with attributes")),
        };
        if let Some(known) = known {
            self.skip_data(object, known, built)?;
        }
        Ok(())
    }

    /// Skips the data that follow an object in the file.
    fn skip_data(&mut self, object: Id, class: K, state: Id) -> Result<(), PickleError> {
        if let Node::Dict(pairs) = self.pickle.node(state) {
            // A long dict can be searched any number of times, so each search is charged.
            self.charge(pairs.len())?;
        }
        let Some(extent) = class.data(&self.pickle, state).map_err(|what| self.expected(what))? else {
            return Ok(());
        };
        if extent.is_aligned {
            let padding = self.reader.length::<1>()?;
            self.reader.take(padding)?;
        }
        let start = self.reader.position();
        self.reader.take(extent.bytes)?;
        if let Node::Object { data, .. } = &mut self.pickle.nodes[object.0] {
            *data = start..start + extent.bytes;
        }
        Ok(())
    }

    /// The pairs of `OrderedDict([[key, value], ...])`.
    fn ordered_pairs(&mut self, items: Id) -> Result<Vec<(Id, Id)>, PickleError> {
        let Some(items) = self.pickle.items(items) else { return Err(self.expected("a list of pairs")) };
        let pairs = items.iter().map(|pair| match self.pickle.items(*pair) {
            Some([key, value]) => Ok((*key, *value)),
            _ => Err(self.expected("a list of pairs")),
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        // A long list can be copied any number of times, so each copy is charged.
        self.charge(pairs.len())?;
        Ok(pairs)
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.expected("a value for every key"));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    fn text<const N: usize>(&mut self) -> Result<Node<'a, K>, PickleError> {
        let range = self.sized::<N>()?;
        // Python writes lone surrogates, which are not UTF-8: not the name of anything that is needed.
        Ok(str::from_utf8(&self.pickle.file[range.clone()]).map_or(Node::Bytes(range), Node::Text))
    }

    fn bytes<const N: usize>(&mut self) -> Result<Node<'a, K>, PickleError> {
        Ok(Node::Bytes(self.sized::<N>()?))
    }

    /// The range of the bytes that follow their length.
    fn sized<const N: usize>(&mut self) -> Result<Range<usize>, PickleError> {
        let length = self.reader.length::<N>()?;
        let start = self.reader.position();
        self.reader.take(length)?;
        Ok(start..start + length)
    }

    /// A quoted string of protocol 0. Escapes stay as they are: names of tensors and files have none.
    fn quoted(&mut self) -> Result<Node<'a, K>, PickleError> {
        let line = self.reader.line()?;
        let inner = ['\'', '"'].iter().find_map(|quote| line.strip_prefix(*quote)?.strip_suffix(*quote));
        inner.map(Node::Text).ok_or_else(|| self.expected("a quoted string"))
    }

    /// Adds to the number of steps and checks the limit.
    fn charge(&mut self, steps: usize) -> Result<(), PickleError> {
        self.steps += steps;
        if self.steps > self.limits.objects {
            return Err(self.reader.error(PickleErrorKind::TooManyObjects(self.limits.objects)));
        }
        Ok(())
    }

    fn push(&mut self, node: Node<'a, K>) {
        self.pickle.nodes.push(node);
        self.stack.push(Id(self.pickle.nodes.len() - 1));
    }

    /// The height of the stack at the last open mark: values below it cannot be popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, PickleError> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => Err(self.expected("a value")),
        }
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Pops the last mark and all values above it.
    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let Some(start) = self.marks.pop() else { return Err(self.expected("a mark")) };
        Ok(self.stack.split_off(start))
    }

    fn expected(&self, what: &'static str) -> PickleError {
        self.reader.error(PickleErrorKind::Expected(what))
    }
}

/// `module.name`, cut to [`MAX_CLASS_NAME`] bytes.
fn class_name(module: &str, name: &str) -> String {
    let start = |text: &str, limit: usize| text[..text.floor_char_boundary(limit)].to_owned();
    let (module, name) = (start(module, MAX_CLASS_NAME / 2), start(name, MAX_CLASS_NAME / 2));
    format!("{module}.{name}")
}

/// A little-endian integer in two's complement.
fn long<'a, K>(bytes: &[u8]) -> Node<'a, K> {
    if bytes.len() > 8 {
        return Node::LongInt;
    }
    let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if is_negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(wide))
}
