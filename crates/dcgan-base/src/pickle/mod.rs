//! Reads Python's pickles without executing them.
//!
//! A pickle is a program for a stack machine that can import and call anything. [`Pickle::read`] builds its lists,
//! dicts, numbers and strings, and records calls as [`Node::Object`]: the class or function, its arguments and its
//! state. Nothing is imported or called. The classes that a program needs are a type that implements [`KnownClass`];
//! of all others only the name is known. Memory and time are linear in the bytes read, and nothing recurses.
//!
//! ```
//! use dcgan_base::pickle::{KnownClass, Limits, Node, Pickle};
//!
//! #[derive(Clone, Copy, Debug, PartialEq)]
//! struct Nothing;
//!
//! impl KnownClass for Nothing {
//!     fn find(_module: &str, _name: &str) -> Option<Self> {
//!         None
//!     }
//! }
//!
//! // pickle.dumps({"size": 64}, protocol=2), and os.system("true")
//! let limits = Limits { objects: 100, classes: 10 };
//! let pickle = Pickle::<Nothing>::read(b"\x80\x02}q\0X\x04\0\0\0sizeq\x01K@s.", limits)?;
//! let size = pickle.entry(pickle.root(), "size").expect("a dict with this key");
//! assert_eq!(*pickle.node(size), Node::Int(64));
//! let call = Pickle::<Nothing>::read(b"\x80\x02cos\nsystem\nU\x04true\x85R.", limits)?;
//! assert_eq!(call.classes(), ["os.system"]);
//! # Ok::<(), dcgan_base::pickle::PickleError>(())
//! ```

mod error;
mod machine;
mod reader;
mod value;

pub use error::{PickleError, PickleErrorKind};
pub use value::{Class, DataExtent, Id, KnownClass, Limits, Node, Pickle};

#[cfg(test)]
mod tests;
