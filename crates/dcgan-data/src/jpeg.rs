//! The extent of a JPEG image, found by its markers (ITU-T T.81, annex B).
//!
//! Files often continue after the image: phones append a video, other programs a second image or zeros. Thumbnails in
//! the header are images of their own. So the end is neither the end of the file nor the last end marker in it.

/// Markers: the second byte, after 0xff.
const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;

/// The bytes of the image at the start of `file`, from its start marker to its end marker; `None` if the end is
/// missing.
///
/// The decoder fills missing data with grey and does not fail, so a truncated image is detected here.
pub(crate) fn image_of(file: &[u8]) -> Option<&[u8]> {
    let mut has_scan = false;
    for (marker, segment) in segments(file) {
        match marker {
            END_OF_IMAGE if has_scan => return file.get(..segment),
            START_OF_SCAN => has_scan = true,
            _ => {}
        }
    }
    None
}

/// Whether the image has more than one color component; `None` if its frame header is not in `head`.
pub(crate) fn is_color(head: &[u8]) -> Option<bool> {
    // Start of frame: 0xc0 to 0xcf without the tables 0xc4 and 0xcc and the reserved 0xc8.
    let is_frame = |marker: u8| matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
    let (_, start) = segments(head).find(|(marker, _)| is_frame(*marker))?;
    // Length (2 bytes), precision, height (2), width (2), number of components.
    head.get(start + 7).map(|components| *components > 1)
}

/// The markers of the first image of `file`, each with the offset after it.
fn segments(file: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let (marker, after) = next_marker(file, next)?;
        next = match marker {
            // Without a length.
            0x01 | 0xd0..=START_OF_IMAGE | END_OF_IMAGE => after,
            _ => {
                let [high, low] = *file.get(after..after + 2)?.first_chunk::<2>()?;
                after + usize::from(u16::from_be_bytes([high, low])).max(2)
            }
        };
        Some((marker, after))
    })
}

/// The next marker at or after offset `from`, and the offset after it. Other bytes are skipped: the compressed data of
/// a scan, in which 0xff is followed by 0 or a restart marker, and padding.
fn next_marker(file: &[u8], from: usize) -> Option<(u8, usize)> {
    let mut at = from;
    loop {
        at += file.get(at..)?.iter().position(|byte| *byte == 0xff)? + 1;
        // Any number of 0xff can precede a marker.
        at += file.get(at..)?.iter().position(|byte| *byte != 0xff)? + 1;
        let marker = file[at - 1];
        if !matches!(marker, 0x00 | 0xd0..=0xd7) {
            return Some((marker, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment with its length.
    fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len() + 2).unwrap().to_be_bytes();
        [&[0xff, marker], &length[..], data].concat()
    }

    #[test]
    fn the_end_is_found_by_markers() {
        let start = [0xff, 0xd8].to_vec();
        let end = [0xff, 0xd9].to_vec();
        let tables = segment(0xdb, &[1, 2, 3]);
        let frame = segment(0xc2, &[8, 0, 1, 0, 1, 3, 0]);
        // Stuffed bytes, restart markers and fill bytes.
        let scan = [segment(0xda, &[1, 2]), vec![7, 0xff, 0, 9, 0xff, 0xd3, 4, 0xff, 0xff, 0, 5]].concat();
        // A thumbnail in the header, with its own scan and end marker.
        let thumbnail = segment(0xe1, &[&start[..], &frame, &scan, &end].concat());
        let plain = [&start[..], &tables, &frame, &scan, &end].concat();
        let progressive = [&start[..], &thumbnail, &frame, &scan, &tables, &scan, &scan, &end].concat();
        let filled =
            [&start[..], &[0xff, 0xff], &tables, &[0xff], &frame, &scan, &[0xff, 0xff], &end].concat();
        for image in [&plain, &progressive, &filled] {
            assert_eq!(image_of(image), Some(&image[..]));
            assert_eq!(is_color(image), Some(true));
            for tail in [&b"\0\0\0\x18ftypmp42\xff\xda\0\0"[..], &plain, &[0; 9], &[0xff; 9]] {
                assert_eq!(image_of(&[image, tail].concat()), Some(&image[..]));
            }
            for length in 0..image.len() {
                assert_eq!(image_of(&image[..length]), None, "{length} of {}", image.len());
            }
        }
        assert_eq!(image_of(&[&start[..], &end].concat()), None, "no scan");
        let grey = [&start[..], &segment(0xc0, &[8, 0, 1, 0, 1, 1])].concat();
        assert_eq!((is_color(&grey), is_color(&grey[..5])), (Some(false), None));
    }
}
