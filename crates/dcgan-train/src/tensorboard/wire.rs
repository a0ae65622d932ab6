//! Bytes of an event file: protobuf messages, and the records that hold them.
//!
//! Hand-written: a dozen fields and a checksum are less code than a protobuf library. The golden file of the tests was
//! written by TensorBoard's own writer.

/// A protobuf message. Fields are added in the order of their numbers, without zeros, as protobuf's own writers do.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// An integer or enumeration.
    pub(super) fn integer(mut self, field: u8, value: u64) -> Self {
        if value != 0 {
            self.key(field, 0);
            self.varint(value);
        }
        self
    }

    /// A field of a `oneof`, which is written even if it is zero.
    pub(super) fn float(mut self, field: u8, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn double(mut self, field: u8, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A string or bytes.
    pub(super) fn bytes(mut self, field: u8, value: &[u8]) -> Self {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    pub(super) fn message(self, field: u8, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn key(&mut self, field: u8, kind: u8) {
        self.varint(u64::from(field) << 3 | u64::from(kind));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// The message as a record: its length, a checksum of the length, the message, a checksum of the message.
    pub(super) fn record(&self) -> Vec<u8> {
        let length = (self.0.len() as u64).to_le_bytes();
        [&length[..], &masked(&length), &self.0, &masked(&self.0)].concat()
    }
}

/// The masked checksum of TFRecord files.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// CRC-32 with Castagnoli's polynomial (RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8);
    !bytes.iter().fold(!0, step)
}

/// Remainders of every byte.
static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut remainder, mut bit) = (byte, 0);
        while bit < 8 {
            remainder = (remainder >> 1) ^ (0x82f6_3b78 * (remainder & 1));
            bit += 1;
        }
        table[byte as usize] = remainder;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        let rising: Vec<u8> = (0..32).collect();
        for (bytes, expected) in [
            (&b""[..], 0),
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
        ] {
            assert_eq!(crc32c(bytes), expected, "{bytes:?}");
        }
    }
}
