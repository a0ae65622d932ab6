//! A zip of many small files, written as a stream: 36 bytes of memory per file, so that archives of tens of millions of
//! images can be written. (The writer of the zip crate keeps a few hundred bytes per file.)
//!
//! Files are stored, since PNG does not compress further. Archives of more than 65,534 files or of more than 4 GiB are
//! written as zip64. Equal files give equal bytes: all dates are 1980-01-01. Source: PKWARE's APPNOTE.TXT 6.3.10.

use flate2::Crc;
use std::io::{self, Write};

/// Version 4.5, which reads zip64; the upper byte of "made by" is UNIX, for the permissions.
const VERSION: u16 = 45;
const MADE_BY: u16 = 3 << 8 | VERSION;
/// 1980-01-01 in MS-DOS format.
const DATE: u16 = 1 << 5 | 1;
/// A regular file that its owner may write and everybody read.
const PERMISSIONS: u32 = 0o100_644 << 16;
/// The value of a 32-bit field whose value is in a zip64 field.
const IN_ZIP64: u32 = u32::MAX;

/// What the directory at the end says about a file.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u64,
    crc: u32,
    size: u32,
    name_length: u16,
    is_ascii: bool,
}

/// General-purpose bit 11: the name is UTF-8.
const UTF8: u16 = 1 << 11;

/// Writes a zip to `out`.
#[derive(Debug)]
pub(crate) struct ZipWriter<W> {
    out: W,
    /// Bytes written so far.
    offset: u64,
    entries: Vec<Entry>,
    /// The names of all entries, one after the other.
    names: Vec<u8>,
}

fn too_long(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} is too long for a zip"))
}

impl<W: Write> ZipWriter<W> {
    /// A zip that begins `offset` bytes into `out`: 0 but in tests of archives over 4 GiB.
    pub(crate) fn new(out: W, offset: u64) -> Self {
        Self { out, offset, entries: Vec::new(), names: Vec::new() }
    }

    /// Appends the file `name` with `content`, at most 4 GiB.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut crc = Crc::new();
        crc.update(content);
        let entry = Entry {
            offset: self.offset,
            crc: crc.sum(),
            size: u32::try_from(content.len()).map_err(|_| too_long(name))?,
            name_length: u16::try_from(name.len()).map_err(|_| too_long(name))?,
            is_ascii: name.is_ascii(),
        };
        let mut header = b"PK\x03\x04".to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend(entry.common());
        header.extend(0_u16.to_le_bytes()); // no extra field
        header.extend(name.as_bytes());
        self.out.write_all(&header)?;
        self.out.write_all(content)?;
        self.offset += (header.len() + content.len()) as u64;
        self.entries.push(entry);
        self.names.extend(name.as_bytes());
        Ok(())
    }

    /// Writes the directory; returns `out`.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let begin = self.offset;
        let mut size = 0;
        let mut names = self.names.as_slice();
        for entry in &self.entries {
            let (name, rest) = names.split_at(usize::from(entry.name_length));
            names = rest;
            let header = entry.directory_header(name);
            self.out.write_all(&header)?;
            size += header.len() as u64;
        }
        let count = self.entries.len() as u64;
        let short = |value: u64| u32::try_from(value).unwrap_or(IN_ZIP64);
        let short_count = u16::try_from(count).unwrap_or(u16::MAX);
        let mut end = Vec::new();
        if short_count == u16::MAX || short(begin) == IN_ZIP64 || short(size) == IN_ZIP64 {
            end.extend(b"PK\x06\x06");
            end.extend(44_u64.to_le_bytes()); // bytes of this record that follow
            end.extend([MADE_BY, VERSION].map(u16::to_le_bytes).concat());
            end.extend([0_u32; 2].map(u32::to_le_bytes).concat()); // of the first and only disk
            end.extend([count, count, size, begin].map(u64::to_le_bytes).concat());
            end.extend(b"PK\x06\x07");
            end.extend(0_u32.to_le_bytes());
            end.extend((begin + size).to_le_bytes());
            end.extend(1_u32.to_le_bytes()); // disks
        }
        end.extend(b"PK\x05\x06");
        end.extend([0, 0, short_count, short_count].map(u16::to_le_bytes).concat());
        end.extend([short(size), short(begin)].map(u32::to_le_bytes).concat());
        end.extend(0_u16.to_le_bytes()); // no comment
        self.out.write_all(&end)?;
        Ok(self.out)
    }
}

impl Entry {
    /// The fields that the file's own header and the directory have in common, without the version.
    fn common(&self) -> Vec<u8> {
        let flags = if self.is_ascii { 0 } else { UTF8 };
        let mut bytes = [flags, 0, 0, DATE].map(u16::to_le_bytes).concat(); // method "stored", time 0
        bytes.extend([self.crc, self.size, self.size].map(u32::to_le_bytes).concat());
        bytes.extend(self.name_length.to_le_bytes());
        bytes
    }

    fn directory_header(&self, name: &[u8]) -> Vec<u8> {
        let short = u32::try_from(self.offset).unwrap_or(IN_ZIP64);
        let mut extra = Vec::new();
        if short == IN_ZIP64 {
            extra.extend([1_u16, 8].map(u16::to_le_bytes).concat());
            extra.extend(self.offset.to_le_bytes());
        }
        let mut bytes = b"PK\x01\x02".to_vec();
        bytes.extend([MADE_BY, VERSION].map(u16::to_le_bytes).concat());
        bytes.extend(self.common());
        let extra_length = u16::try_from(extra.len()).unwrap_or_default();
        bytes.extend([extra_length, 0, 0, 0].map(u16::to_le_bytes).concat()); // comment, disk, attributes
        bytes.extend([PERMISSIONS, short].map(u32::to_le_bytes).concat());
        bytes.extend(name);
        bytes.extend(extra);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Cursor, Read, Seek, SeekFrom};

    /// Reads back the entries at some positions.
    fn check(file: impl Read + Seek, count: usize) {
        let mut archive = zip::ZipArchive::new(file).unwrap();
        assert_eq!(archive.len(), count);
        for i in [0, count / 2, count - 1] {
            let mut entry = archive.by_index(i).unwrap();
            assert_eq!(entry.name().unwrap(), format!("c/{i}.png"));
            assert_eq!(entry.unix_mode(), Some(0o100_644));
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap(); // checks the CRC
            assert_eq!(content, format!("image {i}"));
        }
    }

    #[test]
    fn archives_are_read_by_others() {
        for count in [1, 65_534, 65_535, 70_000] {
            let mut writer = ZipWriter::new(Vec::new(), 0);
            for i in 0..count {
                writer.add(&format!("c/{i}.png"), format!("image {i}").as_bytes()).unwrap();
            }
            check(Cursor::new(writer.finish().unwrap()), count);
        }
        let empty = ZipWriter::new(Vec::new(), 0).finish().unwrap();
        assert_eq!(zip::ZipArchive::new(Cursor::new(empty)).unwrap().len(), 0);
    }

    #[test]
    fn offsets_beyond_four_gib() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse.zip");
        let mut file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        let begin = (4 << 30) - 20; // the second file begins beyond
        file.seek(SeekFrom::Start(begin)).unwrap();
        let mut writer = ZipWriter::new(file, begin);
        for i in 0..3 {
            writer.add(&format!("c/{i}.png"), format!("image {i}").as_bytes()).unwrap();
        }
        check(writer.finish().unwrap(), 3);
    }
}
