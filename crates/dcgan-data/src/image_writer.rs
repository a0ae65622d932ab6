//! Numbered images as single PNG files, in a folder or a zip: for millions of images, in order.
//!
//! A zip appears when it is complete. A folder fills up as images are written, and a hidden file in it says what they
//! are until the last one is written: the same command continues an interrupted folder.

use crate::zip_writer::ZipWriter;
use dcgan_base::files::{self, AtomicFile};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The file that describes the images of an incomplete folder.
const INCOMPLETE: &str = ".incomplete.json";
/// The last chunk of a PNG: length, type and checksum.
const PNG_END: [u8; 12] = *b"\0\0\0\0IEND\xaeB`\x82";

/// Why images were not written.
#[derive(Debug, thiserror::Error)]
pub enum ImageWriterError {
    /// The operating system's.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder or the file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A folder of incomplete images of another origin.
    #[error(
        "{} has the first images of another model, seed or scale: choose another folder, or remove this one",
        path.display()
    )]
    OtherImages {
        /// The folder.
        path: PathBuf,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ImageWriterError + '_ {
    |source| ImageWriterError::Io { path: path.into(), source }
}

/// The name of an image in a set: eight digits, in the folder of its class where it has one.
pub fn image_name(index: usize, class: Option<&str>) -> String {
    match class {
        Some(class) => format!("{class}/{index:08}.png"),
        None => format!("{index:08}.png"),
    }
}

/// Writes numbered images.
#[derive(Debug)]
pub struct ImageWriter {
    path: PathBuf,
    zip: Option<ZipWriter<AtomicFile>>,
    next: usize,
}

/// Whether the images of `path` go into a zip.
fn is_zip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"))
}

impl ImageWriter {
    /// Checks, before any work, whether `path` can be written: a file with the extension .zip, a new or empty folder,
    /// or a folder of incomplete images of `origin`, a text that names all that the images depend on.
    ///
    /// # Errors
    /// [`ImageWriterError`].
    pub fn check(path: &Path, origin: &str) -> Result<(), ImageWriterError> {
        if is_zip(path) {
            return files::check_output(path).map(drop).map_err(io_error(path));
        }
        match fs::read_to_string(path.join(INCOMPLETE)) {
            Ok(found) if found == origin => Ok(()),
            Ok(_) => Err(ImageWriterError::OtherImages { path: path.into() }),
            Err(_) => files::check_new_folder(path).map_err(io_error(path)),
        }
    }

    /// Opens `path` as in [`ImageWriter::check`].
    ///
    /// # Errors
    /// [`ImageWriterError`].
    pub fn create(path: &Path, origin: &str) -> Result<Self, ImageWriterError> {
        Self::check(path, origin)?;
        let mut writer = Self { path: path.into(), zip: None, next: 0 };
        if is_zip(path) {
            let file = AtomicFile::create_per_process(path).map_err(io_error(path))?;
            writer.zip = Some(ZipWriter::new(file, 0));
        } else {
            fs::create_dir_all(path).map_err(io_error(path))?;
            let description = path.join(INCOMPLETE);
            files::write_atomic(&description, origin.as_bytes()).map_err(io_error(&description))?;
        }
        Ok(writer)
    }

    /// Number of the next image: more than 0 after [`ImageWriter::skip_written`].
    pub fn next(&self) -> usize {
        self.next
    }

    /// Skips images that the folder already has, complete; `class` gives the class of an image.
    pub fn skip_written(&mut self, class: impl Fn(usize) -> Option<String>) {
        while self.zip.is_none()
            && is_png(&self.path.join(image_name(self.next, class(self.next).as_deref())))
        {
            self.next += 1;
        }
    }

    /// Writes the next image, an encoded PNG.
    ///
    /// # Errors
    /// [`ImageWriterError::Io`].
    pub fn write(&mut self, class: Option<&str>, png: &[u8]) -> Result<(), ImageWriterError> {
        let name = image_name(self.next, class);
        match &mut self.zip {
            Some(zip) => zip.add(&name, png).map_err(io_error(&self.path))?,
            None => {
                let path = self.path.join(name);
                write_file(&path, png, class.is_some()).map_err(io_error(&path))?;
            }
        }
        self.next += 1;
        Ok(())
    }

    /// Completes the zip or the folder.
    ///
    /// # Errors
    /// [`ImageWriterError::Io`].
    pub fn finish(self) -> Result<(), ImageWriterError> {
        let finish = || match self.zip {
            Some(zip) => zip.finish()?.commit(),
            None => {
                files::sync_names(&self.path)?;
                fs::remove_file(self.path.join(INCOMPLETE))
            }
        };
        finish().map_err(io_error(&self.path))
    }
}

/// Writes a new file, in place of an incomplete one.
fn write_file(path: &Path, png: &[u8], in_class: bool) -> io::Result<()> {
    if let (true, Some(folder)) = (in_class, path.parent()) {
        fs::create_dir_all(folder)?;
    }
    let file = match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            File::create_new(path)
        }
        file => file,
    };
    file?.write_all(png)
}

/// Whether `path` is a regular file that ends as a complete PNG does.
fn is_png(path: &Path) -> bool {
    let ends = || -> io::Result<bool> {
        if !fs::symlink_metadata(path)?.is_file() {
            return Ok(false);
        }
        let mut file = File::open(path)?;
        let mut end = [0; PNG_END.len()];
        file.seek(SeekFrom::End(-(PNG_END.len() as i64)))?;
        file.read_exact(&mut end)?;
        Ok(end == PNG_END)
    };
    ends().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_file::ImageFileFormat;

    fn png(value: u8) -> Vec<u8> {
        ImageFileFormat::Png.encode(&[value; 12], (2, 2, 3)).unwrap()
    }

    /// The class of image i of the tests.
    fn class(i: usize) -> Option<String> {
        Some(["a", "b"][i % 2].to_owned())
    }

    fn write(writer: &mut ImageWriter, to: usize) {
        while writer.next() < to {
            let value = u8::try_from(writer.next()).unwrap();
            writer.write(class(writer.next()).as_deref(), &png(value)).unwrap();
        }
    }

    #[test]
    fn folders_continue_and_zips_are_complete() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&mut ImageWriter::create(&at("set"), "x").unwrap(), 3); // dropped: interrupted
        fs::write(at("set/a/00000002.png"), &png(2)[..40]).unwrap(); // the last file is cut short
        let other = ImageWriter::create(&at("set"), "y").unwrap_err().to_string();
        assert!(other.contains("another model"), "{other}");
        let mut writer = ImageWriter::create(&at("set"), "x").unwrap();
        writer.skip_written(class);
        assert_eq!(writer.next(), 2);
        write(&mut writer, 5);
        writer.finish().unwrap();
        for i in 0..5 {
            let name = image_name(i, class(i).as_deref());
            assert_eq!(fs::read(at("set").join(name)).unwrap(), png(u8::try_from(i).unwrap()));
        }
        let complete = ImageWriter::create(&at("set"), "x").unwrap_err().to_string();
        assert!(complete.contains("is not empty"), "{complete}");

        write(&mut ImageWriter::create(&at("set.zip"), "x").unwrap(), 3);
        assert!(!at("set.zip").exists(), "an incomplete zip");
        let mut writer = ImageWriter::create(&at("set.zip"), "x").unwrap();
        writer.skip_written(class);
        write(&mut writer, 5);
        writer.finish().unwrap();
        let mut zip = zip::ZipArchive::new(File::open(at("set.zip")).unwrap()).unwrap();
        let mut content = Vec::new();
        zip.by_name("b/00000003.png").unwrap().read_to_end(&mut content).unwrap();
        assert_eq!((zip.len(), content), (5, png(3)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
