//! The Routes frame: filters added and filters deleted, each list sorted and front-coded.
//!
//! A list is its count, then for each filter how many bytes it shares with the one before, and the bytes that
//! differ. Front-coding lets a few bytes stand for many, so what a list expands to is bounded as well as its
//! length: a reader never holds more than one filter, and refuses a frame that expands beyond the bound.

use crate::link::violation::Violation;
use crate::mqtt::Filter;

use super::ROUTES;
use super::wire::{Head, HeadWriter, Reader, put_bytes, put_varint};

/// Filters in one list.
pub const FILTERS_MAX: usize = 8192;
/// Bytes of all filters of one list, written out.
pub const EXPANDED_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one filter, as in MQTT.
const FILTER_LEN_MAX: usize = 65_535;

/// A step of route replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routes<'a> {
    /// One more than that of the frame before.
    pub number: u64,
    /// The first frame of a bootstrap: what was said before does not count any more.
    pub begin: bool,
    /// The last frame of a bootstrap: what was not said since `begin` goes.
    pub end: bool,
    /// Filters that are wanted from now on.
    pub add: FilterList<'a>,
    /// Filters that are not wanted any more.
    pub delete: FilterList<'a>,
}

impl<'a> Routes<'a> {
    pub(super) fn decode(mut head: Head<'a>) -> Result<Routes<'a>, Violation> {
        let (mut number, mut flags) = (None, None);
        while let Some(field) = head.next_field()? {
            match field.tag {
                1 => field.once(&mut number, field.number()?)?,
                2 => field.once(&mut flags, field.number_up_to(3)?)?,
                _ => field.skip()?,
            }
        }
        let number = number.ok_or(head.missing(1))?;
        let flags = flags.unwrap_or(0);
        let mut body = Reader::new(head.body);
        let add = FilterList::parse(&mut body)?;
        let delete = FilterList::parse(&mut body)?;
        body.finish()?;
        Ok(Routes { number, begin: flags & 1 != 0, end: flags & 2 != 0, add, delete })
    }
}

/// A list of filters that has been checked but not expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterList<'a> {
    count: usize,
    coded: &'a [u8],
}

impl<'a> FilterList<'a> {
    fn parse(reader: &mut Reader<'a>) -> Result<FilterList<'a>, Violation> {
        let count = usize::try_from(reader.varint()?).map_err(|_| Violation::TooMany)?;
        if count > FILTERS_MAX {
            return Err(Violation::TooMany);
        }
        let whole = reader.rest();
        let mut current = Vec::new();
        let mut expanded = 0;
        for index in 0..count {
            let ascends = next(reader, &mut current)?;
            expanded += current.len();
            if expanded > EXPANDED_BYTES_MAX {
                return Err(Violation::TooMany);
            }
            if index > 0 && !ascends {
                return Err(Violation::Unsorted);
            }
            std::str::from_utf8(&current).map_err(|_| Violation::NotUtf8)?;
        }
        let len = whole.len() - reader.rest().len();
        Ok(FilterList { count, coded: &whole[..len] })
    }

    /// How many filters.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Calls `f` with each filter, in ascending order.
    pub fn for_each(&self, mut f: impl FnMut(&str)) {
        let mut reader = Reader::new(self.coded);
        let mut current = Vec::new();
        for _ in 0..self.count {
            next(&mut reader, &mut current).expect("the list was checked when it was parsed");
            f(std::str::from_utf8(&current).expect("the list was checked when it was parsed"));
        }
    }
}

/// Turns `current` into the filter that follows it; true when it is greater.
fn next(reader: &mut Reader<'_>, current: &mut Vec<u8>) -> Result<bool, Violation> {
    let shared = usize::try_from(reader.varint()?).map_err(|_| Violation::BadPrefix)?;
    let suffix = reader.bytes()?;
    if shared > current.len() {
        return Err(Violation::BadPrefix);
    }
    if shared + suffix.len() > FILTER_LEN_MAX {
        return Err(Violation::TooMany);
    }
    let ascends = current[shared..] < *suffix;
    current.truncate(shared);
    current.extend_from_slice(suffix);
    Ok(ascends)
}

/// Appends a Routes frame. Both lists ascend.
pub fn encode_routes(
    number: u64,
    (begin, end): (bool, bool),
    add: &[Filter],
    delete: &[Filter],
    out: &mut Vec<u8>,
) {
    let flags = u64::from(begin) | u64::from(end) << 1;
    HeadWriter::new(ROUTES).number(1, number).number_or_default(2, flags).finish(out);
    put_list(add, out);
    put_list(delete, out);
}

fn put_list(filters: &[Filter], out: &mut Vec<u8>) {
    put_varint(out, filters.len() as u64);
    let mut last: &[u8] = &[];
    for filter in filters {
        let filter = filter.as_str().as_bytes();
        let shared = last.iter().zip(filter).take_while(|(a, b)| a == b).count();
        put_varint(out, shared as u64);
        put_bytes(out, &filter[shared..]);
        last = filter;
    }
}
