//! Whether the first frame of a GIF is complete (CompuServe, "Graphics Interchange Format", version 89a).

/// Whether `file` contains all blocks of its first frame. The decoder leaves missing pixels transparent and does not
/// fail, so a truncated image is detected here.
pub(crate) fn has_first_frame(file: &[u8]) -> bool {
    end_of_first_frame(file).is_some()
}

fn end_of_first_frame(file: &[u8]) -> Option<usize> {
    // Header and logical screen descriptor, then the global color table.
    let mut at = 13 + color_table_bytes(*file.get(10)?);
    loop {
        match *file.get(at)? {
            // An extension: a label, then data.
            0x21 => at = end_of_data(file, at + 2)?,
            // An image: its descriptor, its color table, the code size, then data.
            0x2c => return end_of_data(file, at + 11 + color_table_bytes(*file.get(at + 9)?)),
            _ => return None,
        }
    }
}

/// Length of the color table that the flags of a descriptor declare.
fn color_table_bytes(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

/// The offset after data: blocks with their length, and an empty block.
fn end_of_data(file: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*file.get(at)?);
        at += 1 + length;
        if length == 0 {
            return Some(at);
        }
    }
}
