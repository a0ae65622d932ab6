//! Reads the pickles of CIFAR without executing them: dicts, lists, strings, integers and u8 arrays.
//!
//! A pickle is a program for a stack machine that can import and call anything. This interpreter builds values and
//! refuses every name that is not in [`Global`]. Time and memory are linear in the bytes read, and nothing recurses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::readers::array::integers;

/// Maximum opcodes in one pickle: CIFAR-100 has about five per image.
const MAX_STEPS: usize = 1 << 20;

/// Maximum length of the type of an array, such as `|u1`.
const MAX_DESCR_BYTES: usize = 16;

/// Maximum axes of an array in numpy.
const MAX_AXES: usize = 64;

/// Index of a value.
type Id = usize;

/// Bytes in the file, or in memory where they are stored in another encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Buffer {
    File(Range<usize>),
    Memory(Arc<Vec<u8>>),
}

/// An array. `data` has the values in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) descr: String,
    pub(crate) sizes: Vec<usize>,
    pub(crate) is_fortran: bool,
    pub(crate) data: Option<Buffer>,
}

#[derive(Clone, Debug)]
enum Value {
    None,
    Int(i64),
    /// A value that CIFAR's readers do not need.
    Other,
    Text(String),
    Bytes(Buffer),
    /// A list or a tuple.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// The type of an array's values.
    Dtype(String),
    Array(Array),
}

/// The supported globals. None is called: they only give the arguments a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Global {
    Reconstruct,
    FromBuffer,
    Scalar,
    Ndarray,
    Dtype,
    Encode,
    OrderedDict,
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Self::Reconstruct,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Self::FromBuffer,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::Scalar,
            ("numpy", "ndarray") => Self::Ndarray,
            ("numpy", "dtype") => Self::Dtype,
            ("_codecs", "encode") => Self::Encode,
            ("collections", "OrderedDict") => Self::OrderedDict,
            _ => return None,
        })
    }
}

/// The content of a pickle.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    file: &'a [u8],
    values: Vec<Value>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `file`.
    ///
    /// # Errors
    ///
    /// A message with the offset, without the file's name, which the caller adds.
    pub(crate) fn read(file: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine {
            file,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            encoded: 0,
        };
        for _ in 0..MAX_STEPS {
            let offset = machine.at;
            let step = machine.step();
            match step.ok_or_else(|| machine.problem(offset))? {
                Step::Next => {}
                Step::End(root) => return Ok(Self { file, values: machine.values, root }),
                Step::Refused(name) => return Err(format!("refers to {name}: {NOT_CIFAR}")),
            }
        }
        Err(format!("has more than {MAX_STEPS} objects: {NOT_CIFAR}"))
    }

    /// The value of `key` in the outermost dict.
    fn get(&self, key: &str) -> Option<&Value> {
        let Value::Dict(pairs) = self.values.get(self.root)? else { return None };
        let is_key = |id: Id| match &self.values[id] {
            Value::Text(text) => text == key,
            Value::Bytes(bytes) => self.bytes(bytes) == Some(key.as_bytes()),
            _ => false,
        };
        // A later pair replaces an earlier one.
        pairs.iter().rev().find(|(id, _)| is_key(*id)).map(|(_, value)| &self.values[*value])
    }

    /// The array `key`.
    pub(crate) fn array(&self, key: &str) -> Option<&Array> {
        match self.get(key)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// The integers of `key`: a list or an array.
    pub(crate) fn integers(&self, key: &str) -> Option<Vec<i64>> {
        match self.get(key)? {
            Value::List(items) => items.iter().map(|id| self.integer(&self.values[*id])).collect(),
            Value::Array(array) => integers(&array.descr, self.bytes(array.data.as_ref()?)?),
            _ => None,
        }
    }

    fn integer(&self, value: &Value) -> Option<i64> {
        match value {
            Value::Int(value) => Some(*value),
            // A scalar of numpy.
            Value::Array(array) => {
                integers(&array.descr, self.bytes(array.data.as_ref()?)?)?.first().copied()
            }
            _ => None,
        }
    }

    /// The strings of the list `key`.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let Value::List(items) = self.get(key)? else { return None };
        let text = |id: &Id| match &self.values[*id] {
            Value::Text(text) => Some(text.clone()),
            Value::Bytes(bytes) => String::from_utf8(self.bytes(bytes)?.to_vec()).ok(),
            _ => None,
        };
        items.iter().map(text).collect()
    }

    fn bytes<'b>(&'b self, buffer: &'b Buffer) -> Option<&'b [u8]> {
        match buffer {
            Buffer::File(range) => self.file.get(range.clone()),
            Buffer::Memory(bytes) => Some(bytes),
        }
    }
}

/// The end of messages about other pickles.
const NOT_CIFAR: &str = "not a batch of CIFAR (python version), and no code in a pickle is executed";

enum Step {
    Next,
    End(Id),
    Refused(String),
}

struct Machine<'a> {
    file: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// The height of the stack at each open mark.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Id>,
    /// Bytes of text encoded so far.
    encoded: usize,
}

impl<'a> Machine<'a> {
    fn problem(&self, offset: usize) -> String {
        if self.at >= self.file.len() {
            return format!("is truncated: the pickle does not end within {} bytes", self.file.len());
        }
        format!("is damaged or not a batch of CIFAR, at byte {offset}")
    }

    /// Executes an opcode; `None` if it is invalid or unsupported.
    fn step(&mut self) -> Option<Step> {
        let opcode = self.u8()?;
        match opcode {
            b'.' => return Some(Step::End(self.pop()?)),
            0x80 => _ = self.take(1)?, // PROTO
            0x95 => _ = self.take(8)?, // FRAME
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_mark()?,
            b'2' => self.stack.push(*self.stack.last()?),
            b'h' | b'j' | b'g' => {
                let key = self.memo_key(opcode, b'h', b'j')?;
                self.stack.push(*self.memo.get(&key)?);
            }
            b'q' | b'r' | b'p' | 0x94 => {
                let key = if opcode == 0x94 { self.memo.len() } else { self.memo_key(opcode, b'q', b'r')? };
                self.memo.insert(key, *self.stack.last()?);
            }
            b'a' | b'e' => {
                let mut items = if opcode == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
                let list = *self.stack.last()?;
                let Value::List(list) = self.values.get_mut(list)? else { return None };
                list.append(&mut items);
            }
            b's' | b'u' => {
                let items = if opcode == b's' { self.pop_many(2)? } else { self.pop_mark()? };
                let (pairs, []) = items.as_chunks::<2>() else { return None };
                let dict = *self.stack.last()?;
                let Value::Dict(dict) = self.values.get_mut(dict)? else { return None };
                dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            b'c' => {
                let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                return self.global(&module, &name);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) =
                    (self.values.get(module)?, self.values.get(name)?)
                else {
                    return None;
                };
                let (module, name) = (module.clone(), name.clone());
                return self.global(&module, &name);
            }
            b'R' => {
                let value = self.call()?;
                self.push(value);
            }
            b'b' => self.build()?,
            _ => {
                let value = self.literal(opcode)?;
                self.push(value);
            }
        }
        Some(Step::Next)
    }

    fn literal(&mut self, opcode: u8) -> Option<Value> {
        Some(match opcode {
            b'N' => Value::None,
            0x88 => Value::Int(1),
            0x89 => Value::Int(0),
            b'K' => Value::Int(self.u8()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'I' | b'L' => self.line()?.trim_end_matches('L').parse().map_or(Value::Other, Value::Int),
            b'F' => self.line().map(|_| Value::Other)?,
            b'G' => self.take(8).map(|_| Value::Other)?,
            0x8a => {
                let bytes = self.sized::<1>()?;
                integer(&self.file[bytes])
            }
            b'X' => self.text::<4>()?,
            0x8c => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            b'V' => Value::Text(self.line()?.to_owned()),
            // Strings of Python 2.
            b'T' | b'B' => Value::Bytes(Buffer::File(self.sized::<4>()?)),
            b'U' | b'C' => Value::Bytes(Buffer::File(self.sized::<1>()?)),
            0x8e | 0x96 => Value::Bytes(Buffer::File(self.sized::<8>()?)),
            b']' | b')' => Value::List(Vec::new()),
            b'l' | b't' => Value::List(self.pop_mark()?),
            0x85..=0x87 => Value::List(self.pop_many(usize::from(opcode - 0x84))?),
            b'}' => Value::Dict(Vec::new()),
            b'd' => {
                let items = self.pop_mark()?;
                let (pairs, []) = items.as_chunks::<2>() else { return None };
                Value::Dict(pairs.iter().map(|[key, value]| (*key, *value)).collect())
            }
            _ => return None,
        })
    }

    fn global(&mut self, module: &str, name: &str) -> Option<Step> {
        match Global::find(module, name) {
            Some(global) => {
                self.push(Value::Global(global));
                Some(Step::Next)
            }
            None => Some(Step::Refused(format!("{module}.{name}"))),
        }
    }

    /// REDUCE: what the call of a global means.
    fn call(&mut self) -> Option<Value> {
        let (arguments, global) = (self.pop()?, self.pop()?);
        let Value::Global(global) = *self.values.get(global)? else { return None };
        if global == Global::Encode {
            return self.encode(arguments);
        }
        let Value::List(arguments) = self.values.get(arguments)? else { return None };
        let argument = |index: usize| arguments.get(index).and_then(|id| self.values.get(*id));
        Some(match global {
            Global::Reconstruct => Value::Array(Array::default()),
            Global::Dtype => Value::Dtype(self.short_text(argument(0)?)?),
            Global::FromBuffer => {
                let is_fortran = matches!(argument(3), Some(Value::Text(order)) if order == "F");
                Value::Array(self.filled(argument(2)?, argument(1)?, is_fortran, argument(0)?)?)
            }
            Global::Scalar => {
                let (Value::Dtype(descr), Value::Bytes(data)) = (argument(0)?, argument(1)?) else {
                    return None;
                };
                let data = Some(data.clone());
                Value::Array(Array { descr: descr.clone(), data, ..Array::default() })
            }
            Global::OrderedDict => Value::Dict(Vec::new()),
            Global::Ndarray | Global::Encode => return None,
        })
    }

    /// The bytes that Python 3 writes as text in protocol 2: `_codecs.encode(text, "latin1")`.
    fn encode(&mut self, arguments: Id) -> Option<Value> {
        let Value::List(arguments) = self.values.get(arguments)? else { return None };
        let Value::Text(text) = self.values.get(*arguments.first()?)? else { return None };
        // A text in the memo can be encoded any number of times, so each time is charged.
        self.encoded += text.len();
        if self.encoded > self.file.len() {
            return None;
        }
        let bytes = text.chars().map(|letter| u8::try_from(u32::from(letter)).ok());
        Some(Value::Bytes(Buffer::Memory(Arc::new(bytes.collect::<Option<_>>()?))))
    }

    /// BUILD: the state of an array (version, sizes, type, order, data) or of a type (version, byte order, ...).
    fn build(&mut self) -> Option<()> {
        let state = self.pop()?;
        let target = *self.stack.last()?;
        let Value::List(state) = self.values.get(state)? else { return None };
        let item = |index: usize| state.get(index).and_then(|id| self.values.get(*id));
        let built = match self.values.get(target)? {
            Value::Array(_) => {
                let is_fortran = matches!(item(3), Some(Value::Int(1)));
                Value::Array(self.filled(item(1)?, item(2)?, is_fortran, item(4)?)?)
            }
            Value::Dtype(descr) => {
                let descr = descr.trim_start_matches(['|', '<', '>', '=']);
                Value::Dtype(format!("{}{descr}", self.short_text(item(1)?)?))
            }
            _ => return None,
        };
        *self.values.get_mut(target)? = built;
        Some(())
    }

    fn filled(&self, sizes: &Value, descr: &Value, is_fortran: bool, data: &Value) -> Option<Array> {
        let (Value::List(sizes), Value::Dtype(descr), Value::Bytes(data)) = (sizes, descr, data) else {
            return None;
        };
        let size = |id: &Id| match self.values.get(*id)? {
            Value::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        };
        let sizes = sizes.iter().take(MAX_AXES).map(size).collect::<Option<_>>()?;
        Some(Array { descr: descr.clone(), sizes, is_fortran, data: Some(data.clone()) })
    }

    /// The type or byte order of an array.
    fn short_text(&self, value: &Value) -> Option<String> {
        let text = match value {
            Value::Text(text) => text.as_bytes(),
            Value::Bytes(Buffer::File(range)) => self.file.get(range.clone())?,
            Value::Bytes(Buffer::Memory(bytes)) => bytes,
            _ => return None,
        };
        (text.len() <= MAX_DESCR_BYTES).then(|| String::from_utf8(text.to_vec()).ok())?
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Option<Id> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) { None } else { self.stack.pop() }
    }

    fn pop_many(&mut self, count: usize) -> Option<Vec<Id>> {
        let start = self.stack.len().checked_sub(count)?;
        (start >= self.marks.last().copied().unwrap_or(0)).then(|| self.stack.split_off(start))
    }

    fn pop_mark(&mut self) -> Option<Vec<Id>> {
        let start = self.marks.pop()?;
        (start <= self.stack.len()).then(|| self.stack.split_off(start))
    }

    fn memo_key(&mut self, opcode: u8, short: u8, long: u8) -> Option<usize> {
        if opcode == short {
            self.length::<1>()
        } else if opcode == long {
            self.length::<4>()
        } else {
            self.line()?.parse().ok()
        }
    }

    fn take(&mut self, count: usize) -> Option<Range<usize>> {
        let range = self.at..self.at.checked_add(count)?;
        if self.file.get(range.clone()).is_none() {
            self.at = self.file.len();
            return None;
        }
        self.at = range.end;
        Some(range)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let range = self.take(N)?;
        self.file.get(range)?.first_chunk().copied()
    }

    fn u8(&mut self) -> Option<u8> {
        let [byte] = self.array()?;
        Some(byte)
    }

    /// A length of `N` bytes, little-endian.
    fn length<const N: usize>(&mut self) -> Option<usize> {
        let mut wide = [0; 8];
        wide.get_mut(..N)?.copy_from_slice(&self.array::<N>()?);
        usize::try_from(u64::from_le_bytes(wide)).ok()
    }

    /// Bytes after their length.
    fn sized<const N: usize>(&mut self) -> Option<Range<usize>> {
        let length = self.length::<N>()?;
        self.take(length)
    }

    fn text<const N: usize>(&mut self) -> Option<Value> {
        let range = self.sized::<N>()?;
        std::str::from_utf8(self.file.get(range)?).ok().map(|text| Value::Text(text.to_owned()))
    }

    /// A line without its end, for the opcodes of protocol 0.
    fn line(&mut self) -> Option<&'a str> {
        let length = self.file.get(self.at..)?.iter().position(|byte| *byte == b'\n');
        let Some(length) = length else {
            self.at = self.file.len();
            return None;
        };
        let line = self.take(length + 1)?;
        std::str::from_utf8(self.file.get(line.start..line.end - 1)?).ok()
    }
}

/// A long integer, little-endian; other than eight bytes it is not needed.
fn integer(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Other;
    }
    let is_negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut wide = [if is_negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}
