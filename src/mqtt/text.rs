//! UTF-8 strings and topic names: the checks that every byte of a topic goes through.
//!
//! Eight bytes are looked at in one step, because this is most of what decoding a small PUBLISH costs.

use super::Violation;

const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
const LOW_SEVENS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Checks a string of the wire: well-formed UTF-8, which excludes surrogates, without U+0000.
/// [MQTT-1.5.4-1] [MQTT-1.5.4-2]
// [MQTT-1.5.4-3]
pub(super) fn check_text(bytes: &[u8]) -> Result<&str, Violation> {
    let text = std::str::from_utf8(bytes).map_err(|_| Violation::StringNotUtf8)?;
    if bytes.contains(&0) {
        return Err(Violation::StringWithNul);
    }
    Ok(text)
}

/// Checks a string of the wire without making a `str` of it: most are short and plain ASCII.
#[inline]
pub(super) fn check_text_bytes(bytes: &[u8]) -> Result<(), Violation> {
    if is_plain(bytes) { Ok(()) } else { check_text(bytes).map(|_| ()) }
}

/// Checks the bytes of a Topic Name, except that it may be empty (a topic alias may stand for it).
pub(super) fn check_topic_bytes(bytes: &[u8]) -> Result<&str, Violation> {
    let text = std::str::from_utf8(bytes).map_err(|_| Violation::StringNotUtf8)?;
    if has_special(bytes) {
        return Err(name_special(bytes));
    }
    Ok(text)
}

/// Checks a Topic Name: not empty, no wildcard, no U+0000, at most 65,535 bytes.
///
/// # Errors
/// The rule that is broken. [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
pub fn check_topic_name(topic: &str) -> Result<(), Violation> {
    if topic.is_empty() {
        return Err(Violation::EmptyTopicName);
    }
    if topic.len() > usize::from(u16::MAX) {
        return Err(Violation::TopicNameTooLong);
    }
    check_topic_bytes(topic.as_bytes()).map(|_| ())
}

#[cold]
fn name_special(bytes: &[u8]) -> Violation {
    // [MQTT-3.3.2-2]
    if bytes.contains(&0) { Violation::StringWithNul } else { Violation::WildcardInTopicName }
}

/// Tells whether a NUL, `+` or `#` is among the bytes.
fn has_special(bytes: &[u8]) -> bool {
    any_word(bytes, specials)
}

/// Tells whether all bytes are ASCII and none is NUL.
fn is_plain(bytes: &[u8]) -> bool {
    !any_word(bytes, |word| (word | !nonzero(word)) & HIGH_BITS)
}

/// Tells whether a test of eight bytes finds anything; the last word is filled up with a harmless letter.
#[inline]
fn any_word(bytes: &[u8], test: impl Fn(u64) -> u64) -> bool {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut found = 0;
    for word in words {
        found |= test(u64::from_le_bytes(*word));
    }
    if !tail.is_empty() {
        let mut word = [b'a'; 8];
        word[..tail.len()].copy_from_slice(tail);
        found |= test(u64::from_le_bytes(word));
    }
    found != 0
}

/// The high bit of each byte whose other bits are not all zero. Without the high bits nothing carries over.
#[inline]
fn nonzero(word: u64) -> u64 {
    (word & LOW_SEVENS) + LOW_SEVENS
}

/// The high bit of each byte that is NUL, `+` or `#`.
#[inline]
fn specials(word: u64) -> u64 {
    const PLUS: u64 = 0x2b2b_2b2b_2b2b_2b2b;
    const BIT_3: u64 = 0x0808_0808_0808_0808; // '#' is 0x23, '+' is 0x2b: only bit 3 differs
    let no_wildcard = nonzero((word | BIT_3) ^ PLUS);
    !((nonzero(word) & no_wildcard) | word) & HIGH_BITS
}
