//! The strength of a token.

/// Characters of a token, at least.
const MIN_CHARS: usize = 16;
/// Different characters of a token, and different steps from one character to the next, at least: a repeated or
/// ascending sequence is long and still easy to guess.
const MIN_DISTINCT: usize = 8;

/// Why a token is refused; none if it can be used.
pub fn token_fault(token: &str) -> Option<String> {
    if token.is_empty() {
        return Some("is empty, expected a token".to_owned());
    }
    if token.contains(char::is_whitespace) {
        return Some("contains whitespace, expected one token".to_owned());
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("contains characters that a header cannot have, expected visible ASCII".to_owned());
    }
    let bytes = token.as_bytes();
    if bytes.len() < MIN_CHARS {
        return Some(format!("has {} characters, expected at least {MIN_CHARS}", bytes.len()));
    }
    let steps = bytes.windows(2).map(|pair| i16::from(pair[1]) - i16::from(pair[0]));
    let distinct = count_distinct(bytes.iter().map(|byte| i16::from(*byte))).min(count_distinct(steps));
    if distinct < MIN_DISTINCT {
        return Some(
            "has few different characters, or characters in sequence, expected random ones".to_owned(),
        );
    }
    let repeats = |period: usize| bytes.iter().skip(period).zip(bytes).all(|(a, b)| a == b);
    if (1..MIN_CHARS).any(repeats) {
        return Some("repeats a shorter text, expected random characters".to_owned());
    }
    None
}

fn count_distinct(values: impl Iterator<Item = i16>) -> usize {
    values.collect::<std::collections::BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_tokens_are_refused() {
        for (token, part) in [
            ("", "is empty"),
            ("two words of a token", "whitespace"),
            ("a\u{7}bcdefghijklmnopqrst", "visible ASCII"),
            ("t\u{f6}ken-of-this-service", "visible ASCII"),
            ("secret", "has 6 characters"),
            ("k3jf92mv0axq81z", "has 15 characters"),
            ("aaaaaaaaaaaaaaaaaaaaaaaa", "few different"),
            ("passwordpassword", "few different"),
            ("0123456789012345", "in sequence"),
            ("abcdefghijklmnopqrstuvwxyz", "in sequence"),
            ("0123456789abcdef", "in sequence"),
            ("k3jf92mv0ak3jf92mv0a", "repeats"),
        ] {
            let fault = token_fault(token);
            assert!(fault.as_ref().is_some_and(|fault| fault.contains(part)), "{token:?}: {fault:?}");
        }
        for token in [
            "k3jf92mv0axq81zr",
            "9f86d081884c7d659a2feaa0c55ad015",
            "Zm9vYmFyIGJheiBxdXV4+/==",
            "s3cret-of-this-test",
            "8b1a9953-c461-4296-a827-abf8c47804d7",
        ] {
            assert_eq!(token_fault(token), None, "{token}");
        }
    }
}
