//! Files of statistics as other programs write them: `.npz` with the arrays `mu` and `sigma` (pytorch-fid, ADM,
//! clean-fid, torch-fidelity).

use std::io::{Cursor, Read, Write};
use std::path::Path;

use dcgan_base::files::write_atomic;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::error::MetricsError;
use crate::inception::FEATURES;
use crate::statistics::Statistics;

/// The largest member that is read: a covariance of f64, and its header.
const MAX_BYTES: u64 = (FEATURES * FEATURES * 8 + 4096) as u64;

impl Statistics {
    /// Reads `mu` and `sigma` of 2048 features, f32 or f64.
    ///
    /// # Errors
    /// [`MetricsError::Io`], [`MetricsError::Statistics`].
    pub fn read(path: &Path) -> Result<Self, MetricsError> {
        let io = |source| MetricsError::Io { path: path.to_owned(), source };
        let fault = |problem: String| MetricsError::Statistics { path: path.to_owned(), problem };
        let file = std::fs::File::open(path).map_err(io)?;
        let mut archive = ZipArchive::new(file)
            .map_err(|error| fault(format!("expected an .npz file with `mu` and `sigma`: {error}")))?;
        let mut array = |name: &str, shape: &[usize]| {
            let member = archive.by_name(&format!("{name}.npy"));
            let member =
                member.map_err(|_| fault(format!("has no array `{name}`, expected `mu` and `sigma`")))?;
            let mut bytes = Vec::new();
            member.take(MAX_BYTES).read_to_end(&mut bytes).map_err(io)?;
            parse(&bytes, shape).map_err(|problem| fault(format!("{name}: {problem}")))
        };
        let mean = array("mu", &[FEATURES])?;
        let covariance = array("sigma", &[FEATURES, FEATURES])?;
        if mean.iter().chain(&covariance).any(|value| !value.is_finite()) {
            return Err(fault("has values that are not finite".to_owned()));
        }
        Ok(Self { count: None, mean, covariance })
    }

    /// Writes `mu` and `sigma` as f64.
    ///
    /// # Errors
    /// [`MetricsError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), MetricsError> {
        let d = self.mean.len();
        let bytes = || -> zip::result::ZipResult<Vec<u8>> {
            let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
            let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
            for (name, shape, values) in
                [("mu", format!("({d},)"), &self.mean), ("sigma", format!("({d}, {d})"), &self.covariance)]
            {
                archive.start_file(format!("{name}.npy"), stored)?;
                let mut header =
                    format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}").into_bytes();
                header.resize((header.len() + 11).next_multiple_of(64) - 11, b' ');
                header.push(b'\n');
                archive.write_all(b"\x93NUMPY\x01\x00")?;
                archive.write_all(&u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes())?;
                archive.write_all(&header)?;
                for value in values {
                    archive.write_all(&value.to_le_bytes())?;
                }
            }
            Ok(archive.finish()?.into_inner())
        };
        let written = bytes().map_err(std::io::Error::from).and_then(|bytes| write_atomic(path, &bytes));
        written.map_err(|source| MetricsError::Io { path: path.to_owned(), source })
    }
}

/// The values of a `.npy` array of this shape, in row order.
fn parse(bytes: &[u8], shape: &[usize]) -> Result<Vec<f64>, String> {
    let damaged = || "not a .npy array".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(damaged)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
    let (length, rest) = if version[0] == 1 {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, values) = rest.split_at_checked(length).ok_or_else(damaged)?;
    let header = String::from_utf8_lossy(header).replace([' ', '\n', '"'], "").replace('\'', "");
    let expected = match shape {
        [n] => format!("shape:({n},)"),
        _ => format!("shape:({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",")),
    };
    if !header.contains(&expected) {
        let found = header.split_once("shape:").map_or("", |(_, rest)| rest.trim_end_matches(['}', ',']));
        return Err(format!(
            "the array has the shape {found}, expected {} of 2048 features",
            expected.replace("shape:", "")
        ));
    }
    let count: usize = shape.iter().product();
    let size = if header.contains("descr:<f8") {
        8
    } else if header.contains("descr:<f4") {
        4
    } else {
        return Err("expected values of type f4 or f8, little-endian".to_owned());
    };
    if values.len() != count * size {
        return Err(format!("{} bytes of values, expected {}", values.len(), count * size));
    }
    let mut found: Vec<f64> = if size == 8 {
        values.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
    } else {
        values.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
    };
    if let ([rows, columns], true) = (shape, header.contains("fortran_order:True")) {
        let transposed = (0..rows * columns).map(|i| found[i % columns * rows + i / columns]).collect();
        found = transposed;
    }
    Ok(found)
}
