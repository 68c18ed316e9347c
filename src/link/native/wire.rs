//! The primitives of a frame: numbers, byte strings, fields. Nothing here knows what a frame means.
//!
//! A number is an unsigned LEB128 varint in its shortest form. A string is its length as a varint, then its
//! bytes. A field is a tag, a length and that many bytes. The reader borrows from its input and takes no memory.

use crate::link::violation::Violation;

/// The bit of a frame type or field tag that says: whoever does not know it skips it.
pub(super) const OPTIONAL: u8 = 0x80;

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes a varint takes.
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a length and the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a frame from front to back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Reader<'a> {
        Reader { rest: input }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn u8(&mut self) -> Result<u8, Violation> {
        let (&first, rest) = self.rest.split_first().ok_or(Violation::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Violation> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
                return Err(Violation::BadVarint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Violation::BadVarint)
    }

    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], Violation> {
        let len = usize::try_from(len).map_err(|_| Violation::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Violation::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Violation> {
        let len = self.varint()?;
        self.take(len)
    }

    pub(super) fn finish(self) -> Result<(), Violation> {
        if self.rest.is_empty() { Ok(()) } else { Err(Violation::TrailingBytes) }
    }
}

/// One field of a frame's head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    frame: u8,
    pub(super) tag: u8,
    value: &'a [u8],
}

impl<'a> Field<'a> {
    pub(super) fn number(&self) -> Result<u64, Violation> {
        let mut reader = Reader::new(self.value);
        let value = reader.varint()?;
        reader.finish()?;
        Ok(value)
    }

    /// A number that must not exceed `max`.
    pub(super) fn number_up_to(&self, max: u64) -> Result<u64, Violation> {
        let value = self.number()?;
        if value > max { Err(self.bad()) } else { Ok(value) }
    }

    pub(super) fn flag(&self) -> Result<bool, Violation> {
        Ok(self.number_up_to(1)? == 1)
    }

    pub(super) fn text(&self, len_max: usize) -> Result<&'a str, Violation> {
        if self.value.len() > len_max {
            return Err(self.bad());
        }
        std::str::from_utf8(self.value).map_err(|_| Violation::NotUtf8)
    }

    pub(super) fn fixed_u64(&self) -> Result<u64, Violation> {
        self.value.try_into().map(u64::from_be_bytes).map_err(|_| self.bad())
    }

    pub(super) fn bad(&self) -> Violation {
        Violation::BadValue { frame: self.frame, tag: self.tag }
    }

    /// What to do with a field that the reader of this frame does not know.
    pub(super) fn skip(&self) -> Result<(), Violation> {
        if self.tag & OPTIONAL != 0 {
            return Ok(());
        }
        Err(Violation::UnknownField { frame: self.frame, tag: self.tag })
    }

    /// Puts `value` where nothing stood before.
    pub(super) fn once<T>(&self, slot: &mut Option<T>, value: T) -> Result<(), Violation> {
        if slot.replace(value).is_some() {
            return Err(Violation::RepeatedField { frame: self.frame, tag: self.tag });
        }
        Ok(())
    }
}

/// The head of a frame: its type and its fields; what follows them is the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) frame: u8,
    fields: Reader<'a>,
    pub(super) body: &'a [u8],
}

impl<'a> Head<'a> {
    pub(super) fn parse(input: &'a [u8]) -> Result<Head<'a>, Violation> {
        let mut reader = Reader::new(input);
        let frame = reader.u8().map_err(|_| Violation::EmptyFrame)?;
        let fields = Reader::new(reader.bytes()?);
        Ok(Head { frame, fields, body: reader.rest() })
    }

    /// The next field, or None after the last.
    pub(super) fn next_field(&mut self) -> Result<Option<Field<'a>>, Violation> {
        if self.fields.is_empty() {
            return Ok(None);
        }
        let tag = self.fields.u8()?;
        let value = self.fields.bytes()?;
        Ok(Some(Field { frame: self.frame, tag, value }))
    }

    pub(super) fn missing(&self, tag: u8) -> Violation {
        Violation::MissingField { frame: self.frame, tag }
    }

    /// Refuses a body where the frame has none.
    pub(super) fn no_body(&self) -> Result<(), Violation> {
        if self.body.is_empty() { Ok(()) } else { Err(Violation::TrailingBytes) }
    }
}

/// Writes a frame's type and fields; `finish` puts their length in front of them.
#[derive(Debug)]
pub(super) struct HeadWriter {
    frame: u8,
    fields: Vec<u8>,
}

impl HeadWriter {
    pub(super) fn new(frame: u8) -> HeadWriter {
        HeadWriter { frame, fields: Vec::with_capacity(32) }
    }

    pub(super) fn number(mut self, tag: u8, value: u64) -> HeadWriter {
        self.fields.push(tag);
        put_varint(&mut self.fields, varint_len(value) as u64);
        put_varint(&mut self.fields, value);
        self
    }

    /// A number that is left out when it is 0, its default.
    pub(super) fn number_or_default(self, tag: u8, value: u64) -> HeadWriter {
        if value == 0 { self } else { self.number(tag, value) }
    }

    pub(super) fn bytes(mut self, tag: u8, value: &[u8]) -> HeadWriter {
        self.fields.push(tag);
        put_bytes(&mut self.fields, value);
        self
    }

    pub(super) fn finish(self, out: &mut Vec<u8>) {
        out.push(self.frame);
        put_bytes(out, &self.fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<u64, Violation>) {
        assert_eq!(Reader::new(bytes).varint(), expected);
    }

    #[test]
    fn a_number_has_one_form_only() {
        check(&[0], Ok(0));
        check(&[0x7f], Ok(127));
        check(&[0x80, 0x01], Ok(128));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Ok(u64::MAX));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], Err(Violation::BadVarint));
        check(&[0x80, 0x00], Err(Violation::BadVarint));
        check(&[0x80; 11], Err(Violation::BadVarint));
        check(&[0x80], Err(Violation::Truncated));
    }

    #[test]
    fn the_length_of_a_number_is_known_before_it_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            check(&out, Ok(value));
        }
    }
}
