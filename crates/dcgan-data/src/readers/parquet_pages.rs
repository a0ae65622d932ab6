//! Values of one column of Parquet files by row: a table of the pages, and the pages decoded last.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::buf::{Buf, Reader};
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use crate::block::{Block, WINDOW_BYTES};
use crate::bytes::Bytes;
use crate::decode::MAX_ENCODED_BYTES;
use crate::encoded::Records;
use crate::raw::record_name;
use crate::readers::parquet_header::{PageHeader, PageKind};

/// Bytes of decoded pages that are kept; a page more when there is only one.
const MAX_KEPT_BYTES: u64 = 3 * WINDOW_BYTES;

/// Maximum bytes of a page in memory: a writer starts a new page after about 1 MB, but an image is never divided.
const MAX_PAGE_BYTES: usize = 1 << 30;

/// A file whose bytes are memory-mapped.
#[derive(Debug)]
pub(crate) struct Mapped(bytes::Bytes);

impl Mapped {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes::Bytes::from_owner(bytes))
    }
}

impl Length for Mapped {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl ChunkReader for Mapped {
    type T = Reader<bytes::Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let start = usize::try_from(start)?;
        if start > self.0.len() {
            return Err(ParquetError::EOF(format!("byte {start} is past the end of the file")));
        }
        Ok(self.0.slice(start..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes> {
        let start = usize::try_from(start)?;
        match start.checked_add(length).filter(|end| *end <= self.0.len()) {
            Some(end) => Ok(self.0.slice(start..end)),
            None => Err(ParquetError::EOF(format!("{length} bytes at {start} are past the end of the file"))),
        }
    }
}

/// A file and its description.
#[derive(Debug)]
pub(crate) struct ParquetFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Arc<Mapped>,
    pub(crate) metadata: Arc<ParquetMetaData>,
    /// Number of the column of images.
    pub(crate) column: usize,
}

impl ParquetFile {
    fn chunk(&self, group: usize) -> Result<&ColumnChunkMetaData> {
        let column = self.metadata.row_groups().get(group).and_then(|group| group.columns().get(self.column));
        column.ok_or_else(|| ParquetError::General(format!("row group {group} has no such column")))
    }
}

/// First byte and length of a column of a row group.
pub(crate) fn range_of(chunk: &ColumnChunkMetaData) -> Result<(u64, u64)> {
    // The library's own function panics on negative numbers.
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    Ok((u64::try_from(start)?, u64::try_from(chunk.compressed_size())?))
}

/// A page of the column of images.
#[derive(Clone, Copy, Debug)]
struct PageEntry {
    /// Number of its first row among the rows of all files.
    first_row: usize,
    rows: usize,
    file: u32,
    group: u32,
    offset: u64,
    length: u64,
}

/// The images in the rows of Parquet files.
#[derive(Debug)]
pub(crate) struct ParquetImages {
    files: Vec<ParquetFile>,
    /// Number of the first row of each file.
    first_rows: Vec<usize>,
    pages: Vec<PageEntry>,
    rows: usize,
    kept: Mutex<Kept>,
}

/// Pages decoded last, the newest at the end.
#[derive(Debug, Default)]
struct Kept {
    pages: VecDeque<(usize, Arc<Values>)>,
    bytes: u64,
}

/// The values of a page by row, none where a row has none.
#[derive(Debug)]
struct Values {
    values: Vec<Option<ByteArray>>,
    bytes: u64,
}

impl ParquetImages {
    /// Reads the headers of all pages of the images.
    pub(crate) fn new(files: Vec<ParquetFile>) -> std::result::Result<Self, (PathBuf, String)> {
        let mut images =
            Self { files, first_rows: Vec::new(), pages: Vec::new(), rows: 0, kept: Mutex::default() };
        for number in 0..images.files.len() {
            images.first_rows.push(images.rows);
            images.add_pages(number).map_err(|error| {
                (images.files.get(number).map(|file| file.path.clone()).unwrap_or_default(), message(&error))
            })?;
        }
        Ok(images)
    }

    fn add_pages(&mut self, number: usize) -> Result<()> {
        let Some(file) = self.files.get(number) else { return Ok(()) };
        for group in 0..file.metadata.num_row_groups() {
            let chunk = file.chunk(group)?;
            let rows_of_group = usize::try_from(file.metadata.row_group(group).num_rows())?;
            let end = self.rows.checked_add(rows_of_group);
            let end = end.ok_or_else(|| damaged("has too many rows"))?;
            let (start, length) = range_of(chunk)?;
            let chunk_end = start.checked_add(length).filter(|end| *end <= file.bytes.len());
            let chunk_end = chunk_end.ok_or_else(|| {
                ParquetError::EOF(format!("row group {group} ends past the end of the file"))
            })?;
            let (first, mut in_group, mut offset) = (self.rows, 0_usize, start);
            while offset < chunk_end {
                let rest = file.bytes.get_bytes(offset, usize::try_from(chunk_end - offset)?)?;
                let header = PageHeader::read(&rest).filter(|header| {
                    let end = header.header.checked_add(header.compressed);
                    end.is_some_and(|end| end <= rest.len()) && header.uncompressed <= MAX_PAGE_BYTES
                });
                let header = header.ok_or_else(|| {
                    ParquetError::General(format!("the header of the page at byte {offset} is damaged"))
                })?;
                let length = (header.header + header.compressed) as u64;
                if let PageKind::Data(rows) = header.kind {
                    let (file, group) = (u32::try_from(number)?, u32::try_from(group)?);
                    let first_row = first + in_group;
                    self.pages.push(PageEntry { first_row, rows, file, group, offset, length });
                    in_group = in_group.saturating_add(rows);
                    if in_group > rows_of_group {
                        break;
                    }
                }
                offset += length;
            }
            if in_group != rows_of_group {
                return Err(ParquetError::General(format!(
                    "the pages of row group {group} have {in_group} rows, expected {rows_of_group}"
                )));
            }
            self.rows = end;
        }
        Ok(())
    }

    /// The file and the row in it.
    fn locate(&self, row: usize) -> Option<(&ParquetFile, usize)> {
        let number = self.first_rows.partition_point(|first| *first <= row).checked_sub(1)?;
        Some((self.files.get(number)?, row - self.first_rows.get(number)?))
    }

    /// The values of page `number`, from memory if it is kept.
    fn page(&self, number: usize, entry: PageEntry) -> Result<Arc<Values>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, values)) = lock().pages.iter().find(|(kept, _)| *kept == number) {
            return Ok(Arc::clone(values));
        }
        // The library panics on some damaged pages.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decode(entry)));
        let values = Arc::new(decoded.unwrap_or_else(|_| Err(damaged("a page cannot be decoded")))?);
        let mut kept = lock();
        kept.bytes += values.bytes;
        kept.pages.push_back((number, Arc::clone(&values)));
        while kept.bytes > MAX_KEPT_BYTES && kept.pages.len() > 1 {
            if let Some((_, oldest)) = kept.pages.pop_front() {
                kept.bytes -= oldest.bytes;
            }
        }
        Ok(values)
    }

    fn decode(&self, entry: PageEntry) -> Result<Values> {
        let missing = || damaged("no such page");
        let file = self.files.get(usize::try_from(entry.file)?).ok_or_else(missing)?;
        let chunk = file.chunk(usize::try_from(entry.group)?)?;
        // A column chunk of this page alone.
        let only = chunk
            .clone()
            .into_builder()
            .set_data_page_offset(i64::try_from(entry.offset)?)
            .set_dictionary_page_offset(None)
            .set_total_compressed_size(i64::try_from(entry.length)?)
            .build()?;
        let mut reader = SerializedPageReader::new(Arc::clone(&file.bytes), &only, entry.rows, None)?;
        let page = reader.get_next_page()?.ok_or_else(missing)?;
        let mut pages = VecDeque::new();
        if matches!(page.encoding(), Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) {
            let mut all = SerializedPageReader::new(Arc::clone(&file.bytes), chunk, entry.rows, None)?;
            pages.push_back(all.get_next_page()?.filter(Page::is_dictionary_page).ok_or_else(missing)?);
        }
        pages.push_back(page);
        let descr = chunk.column_descr_ptr();
        let (max_level, mut levels, mut found) = (descr.max_def_level(), Vec::new(), Vec::new());
        let mut column = ColumnReaderImpl::<ByteArrayType>::new(descr, Box::new(Pages(pages)));
        column.read_records(entry.rows, Some(&mut levels), None, &mut found)?;
        let bytes = found.iter().map(|value| value.len() as u64).sum();
        let mut found = found.into_iter();
        let values: Vec<Option<ByteArray>> = if max_level == 0 {
            found.map(Some).collect()
        } else {
            levels.iter().map(|level| if *level == max_level { found.next() } else { None }).collect()
        };
        Ok(Values { values, bytes })
    }
}

impl Records for ParquetImages {
    fn len(&self) -> usize {
        self.rows
    }

    fn name(&self, index: usize) -> String {
        self.locate(index).map_or_else(|| index.to_string(), |(file, row)| record_name(&file.path, row))
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }

    fn blocks(&self) -> Vec<Block> {
        // Images hardly get smaller by the compression of a page.
        self.pages.iter().map(|page| Block { first: page.first_row, bytes: page.length }).collect()
    }

    fn read(&self, index: usize) -> std::result::Result<Vec<u8>, String> {
        let missing = || "is in no page".to_owned();
        let number = self.pages.partition_point(|page| page.first_row <= index).checked_sub(1);
        let number = number.ok_or_else(missing)?;
        let entry = *self.pages.get(number).ok_or_else(missing)?;
        let values = self.page(number, entry).map_err(|error| message(&error))?;
        let value = values.values.get(index - entry.first_row).ok_or_else(missing)?;
        let value = value.as_ref().ok_or_else(|| {
            "has no bytes: the file names an image elsewhere, or the row is empty".to_owned()
        })?;
        if value.len() as u64 > MAX_ENCODED_BYTES {
            return Err(format!("has {} bytes, the limit is {MAX_ENCODED_BYTES}", value.len()));
        }
        Ok(value.data().to_vec())
    }
}

/// Pages in memory.
struct Pages(VecDeque<Page>);

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.pop_front().map(Ok)
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        Ok(self.0.pop_front())
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Ok(self.0.front().map(|page| PageMetadata {
            num_rows: None,
            num_levels: usize::try_from(page.num_values()).ok(),
            is_dict: page.is_dictionary_page(),
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.pop_front();
        Ok(())
    }
}

fn damaged(problem: &str) -> ParquetError {
    ParquetError::General(problem.to_owned())
}

/// An error of the library in one line.
pub(crate) fn message(error: &ParquetError) -> String {
    let text = error.to_string();
    format!("is a damaged Parquet file: {}", text.lines().next().unwrap_or_default())
}
