//! Reads pickles without executing them.
//!
//! A pickle is a program for a stack machine that may import and call anything. This interpreter builds lists,
//! dicts and numbers, writes calls down as [`Node::Object`], and refuses every name outside [`Global`]'s short
//! list. Work and memory grow with the bytes read, and nothing recurses.

use std::collections::BTreeMap;

mod cursor;
mod value;

use cursor::Cursor;
pub use cursor::{PickleError, PickleFault};
pub(crate) use value::{Global, Id, Node, Pickle};

use super::numpy;

/// Opcodes in one pickle. Each adds a few words of memory at most, so this bounds both memory and time; state dicts
/// have some thousands, checkpoints with lists of losses some hundred thousands.
const MAX_STEPS: usize = 1 << 22;

/// Reads the pickle at the start of `bytes`.
///
/// # Errors
/// Where it is cut short, damaged, or names anything but tensors and containers.
pub(crate) fn read(bytes: &[u8]) -> Result<Pickle, PickleError> {
    let mut machine = Machine {
        cursor: Cursor::new(bytes),
        pickle: Pickle { nodes: Vec::new(), root: Id(0), length: 0 },
        steps: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    loop {
        let opcode = machine.cursor.u8()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { root, length: machine.cursor.at(), ..machine.pickle });
        }
        machine.charge(1)?;
        machine.step(opcode)?;
    }
}

struct Machine<'a> {
    cursor: Cursor<'a>,
    /// What was built so far.
    pickle: Pickle,
    steps: usize,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Id>,
}

impl Machine<'_> {
    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            0x80 => self.cursor.u8().map(drop),    // PROTO
            0x95 => self.cursor.take(8).map(drop), // FRAME
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
            b'a' | b'e' | b's' | b'u' => self.fill(opcode),
            b'c' | 0x93 | b'R' | 0x81 | b'b' | b'Q' => self.object(opcode),
            _ => {
                let node = self.literal(opcode)?;
                self.push(node);
                Ok(())
            }
        }
    }

    /// A value that stands in the pickle itself, or a container of values on the stack.
    fn literal(&mut self, opcode: u8) -> Result<Node, PickleError> {
        Ok(match opcode {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b'J' => Node::Int(i32::from_le_bytes(self.cursor.array()?).into()),
            b'K' => Node::Int(self.cursor.u8()?.into()),
            b'M' => Node::Int(u16::from_le_bytes(self.cursor.array()?).into()),
            0x8a => {
                let n = self.cursor.length::<1>()?;
                long(self.cursor.take(n)?)
            }
            0x8b => {
                let n = self.cursor.length::<4>()?;
                long(self.cursor.take(n)?)
            }
            b'I' | b'L' => {
                let line = self.cursor.line()?;
                match line {
                    "00" => Node::Bool(false),
                    "01" => Node::Bool(true),
                    _ => line.trim_end_matches('L').parse().map_or(Node::Number, Node::Int),
                }
            }
            b'F' => {
                self.cursor.line()?;
                Node::Number
            }
            b'G' => {
                self.cursor.take(8)?;
                Node::Number
            }
            b'S' => self.quoted()?,
            b'V' => Node::Text(self.cursor.line()?.to_owned()),
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
            _ => return Err(self.cursor.error(PickleFault::Opcode(opcode))),
        })
    }

    /// Puts a value in the memo or takes one from it.
    fn memo(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = match opcode {
            b'h' | b'q' => self.cursor.length::<1>()?,
            b'j' | b'r' => self.cursor.length::<4>()?,
            0x94 => self.memo.len(),
            _ => {
                let line = self.cursor.line()?;
                line.parse().map_err(|_| self.expected("a memo's number"))?
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

    /// Adds to the list or dict on the stack.
    fn fill(&mut self, opcode: u8) -> Result<(), PickleError> {
        let mut items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let into = self.top()?;
        let pairs = if matches!(opcode, b's' | b'u') { self.pairs(&items)? } else { Vec::new() };
        match &mut self.pickle.nodes[into.0] {
            Node::List(list) if matches!(opcode, b'a' | b'e') => list.append(&mut items),
            Node::Dict(dict) if matches!(opcode, b's' | b'u') => dict.extend(pairs),
            _ => return Err(self.expected("a list or a dict to add to")),
        }
        Ok(())
    }

    /// Names, calls and references.
    fn object(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            b'c' => {
                let module = self.cursor.line()?.to_owned();
                let name = self.cursor.line()?.to_owned();
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

    /// REDUCE and NEWOBJ: a class or function below its tuple of arguments.
    fn call(&mut self) -> Result<(), PickleError> {
        let (arguments, class) = (self.pop()?, self.pop()?);
        let Node::Global(class) = self.pickle.nodes[class.0] else {
            return Err(self.expected("a known class to make"));
        };
        let Node::Tuple(items) = self.pickle.node(arguments) else {
            return Err(self.expected("a tuple of arguments"));
        };
        let node = match class {
            Global::OrderedDict => match items.first() {
                None => Node::Dict(Vec::new()),
                Some(items) => Node::Dict(self.ordered(*items)?),
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
        // Every nn.Module carries this attribute.
        let holds_module = self.cursor.bytes().windows(8).any(|bytes| bytes == b"_modules");
        Err(self.cursor.error(if holds_module {
            PickleFault::WholeModule { module, name }
        } else {
            PickleFault::Refused { module, name }
        }))
    }

    /// Gives the object on the stack its attributes.
    fn build(&mut self) -> Result<(), PickleError> {
        let attributes = self.pop()?;
        let object = self.top()?;
        let raw_array = match &mut self.pickle.nodes[object.0] {
            Node::Object { class, state, .. } => {
                *state = Some(attributes);
                *class == Global::ArrayInStream
            }
            // The `_metadata` of a state dict.
            Node::Dict(_) => false,
            _ => return Err(self.expected("an object with attributes")),
        };
        if raw_array {
            self.skip_array(object, attributes)?;
        }
        Ok(())
    }

    /// Steps over the values that joblib writes after the array's description.
    fn skip_array(&mut self, object: Id, attributes: Id) -> Result<(), PickleError> {
        if let Node::Dict(pairs) = self.pickle.node(attributes) {
            // One long dict may be looked through again and again.
            self.charge(pairs.len())?;
        }
        let Some(array) = numpy::described_in_stream(&self.pickle, attributes) else {
            return Err(self.expected("the description of an array of numbers"));
        };
        if array.aligned {
            let padding = self.cursor.length::<1>()?;
            self.cursor.take(padding)?;
        }
        let start = self.cursor.at();
        self.cursor.take(array.bytes)?;
        if let Node::Object { raw, .. } = &mut self.pickle.nodes[object.0] {
            *raw = start..start + array.bytes;
        }
        Ok(())
    }

    /// The pairs of `OrderedDict([[key, value], ...])`.
    fn ordered(&mut self, items: Id) -> Result<Vec<(Id, Id)>, PickleError> {
        let Some(items) = self.pickle.items(items) else { return Err(self.expected("a list of pairs")) };
        let pairs = items.iter().map(|pair| match self.pickle.items(*pair) {
            Some([key, value]) => Ok((*key, *value)),
            _ => Err(self.expected("a list of pairs")),
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        // One list may be named again and again: its copies are paid for.
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
        let n = self.cursor.length::<N>()?;
        let bytes = self.cursor.take(n)?.to_vec();
        String::from_utf8(bytes).map(Node::Text).map_err(|_| self.expected("text in utf-8"))
    }

    fn bytes<const N: usize>(&mut self) -> Result<Node, PickleError> {
        let n = self.cursor.length::<N>()?;
        Ok(Node::Bytes(self.cursor.take(n)?.to_vec()))
    }

    /// A string of protocol 0 in quotes; names of tensors and files need no escapes.
    fn quoted(&mut self) -> Result<Node, PickleError> {
        let line = self.cursor.line()?;
        let inner = ['\'', '"'].iter().find_map(|quote| line.strip_prefix(*quote)?.strip_suffix(*quote));
        match inner {
            Some(text) if !text.contains('\\') => Ok(Node::Text(text.to_owned())),
            _ => Err(self.expected("a string in quotes without escapes")),
        }
    }

    fn charge(&mut self, steps: usize) -> Result<(), PickleError> {
        self.steps += steps;
        if self.steps > MAX_STEPS {
            return Err(self.cursor.error(PickleFault::TooMany(MAX_STEPS)));
        }
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.pickle.nodes.push(node);
        self.stack.push(Id(self.pickle.nodes.len() - 1));
    }

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

    /// Everything above the last mark, which is closed.
    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let Some(start) = self.marks.pop() else { return Err(self.expected("a mark")) };
        Ok(self.stack.split_off(start))
    }

    fn expected(&self, what: &'static str) -> PickleError {
        self.cursor.error(PickleFault::Expected(what))
    }
}

/// An integer in two's complement, least significant byte first.
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
