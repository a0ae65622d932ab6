//! Reads pickles without executing them.
//!
//! A pickle is a program for a stack machine that can import and call anything. This interpreter builds lists,
//! dicts and numbers, records calls as [`Node::Object`], and refuses every name that is not in [`Global`].
//! Time and memory are linear in the bytes read, and nothing recurses.

use std::collections::BTreeMap;

mod error;
mod reader;
mod value;

pub use error::{PickleError, PickleErrorKind};
use reader::Reader;
pub(crate) use value::{Global, Id, Node, Pickle};

use super::numpy;

/// The most opcodes in one pickle. Each adds a few words of memory at most, so this bounds both memory and time. State
/// dicts have thousands, checkpoints with lists of losses have hundreds of thousands.
const MAX_STEPS: usize = 1 << 22;

/// Reads the pickle at the start of `bytes`.
///
/// # Errors
/// A pickle that is cut short, is damaged, or refers to anything but tensors and containers.
pub(crate) fn read(bytes: &[u8]) -> Result<Pickle, PickleError> {
    let mut machine = Machine {
        reader: Reader::new(bytes),
        pickle: Pickle { nodes: Vec::new(), root: Id(0), length: 0 },
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

struct Machine<'a> {
    reader: Reader<'a>,
    /// The nodes built so far.
    pickle: Pickle,
    steps: usize,
    stack: Vec<Id>,
    /// The height of the stack at each open mark.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Id>,
}

impl Machine<'_> {
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
            b'a' | b'e' | b's' | b'u' => self.extend(opcode),
            b'c' | 0x93 | b'R' | 0x81 | b'b' | b'Q' => self.object(opcode),
            _ => {
                let node = self.literal(opcode)?;
                self.push(node);
                Ok(())
            }
        }
    }

    /// A literal value, or a container of the values on the stack.
    fn literal(&mut self, opcode: u8) -> Result<Node, PickleError> {
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
                    _ => line.trim_end_matches('L').parse().map_or(Node::Number, Node::Int),
                }
            }
            b'F' => {
                self.reader.line()?;
                Node::Number
            }
            b'G' => {
                self.reader.take(8)?;
                Node::Number
            }
            b'S' => self.quoted()?,
            b'V' => Node::Text(self.reader.line()?.to_owned()),
            b'X' => self.text::<4>()?,
            0x8c => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            b'T' | b'B' => self.bytes::<4>()?,
            b'U' | b'C' => self.bytes::<1>()?,
            0x8e | 0x96 => self.bytes::<8>()?,
            b']' => Node::List(Vec::new()),
            b'l' => Node::List(self.pop_mark()?),
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

    /// APPEND, APPENDS, SETITEM and SETITEMS: extends the list or dict on the stack.
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
        let pairs = if matches!(opcode, b's' | b'u') { self.pairs(&items)? } else { Vec::new() };
        match &mut self.pickle.nodes[container.0] {
            Node::List(list) if matches!(opcode, b'a' | b'e') => list.append(&mut items),
            Node::Dict(dict) if matches!(opcode, b's' | b'u') => dict.extend(pairs),
            _ => return Err(self.expected("a list or a dict to add to")),
        }
        Ok(())
    }

    /// Globals, calls, attributes and persistent references.
    fn object(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            b'c' => {
                let module = self.reader.line()?.to_owned();
                let name = self.reader.line()?.to_owned();
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.pickle.nodes[module.0], &self.pickle.nodes[name.0]) {
                    (Node::Text(module), Node::Text(name)) => self.global(module.clone(), name.clone()),
                    _ => Err(self.expected("the name of a class")),
                }
            }
            b'Q' => {
                let reference = self.pop()?;
                self.push(Node::Persistent(reference));
                Ok(())
            }
            b'b' => self.build(),
            _ => self.call(),
        }
    }

    /// REDUCE and NEWOBJ: records the call of a class or function with the tuple of arguments on the stack.
    fn call(&mut self) -> Result<(), PickleError> {
        let (arguments, class) = (self.pop()?, self.pop()?);
        let Node::Global(class) = self.pickle.nodes[class.0] else {
            return Err(self.expected("a supported class or function"));
        };
        let Node::Tuple(items) = self.pickle.node(arguments) else {
            return Err(self.expected("a tuple of arguments"));
        };
        let node = match class {
            Global::OrderedDict => match items.first() {
                None => Node::Dict(Vec::new()),
                Some(items) => Node::Dict(self.ordered_pairs(*items)?),
            },
            _ => Node::Object { class, arguments, state: None, raw: 0..0 },
        };
        self.push(node);
        Ok(())
    }

    fn global(&mut self, module: String, name: String) -> Result<(), PickleError> {
        if let Some(global) = Global::find(&module, &name) {
            self.push(Node::Global(global));
            return Ok(());
        }
        // Every nn.Module has this attribute.
        let holds_module = self.reader.bytes().windows(8).any(|bytes| bytes == b"_modules");
        Err(self.reader.error(if holds_module {
            PickleErrorKind::WholeModule { module, name }
        } else {
            PickleErrorKind::Refused { module, name }
        }))
    }

    /// BUILD: sets the attributes of the object on the stack.
    fn build(&mut self) -> Result<(), PickleError> {
        let attributes = self.pop()?;
        let object = self.top()?;
        let has_raw_array = match &mut self.pickle.nodes[object.0] {
            Node::Object { class, state, .. } => {
                *state = Some(attributes);
                *class == Global::ArrayInStream
            }
            // The `_metadata` of a state dict.
            Node::Dict(_) => false,
            _ => return Err(self.expected("an object with attributes")),
        };
        if has_raw_array {
            self.skip_array(object, attributes)?;
        }
        Ok(())
    }

    /// Skips the values that joblib writes after the description of an array.
    fn skip_array(&mut self, object: Id, attributes: Id) -> Result<(), PickleError> {
        if let Node::Dict(pairs) = self.pickle.node(attributes) {
            // A long dict can be searched any number of times, so each search is charged.
            self.charge(pairs.len())?;
        }
        let Some(array) = numpy::array_extent(&self.pickle, attributes) else {
            return Err(self.expected("the description of an array of numbers"));
        };
        if array.is_aligned {
            let padding = self.reader.length::<1>()?;
            self.reader.take(padding)?;
        }
        let start = self.reader.position();
        self.reader.take(array.bytes)?;
        if let Node::Object { raw, .. } = &mut self.pickle.nodes[object.0] {
            *raw = start..start + array.bytes;
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

    fn text<const N: usize>(&mut self) -> Result<Node, PickleError> {
        let n = self.reader.length::<N>()?;
        let bytes = self.reader.take(n)?.to_vec();
        String::from_utf8(bytes).map(Node::Text).map_err(|_| self.expected("UTF-8 text"))
    }

    fn bytes<const N: usize>(&mut self) -> Result<Node, PickleError> {
        let n = self.reader.length::<N>()?;
        Ok(Node::Bytes(self.reader.take(n)?.to_vec()))
    }

    /// A quoted string of protocol 0. Escapes are not supported: names of tensors and files have none.
    fn quoted(&mut self) -> Result<Node, PickleError> {
        let line = self.reader.line()?;
        let inner = ['\'', '"'].iter().find_map(|quote| line.strip_prefix(*quote)?.strip_suffix(*quote));
        match inner {
            Some(text) if !text.contains('\\') => Ok(Node::Text(text.to_owned())),
            _ => Err(self.expected("a quoted string without escapes")),
        }
    }

    /// Adds to the number of steps and checks the limit.
    fn charge(&mut self, steps: usize) -> Result<(), PickleError> {
        self.steps += steps;
        if self.steps > MAX_STEPS {
            return Err(self.reader.error(PickleErrorKind::TooManyObjects(MAX_STEPS)));
        }
        Ok(())
    }

    fn push(&mut self, node: Node) {
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

/// A little-endian integer in two's complement.
fn long(bytes: &[u8]) -> Node {
    if bytes.len() > 8 {
        return Node::Number;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests;
