//! The number types that values are computed with and stored in.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::str::FromStr;

/// f32 or bf16: the inputs of matrix products and convolutions, the weights in a file, the features in memory.
/// Accumulation is always in f32 or wider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision: four bytes.
    #[default]
    F32,
    /// Eight bits of mantissa, rounded to nearest, ties to even: two bytes. Products of bf16 are faster than those of
    /// f32 on processors that multiply it.
    Bf16,
}

impl Precision {
    /// Both, in the order of help texts.
    pub const ALL: [Precision; 2] = [Precision::F32, Precision::Bf16];

    /// `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let precision = Self::ALL.into_iter().find(|precision| precision.name() == text);
        precision.ok_or_else(|| format!("unknown precision {text:?}, expected f32 or bf16"))
    }
}
