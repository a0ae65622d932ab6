//! The background of images with transparent pixels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The RGB color that images with alpha are composited on when they are read with 1 or 3 channels; default: black.
///
/// As text it is `black`, `white` or `#rrggbb`.
///
/// ```
/// use dcgan_data::Background;
///
/// assert_eq!("white".parse::<Background>()?, Background([255, 255, 255]));
/// assert_eq!(Background([18, 52, 86]).to_string(), "#123456");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Background(pub [u8; 3]);

impl Background {
    /// The default.
    pub const BLACK: Self = Self([0; 3]);
    /// White.
    pub const WHITE: Self = Self([255; 3]);
}

impl FromStr for Background {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lowercase = text.trim().to_ascii_lowercase();
        match lowercase.as_str() {
            "black" => return Ok(Self::BLACK),
            "white" => return Ok(Self::WHITE),
            _ => {}
        }
        let digits = lowercase.strip_prefix('#').filter(|digits| digits.len() == 6);
        let value = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match value.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                let [_, red, green, blue] = value.to_be_bytes();
                Ok(Self([red, green, blue]))
            }
            None => Err(format!("background is {text:?}, expected black, white or #rrggbb")),
        }
    }
}

impl fmt::Display for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BLACK => f.write_str("black"),
            Self::WHITE => f.write_str("white"),
            Self([red, green, blue]) => write!(f, "#{red:02x}{green:02x}{blue:02x}"),
        }
    }
}

impl TryFrom<String> for Background {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Background> for String {
    fn from(background: Background) -> Self {
        background.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_parsed_and_printed() {
        for (text, color, printed) in [
            ("black", Some([0, 0, 0]), "black"),
            ("White", Some([255, 255, 255]), "white"),
            ("#000000", Some([0, 0, 0]), "black"),
            ("#1A2b3c", Some([0x1a, 0x2b, 0x3c]), "#1a2b3c"),
            ("red", None, ""),
            ("#12345", None, ""),
            ("#+12345", None, ""),
            ("123456", None, ""),
            ("", None, ""),
        ] {
            let parsed = text.parse::<Background>();
            assert_eq!(parsed.clone().ok(), color.map(Background), "{text}");
            match parsed {
                Ok(background) => assert_eq!(background.to_string(), printed),
                Err(message) => assert!(message.contains("expected black, white or #rrggbb"), "{message}"),
            }
        }
    }
}
