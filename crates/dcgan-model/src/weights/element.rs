//! Element types of tensors in files, and their conversion to `f32`.

use half::{bf16, f16};
use safetensors::Dtype;

/// The byte order of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    /// Least significant first.
    Little,
    /// Most significant first.
    Big,
}

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
}

impl Element {
    /// The element type of a safetensors type; `None` for unsupported types.
    pub(crate) fn from_safetensors(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U8 => Self::U8,
            _ => return None,
        })
    }

    /// Size of one value in bytes.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }

    /// Whether this is a floating-point type.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// The values in `bytes`, rounded to the nearest `f32`. An incomplete value at the end is ignored.
    pub(crate) fn decode(self, bytes: &[u8], order: ByteOrder) -> Vec<f32> {
        match self {
            Self::F64 => values(bytes, order, |raw| narrow(f64::from_le_bytes(raw))),
            Self::F32 => values(bytes, order, f32::from_le_bytes),
            Self::F16 => values(bytes, order, |raw| f16::from_le_bytes(raw).to_f32()),
            Self::Bf16 => values(bytes, order, |raw| bf16::from_le_bytes(raw).to_f32()),
            Self::I64 => values(bytes, order, |raw| i64::from_le_bytes(raw) as f32),
            Self::I32 => values(bytes, order, |raw| i32::from_le_bytes(raw) as f32),
            Self::I16 => values(bytes, order, |raw| f32::from(i16::from_le_bytes(raw))),
            Self::I8 => values(bytes, order, |raw| f32::from(i8::from_le_bytes(raw))),
            Self::U8 => values(bytes, order, |[raw]| f32::from(raw)),
        }
    }
}

/// Converts each group of `N` bytes to little-endian order and to a value by `read`.
fn values<const N: usize>(bytes: &[u8], order: ByteOrder, read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (groups, _rest) = bytes.as_chunks::<N>();
    groups
        .iter()
        .map(|group| {
            let mut raw = *group;
            if order == ByteOrder::Big {
                raw.reverse();
            }
            read(raw)
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, reason = "weights in f64 are rounded to the nearest f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}
