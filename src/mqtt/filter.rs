//! Topic filters and their algebra: match, intersect, cover, union.
//!
//! A filter is a list of levels, each a literal or `+`, and it may be open (`/#`: zero or more further levels).
//! `#` alone is `+/#`, because a topic has at least one level; `/#` is `/+/#`, because the topic `` does not exist.
//! With these two normalised, covering and intersecting go level by level. A leading wildcard stands for nothing that
//! begins with `$` [MQTT-4.7.2-1].

use super::Violation;
use std::fmt;
use std::sync::Arc;

/// Why a string is not a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FilterError {
    /// [MQTT-4.7.3-1]
    #[error("a topic filter has at least one character")]
    Empty,
    /// [MQTT-4.7.3-3]
    #[error("a topic filter has at most 65,535 bytes")]
    TooLong,
    /// [MQTT-4.7.3-2]
    #[error("a topic filter has no null character")]
    Nul,
    /// [MQTT-4.7.1-1]
    #[error("`#` is a level of its own, and the last: write `a/#`")]
    HashMisplaced,
    /// [MQTT-4.7.1-2]
    #[error("`+` is a level of its own: write `a/+/b`")]
    PlusMisplaced,
    /// [MQTT-4.8.2-1]
    #[error("a shared subscription has a share name: write `$share/name/filter`")]
    ShareNameEmpty,
    /// [MQTT-4.8.2-2]
    #[error("a share name contains no `+` and no `#`: write `$share/name/filter`")]
    ShareNameInvalid,
    /// [MQTT-4.8.2-2]
    #[error("a shared subscription has a topic filter: write `$share/name/filter`")]
    ShareFilterMissing,
    /// Only where the shared form has no place.
    #[error("a shared subscription (`$share/…`) is not allowed here: write its filter alone")]
    Shared,
}

impl FilterError {
    /// What is wrong with a packet that names such a filter. Nothing if only the subscription is: `$share` without a proper
    /// name or without a filter behind it is well-formed, 3.1.1 knows nothing of sharing, and what else the packet asks for
    /// holds. SUBACK refuses it by itself. [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    pub(super) const fn violation(self) -> Option<Violation> {
        match self {
            FilterError::Empty => Some(Violation::FilterEmpty),
            FilterError::TooLong => Some(Violation::FilterTooLong),
            FilterError::Nul => Some(Violation::StringWithNul),
            FilterError::HashMisplaced => Some(Violation::FilterHashMisplaced),
            FilterError::PlusMisplaced => Some(Violation::FilterPlusMisplaced),
            FilterError::ShareNameEmpty
            | FilterError::ShareNameInvalid
            | FilterError::ShareFilterMissing
            | FilterError::Shared => None,
        }
    }
}

const SHARE: &str = "$share/";
const FILTER_BYTES_MAX: usize = u16::MAX as usize;

/// A valid topic filter without share prefix; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter(Arc<str>);

impl Filter {
    /// Makes a filter of a string.
    ///
    /// # Errors
    /// What is wrong with it; a shared form is [`FilterError::Shared`].
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        if text.starts_with(SHARE) {
            return Err(FilterError::Shared);
        }
        check_filter(text)?;
        Ok(Filter(text.into()))
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether the topic matches.
    pub fn matches(&self, topic: &str) -> bool {
        filter_matches(&self.0, topic)
    }

    /// Tells whether the filter has a `+` or a `#`.
    pub fn has_wildcard(&self) -> bool {
        self.0.contains(['+', '#'])
    }

    /// Tells whether every topic that matches `other` matches this filter too.
    pub fn covers(&self, other: &Filter) -> bool {
        if self.leads_with_wildcard() && other.0.starts_with('$') {
            return false;
        }
        let (ours, theirs) = (Shape::of(&self.0), Shape::of(&other.0));
        if theirs.open && !ours.open {
            return false;
        }
        let mut their_levels = theirs.levels();
        for level in ours.levels() {
            match their_levels.next() {
                Some(their) if level == "+" || level == their => {}
                _ => return false,
            }
        }
        ours.open || their_levels.next().is_none()
    }

    /// The filter that exactly the topics match that match both; nothing if there are none.
    pub fn intersect(&self, other: &Filter) -> Option<Filter> {
        if self.covers(other) {
            return Some(other.clone());
        }
        if other.covers(self) {
            return Some(self.clone());
        }
        let apart = |one: &Filter, two: &Filter| one.leads_with_wildcard() && two.0.starts_with('$');
        if apart(self, other) || apart(other, self) {
            return None;
        }
        let (ours, theirs) = (Shape::of(&self.0), Shape::of(&other.0));
        let levels = meet(&ours, &theirs)?;
        let mut text = levels.join("/");
        if ours.open && theirs.open {
            text.push_str("/#");
        }
        (text.len() <= FILTER_BYTES_MAX).then(|| Filter(text.into())) // a longer one matches no topic
    }

    fn leads_with_wildcard(&self) -> bool {
        self.0.starts_with(['+', '#'])
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A filter's levels without a final `#`, and whether there was one.
struct Shape<'a> {
    head: &'a str,
    open: bool,
}

impl<'a> Shape<'a> {
    fn of(filter: &'a str) -> Shape<'a> {
        match filter {
            "#" => Shape { head: "+", open: true },
            "/#" => Shape { head: "/+", open: true },
            _ => match filter.strip_suffix("/#") {
                Some(head) => Shape { head, open: true },
                None => Shape { head: filter, open: false },
            },
        }
    }

    fn levels(&self) -> std::str::Split<'a, char> {
        self.head.split('/')
    }
}

/// The levels that both shapes allow: where one is open, it takes over what the other says.
fn meet<'a>(one: &Shape<'a>, two: &Shape<'a>) -> Option<Vec<&'a str>> {
    let (mut ones, mut twos) = (one.levels(), two.levels());
    let mut levels = Vec::new();
    loop {
        levels.push(match (ones.next(), twos.next()) {
            (Some("+"), Some(level)) | (Some(level), Some("+")) => level,
            (Some(level), Some(other)) if level == other => level,
            (Some(level), None) if two.open => level,
            (None, Some(level)) if one.open => level,
            (None, None) => return Some(levels),
            _ => return None,
        });
    }
}

/// Tells whether a topic matches a filter, both valid. Topics with `$` are not matched by a leading wildcard.
///
/// It goes byte by byte, which for levels of a few bytes is five times as fast as level by level.
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false; // [MQTT-4.7.2-1]
    }
    let (mut filter, mut topic) = (filter.as_bytes(), topic.as_bytes());
    loop {
        match (filter, topic) {
            ([b'#', ..], _) => return true,
            ([b'+', rest @ ..], _) => {
                let level = topic.iter().position(|&byte| byte == b'/').unwrap_or(topic.len());
                (filter, topic) = (rest, &topic[level..]);
            }
            ([byte, rest @ ..], [other, topic_rest @ ..]) if byte == other => {
                (filter, topic) = (rest, topic_rest);
            }
            (b"/#" | b"", []) => return true, // `a/#` matches `a` too
            _ => return false,
        }
    }
}

/// The smallest list of filters that matches the same topics filter by filter: sorted, and none that another covers.
pub fn union(filters: impl IntoIterator<Item = Filter>) -> Vec<Filter> {
    let mut all: Vec<Filter> = filters.into_iter().collect();
    all.sort_unstable();
    all.dedup();
    let covering: Vec<Filter> = all.iter().filter(|filter| filter.has_wildcard()).cloned().collect();
    // Of two that cover each other (`#` and `+/#`) the first in order stays.
    all.retain(|filter| {
        let redundant =
            |by: &Filter| by != filter && by.covers(filter) && (!filter.covers(by) || by < filter);
        !covering.iter().any(redundant)
    });
    all
}

/// The filter of a shared subscription, `$share/group/filter`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SharedFilter {
    /// The share name: not empty, no `/`, `+` or `#`.
    pub group: Arc<str>,
    /// What its members share.
    pub filter: Filter,
}

impl SharedFilter {
    /// Makes a shared filter of `$share/group/filter`.
    ///
    /// # Errors
    /// What is wrong with it; a filter without `$share/` lacks its share name.
    pub fn parse(text: &str) -> Result<SharedFilter, FilterError> {
        let shared = text.strip_prefix(SHARE).ok_or(FilterError::ShareNameEmpty)?;
        let (group, filter) = split_shared(shared)?;
        check_length(text)?;
        Ok(SharedFilter { group: group.into(), filter: Filter(filter.into()) })
    }
}

impl fmt::Display for SharedFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SHARE}{}/{}", self.group, self.filter)
    }
}

/// Makes of a subscription's text its share group, if any, and its filter.
///
/// # Errors
/// What is wrong with it.
pub fn parse_subscription(text: &str) -> Result<(Option<Arc<str>>, Filter), FilterError> {
    if text.starts_with(SHARE) {
        let shared = SharedFilter::parse(text)?;
        return Ok((Some(shared.group), shared.filter));
    }
    Ok((None, Filter::parse(text)?))
}

/// Checks a filter of a SUBSCRIBE or UNSUBSCRIBE without keeping it, and tells whether it is shared.
pub(super) fn check_requested(text: &str) -> Result<bool, Violation> {
    let shared = text.strip_prefix(SHARE);
    let checked = match shared {
        Some(shared) => check_length(text).and_then(|()| split_shared(shared).map(drop)),
        None => check_filter(text),
    };
    match checked.err().and_then(FilterError::violation) {
        Some(violation) => Err(violation),
        None => Ok(shared.is_some()),
    }
}

/// Splits `group/filter` and checks both. [MQTT-4.8.2-1] [MQTT-4.8.2-2]
fn split_shared(shared: &str) -> Result<(&str, &str), FilterError> {
    let (group, filter) = shared.split_once('/').unwrap_or((shared, ""));
    if group.is_empty() {
        return Err(FilterError::ShareNameEmpty);
    }
    if group.contains(['+', '#']) {
        return Err(FilterError::ShareNameInvalid);
    }
    if group.contains('\0') {
        return Err(FilterError::Nul);
    }
    if filter.is_empty() {
        return Err(FilterError::ShareFilterMissing);
    }
    check_filter(filter)?;
    Ok((group, filter))
}

fn check_length(text: &str) -> Result<(), FilterError> {
    if text.len() > FILTER_BYTES_MAX { Err(FilterError::TooLong) } else { Ok(()) }
}

fn check_filter(text: &str) -> Result<(), FilterError> {
    if text.is_empty() {
        return Err(FilterError::Empty);
    }
    check_length(text)?;
    if text.contains('\0') {
        return Err(FilterError::Nul);
    }
    let mut levels = text.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(FilterError::HashMisplaced);
        }
        if level.contains('+') && level != "+" {
            return Err(FilterError::PlusMisplaced);
        }
    }
    Ok(())
}
