//! The data types of MQTT's wire: integers, variable byte integers, strings, binary data.
//!
//! A [`Reader`] never leaves the packet it was made for; a field that would is a [`Violation`].

use super::text::{check_text, check_text_bytes};
use super::{PacketId, Violation};

/// The largest variable byte integer, hence the largest remaining length.
pub(super) const VARINT_MAX: u32 = 268_435_455;

/// A variable byte integer at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Varint {
    /// The value and how many bytes it took.
    Whole(u32, usize),
    /// The bytes end before the integer does.
    Incomplete,
    /// The fourth byte asks for a fifth.
    TooLong,
    /// It would fit in fewer bytes. [MQTT-1.5.5-1]
    NotMinimal,
}

/// Reads a variable byte integer.
#[inline]
pub(super) fn read_varint(bytes: &[u8]) -> Varint {
    match bytes.first() {
        Some(&byte) if byte < 0x80 => Varint::Whole(u32::from(byte), 1),
        _ => read_long_varint(bytes),
    }
}

fn read_long_varint(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(4) {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let padded = byte == 0 && at > 0;
            return if padded { Varint::NotMinimal } else { Varint::Whole(value, at + 1) };
        }
    }
    if bytes.len() < 4 { Varint::Incomplete } else { Varint::TooLong }
}

/// How many bytes a variable byte integer takes.
pub(super) const fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Reads the fields of one packet, or of one property list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Violation::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Violation::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Violation> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u32, Violation> {
        match read_varint(self.rest) {
            Varint::Whole(value, len) => {
                self.rest = &self.rest[len..];
                Ok(value)
            }
            Varint::Incomplete => Err(Violation::Truncated),
            Varint::TooLong => Err(Violation::VarintTooLong),
            Varint::NotMinimal => Err(Violation::VarintNotMinimal),
        }
    }

    /// Binary data, or a string before its check: two bytes of length, then the bytes.
    #[inline]
    pub(super) fn data(&mut self) -> Result<&'a [u8], Violation> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Violation> {
        check_text(self.data()?)
    }

    /// Checks a string and goes past it.
    #[inline]
    pub(super) fn skip_text(&mut self) -> Result<(), Violation> {
        check_text_bytes(self.data()?)
    }

    pub(super) fn pair(&mut self) -> Result<(&'a str, &'a str), Violation> {
        // [MQTT-1.5.7-1]
        Ok((self.text()?, self.text()?))
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, Violation> {
        // [MQTT-2.2.1-3]
        PacketId::new(self.u16()?).ok_or(Violation::PacketIdZero)
    }

    pub(super) fn end(self) -> Result<(), Violation> {
        if self.is_empty() { Ok(()) } else { Err(Violation::TrailingBytes) }
    }
}

/// Appends a variable byte integer.
///
/// # Panics
/// If the value is above 268,435,455: no packet can be that long.
#[inline]
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u32) {
    assert!(value <= VARINT_MAX, "{value} does not fit into a variable byte integer");
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends binary data or a string with its length.
///
/// # Panics
/// If it has more than 65,535 bytes.
#[inline]
pub(super) fn write_data(out: &mut Vec<u8>, data: &[u8]) {
    let len = u16::try_from(data.len()).expect("strings and binary data have at most 65,535 bytes");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(data);
}
