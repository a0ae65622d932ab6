//! Decompression of LZF, the format of Marc Lehmann's LibLZF (`lzf_d.c`), which h5py offers as a filter.

/// Number of h5py's filter in HDF5 files.
pub(crate) const FILTER: u16 = 32_000;

/// Decompresses `data` to at most `limit` bytes.
///
/// # Errors
///
/// Damaged data, or more bytes than the limit.
pub(crate) fn decompress(data: &[u8], limit: usize) -> Result<Vec<u8>, &'static str> {
    const TRUNCATED: &str = "LZF data is truncated";
    let (mut out, mut input) = (Vec::new(), data.iter());
    while let Some(control) = input.next() {
        let control = usize::from(*control);
        let length = if control < 32 {
            control + 1
        } else {
            match control >> 5 {
                7 => 9 + usize::from(*input.next().ok_or(TRUNCATED)?),
                length => length + 2,
            }
        };
        if out.len() + length > limit {
            return Err("LZF data has more bytes than its chunk");
        }
        if control < 32 {
            let literal = input.as_slice().get(..length).ok_or(TRUNCATED)?;
            out.extend_from_slice(literal);
            input.nth(length - 1);
        } else {
            let low = usize::from(*input.next().ok_or(TRUNCATED)?);
            let distance = ((control & 0x1f) << 8 | low) + 1;
            let start = out.len().checked_sub(distance).ok_or("LZF data refers to bytes before its start")?;
            // The copy may overlap what it writes.
            for at in start..start + length {
                let byte = out.get(at).copied().unwrap_or(0);
                out.push(byte);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_references() {
        for (data, limit, expected) in [
            (&[2, b'a', b'b', b'c'][..], 3, Ok(b"abc".to_vec())),
            // Three bytes from a distance of one: a run.
            (&[0, b'a', 1 << 5, 0], 4, Ok(b"aaaa".to_vec())),
            (&[1, b'a', b'b', 7 << 5, 1, 1], 12, Ok(b"abababababab".to_vec())),
            (&[2, b'a'], 3, Err("LZF data is truncated")),
            (&[0, b'a', 1 << 5], 9, Err("LZF data is truncated")),
            (&[0, b'a', 1 << 5, 1], 9, Err("LZF data refers to bytes before its start")),
            (&[2, b'a', b'b', b'c'], 2, Err("LZF data has more bytes than its chunk")),
        ] {
            assert_eq!(decompress(data, limit), expected, "{data:?}");
        }
    }
}
