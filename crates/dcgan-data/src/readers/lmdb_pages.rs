//! The pages of an LMDB database: keys in their order, and where each value is in the file.
//!
//! Format: data version 1, that of LMDB 0.9 (`mdb.c`: `MDB_page`, `MDB_node`, `MDB_meta`, `MDB_db`), as a little-endian
//! 64-bit machine writes it. The file is only read: no lock file, no map size, no value is touched.

use std::ops::Range;

/// The magic number of a meta page (`MDB_MAGIC`), after the page header.
const MAGIC: [u8; 4] = 0xbeef_c0de_u32.to_le_bytes();

/// Bytes of the header of a page.
const PAGE_HEADER: usize = 16;

/// The data version of LMDB 0.9.
const VERSION: u32 = 1;

// Flags of a page.
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;

// Flags of a node.
/// The value is on overflow pages.
const BIG_DATA: u16 = 0x01;
/// The value is a database.
const SUB_DATA: u16 = 0x02;
/// There are several values.
const DUP_DATA: u16 = 0x04;

/// Bytes of a node before its key.
const NODE_HEADER: usize = 8;

/// Page sizes that LMDB allows.
const PAGE_SIZES: Range<usize> = 256..(1 << 16) + 1;

/// More levels than any tree has: each has at least two branches.
const MAX_DEPTH: usize = 32;

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A range of the file.
    Bytes(Range<usize>),
    /// A database of its own.
    Database,
    /// Several values.
    Several,
}

/// The main database of a file.
#[derive(Debug)]
pub(crate) struct Database<'a> {
    file: &'a [u8],
    page_size: usize,
    root: u64,
    /// Entries that it declares.
    pub(crate) entries: u64,
}

impl<'a> Database<'a> {
    /// Opens the database in `file`, as of its newest transaction.
    pub(crate) fn open(file: &'a [u8]) -> Result<Self, String> {
        // The page size stands in the meta page, whose own place does not depend on it.
        let first = meta(file, 0)?;
        let second = meta(file, first.page_size);
        let newest = match second {
            Ok(second) if second.transaction > first.transaction => second,
            _ => first,
        };
        let Meta { page_size, root, entries, .. } = newest;
        Ok(Self { file, page_size, root, entries })
    }

    /// Calls `each` with every key and its value, in the order of the keys.
    pub(crate) fn for_each(
        &self,
        each: &mut dyn FnMut(&'a [u8], Value) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.root == u64::MAX {
            return Ok(()); // an empty database
        }
        let pages = self.file.len() / self.page_size;
        // A tree refers to each page once.
        let mut left = pages;
        let mut stack = vec![(self.root, 0)];
        while let Some((number, next)) = stack.pop() {
            let page = self.page(number)?;
            if next == 0 {
                left = left.checked_sub(1).ok_or_else(|| cycle(number))?;
            }
            let mut nodes = self.nodes(page, number)?;
            match flags(page) & (BRANCH | LEAF | OVERFLOW | META) {
                LEAF => {
                    for node in nodes {
                        let (key, value) = self.leaf_node(page, node?, number)?;
                        each(key, value)?;
                    }
                }
                BRANCH => {
                    let Some(node) = nodes.nth(next) else { continue };
                    let child = branch_node(page, node?).ok_or_else(|| damaged(number))?;
                    if stack.len() >= MAX_DEPTH {
                        return Err(cycle(number));
                    }
                    stack.push((number, next + 1));
                    stack.push((child, 0));
                }
                _ => return Err(format!("page {number} is neither a branch nor a leaf of the tree")),
            }
        }
        Ok(())
    }

    fn page(&self, number: u64) -> Result<&'a [u8], String> {
        let page = usize::try_from(number).ok().and_then(|number| {
            let start = number.checked_mul(self.page_size)?;
            self.file.get(start..start.checked_add(self.page_size)?)
        });
        page.ok_or_else(|| {
            let pages = self.file.len() / self.page_size;
            format!("refers to page {number}, but the file has {pages} pages (truncated?)")
        })
    }

    /// The offsets of the nodes of a page.
    fn nodes(
        &self,
        page: &'a [u8],
        number: u64,
    ) -> Result<impl Iterator<Item = Result<usize, String>> + use<'a>, String> {
        let lower = usize::from(u16_at(page, 12).unwrap_or(0));
        let pointers = page.get(PAGE_HEADER..lower).ok_or_else(|| damaged(number))?;
        Ok(pointers.chunks_exact(2).map(move |pointer| {
            let offset = usize::from(u16::from_le_bytes([pointer[0], pointer[1]]));
            if offset < lower || offset + NODE_HEADER > page.len() {
                Err(damaged(number))
            } else {
                Ok(offset)
            }
        }))
    }

    /// Key and value of the node of a leaf.
    fn leaf_node(&self, page: &'a [u8], node: usize, number: u64) -> Result<(&'a [u8], Value), String> {
        let parts = || {
            let (low, high) = (u16_at(page, node)?, u16_at(page, node + 2)?);
            let (flags, key_length) = (u16_at(page, node + 4)?, usize::from(u16_at(page, node + 6)?));
            let key = page.get(node + NODE_HEADER..node + NODE_HEADER + key_length)?;
            Some((u32::from(low) | u32::from(high) << 16, flags, key))
        };
        let (length, flags, key) = parts().ok_or_else(|| damaged(number))?;
        if flags & DUP_DATA != 0 {
            return Ok((key, Value::Several));
        }
        if flags & SUB_DATA != 0 {
            return Ok((key, Value::Database));
        }
        let inside = node + NODE_HEADER + key.len();
        let start_of_page = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(self.page_size);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let start = if flags & BIG_DATA == 0 {
            if inside + length > page.len() {
                return Err(damaged(number));
            }
            start_of_page + inside
        } else {
            let overflow = u64_at(page, inside).ok_or_else(|| damaged(number))?;
            let first = usize::try_from(overflow).unwrap_or(usize::MAX);
            first.saturating_mul(self.page_size).saturating_add(PAGE_HEADER)
        };
        match start.checked_add(length) {
            Some(end) if end <= self.file.len() => Ok((key, Value::Bytes(start..end))),
            _ => Err(format!("a value of page {number} is past the end of the file (truncated?)")),
        }
    }
}

struct Meta {
    page_size: usize,
    transaction: u64,
    root: u64,
    entries: u64,
}

/// Bytes of `MDB_db`.
const DATABASE_BYTES: usize = 48;

/// The meta page at `start`.
fn meta(file: &[u8], start: usize) -> Result<Meta, String> {
    let at = start.saturating_add(PAGE_HEADER);
    let body = file.get(at..at.saturating_add(24 + 2 * DATABASE_BYTES + 16));
    let body = body.ok_or_else(|| "is truncated in its first pages".to_owned())?;
    if !body.starts_with(&MAGIC) {
        return Err("is not an LMDB database of this machine's byte order, or is damaged".to_owned());
    }
    let version = u32_at(body, 4).unwrap_or(0);
    match version {
        VERSION => {}
        // LMDB 1.0 and LMDB's development branch.
        2 | 999 => {
            return Err(format!(
                "is an LMDB database of data version {version}, expected {VERSION}: write it with LMDB 0.9, for example \
                 by mdb_dump and mdb_load"
            ));
        }
        _ => return Err(format!("is a damaged LMDB database: it declares data version {version}")),
    }
    let main = 24 + DATABASE_BYTES;
    let field = |offset| u64_at(body, offset).unwrap_or(0);
    let page_size = u32_at(body, 24).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    if !PAGE_SIZES.contains(&page_size) || !page_size.is_power_of_two() {
        return Err(format!("declares pages of {page_size} bytes: it is damaged"));
    }
    let transaction = field(24 + 2 * DATABASE_BYTES + 8);
    Ok(Meta { page_size, transaction, entries: field(main + 32), root: field(main + 40) })
}

/// The page that the node of a branch refers to.
fn branch_node(page: &[u8], node: usize) -> Option<u64> {
    let word = |offset| Some(u64::from(u16_at(page, offset)?));
    Some(word(node)? | word(node + 2)? << 16 | word(node + 4)? << 32)
}

fn flags(page: &[u8]) -> u16 {
    u16_at(page, 10).unwrap_or(0)
}

fn damaged(page: u64) -> String {
    format!("page {page} is damaged")
}

fn cycle(page: u64) -> String {
    format!("is damaged: the pages refer to each other in a cycle (page {page})")
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
