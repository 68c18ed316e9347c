//! The frames that carry no data: Hello, Refuse, Half, RoutesAck, MessagesAck, Probe, ProbeAck, Bye.
//!
//! Each is a head without a body. Names are bounded here, before anybody keeps them.

use crate::link::refusal::Reason;
use crate::link::violation::Violation;

use super::wire::{Head, HeadWriter};
use super::{BYE, HALF, HELLO, MESSAGES_ACK, PROBE, PROBE_ACK, REFUSE, ROUTES_ACK};

/// Bytes of a cluster's or node's name.
const NAME_LEN_MAX: usize = 255;
/// Bytes of the text of a refusal.
const TEXT_LEN_MAX: usize = 1024;
/// Bytes of one filter of a half's topics.
pub const TOPIC_LEN_MAX: usize = 1024;
/// Filters of a half.
pub const TOPICS_MAX: usize = 64;

/// Who speaks, and what it can do. The first frame each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The lowest version that the speaker can speak.
    pub version_min: u64,
    /// The highest version that the speaker can speak.
    pub version_max: u64,
    /// The speaker's own cluster.
    pub cluster: &'a str,
    /// The speaker's name for the cluster that it speaks to.
    pub target: &'a str,
    /// The speaker's node: the actor of its routes and messages.
    pub node: &'a str,
    /// The actor's incarnation.
    pub incarnation: u64,
    /// Which of several connections between two nodes this is.
    pub index: u64,
    /// Feature bits; a bit that both set is in force.
    pub features: u64,
    /// The largest frame that the speaker takes.
    pub frame_bytes_max: u64,
    /// After how long a silence the actor may be collected, in ms.
    pub ttl_ms: u64,
}

impl<'a> Hello<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        HeadWriter::new(HELLO)
            .number(1, self.version_min)
            .number(2, self.version_max)
            .bytes(3, self.cluster.as_bytes())
            .bytes(4, self.target.as_bytes())
            .bytes(5, self.node.as_bytes())
            .number(6, self.incarnation)
            .number_or_default(7, self.index)
            .number_or_default(8, self.features)
            .number(9, self.frame_bytes_max)
            .number(10, self.ttl_ms)
            .finish(out);
    }

    pub(super) fn decode(mut head: Head<'a>) -> Result<Hello<'a>, Violation> {
        let mut numbers = [None; 11];
        let mut names = [None; 6];
        while let Some(field) = head.next_field()? {
            let tag = usize::from(field.tag);
            match field.tag {
                1 | 2 | 6..=10 => field.once(&mut numbers[tag], field.number()?)?,
                3..=5 => field.once(&mut names[tag], field.text(NAME_LEN_MAX)?)?,
                _ => field.skip()?,
            }
        }
        head.no_body()?;
        let number = |tag: u8| numbers[usize::from(tag)].ok_or(head.missing(tag));
        let name = |tag: u8| names[usize::from(tag)].ok_or(head.missing(tag));
        Ok(Hello {
            version_min: number(1)?,
            version_max: number(2)?,
            cluster: name(3)?,
            target: name(4)?,
            node: name(5)?,
            incarnation: number(6)?,
            index: numbers[7].unwrap_or(0),
            features: numbers[8].unwrap_or(0),
            frame_bytes_max: number(9)?,
            ttl_ms: number(10)?,
        })
    }
}

/// The speaker will not have this connection; it closes it after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refuse<'a> {
    /// Why.
    pub reason: Reason,
    /// What was wrong, for a person.
    pub text: &'a str,
    /// With `OutdatedIncarnation`: the incarnation that the speaker holds.
    pub held: Option<u64>,
}

impl<'a> Refuse<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let head = HeadWriter::new(REFUSE)
            .number(1, self.reason.code())
            .bytes(2, floor(self.text, TEXT_LEN_MAX).as_bytes());
        match self.held {
            Some(held) => head.number(3, held).finish(out),
            None => head.finish(out),
        }
    }

    pub(super) fn decode(mut head: Head<'a>) -> Result<Refuse<'a>, Violation> {
        let (mut reason, mut text, mut held) = (None, None, None);
        while let Some(field) = head.next_field()? {
            match field.tag {
                1 => field.once(&mut reason, field.number()?)?,
                2 => field.once(&mut text, field.text(TEXT_LEN_MAX)?)?,
                3 => field.once(&mut held, field.number()?)?,
                _ => field.skip()?,
            }
        }
        head.no_body()?;
        let reason = Reason::from_code(reason.ok_or(head.missing(1))?);
        Ok(Refuse { reason, text: text.unwrap_or(""), held })
    }
}

/// What the speaker's half says now. Follows Hello, and each change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half<'a> {
    /// Whether the half is in force.
    pub enabled: bool,
    /// What the speaker wants to receive.
    pub topics: Vec<&'a str>,
    /// How many nodes the speaker's cluster has.
    pub nodes: u64,
}

impl<'a> Half<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut head = HeadWriter::new(HALF).number(1, u64::from(self.enabled));
        for topic in &self.topics {
            head = head.bytes(2, topic.as_bytes());
        }
        head.number(3, self.nodes).finish(out);
    }

    pub(super) fn decode(mut head: Head<'a>) -> Result<Half<'a>, Violation> {
        let (mut enabled, mut nodes, mut topics) = (None, None, Vec::new());
        while let Some(field) = head.next_field()? {
            match field.tag {
                1 => field.once(&mut enabled, field.flag()?)?,
                2 if topics.len() == TOPICS_MAX => return Err(Violation::TooMany),
                2 => topics.push(field.text(TOPIC_LEN_MAX)?),
                3 => field.once(&mut nodes, field.number_up_to(u64::from(u32::MAX))?)?,
                _ => field.skip()?,
            }
        }
        head.no_body()?;
        Ok(Half { enabled: enabled.ok_or(head.missing(1))?, topics, nodes: nodes.ok_or(head.missing(3))? })
    }
}

/// What the speaker holds of the other's routes. The first one answers Hello, each further one a Routes frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutesAck {
    /// The number of the last Routes frame that was applied; 0 when there was none.
    pub number: u64,
    /// How many filters are held at that number.
    pub count: u64,
    /// The digest of these filters.
    pub digest: u64,
    /// Whether the speaker needs everything from the beginning.
    pub need_bootstrap: bool,
}

impl RoutesAck {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        HeadWriter::new(ROUTES_ACK)
            .number(1, self.number)
            .number(2, self.count)
            .bytes(3, &self.digest.to_be_bytes())
            .number_or_default(4, u64::from(self.need_bootstrap))
            .finish(out);
    }

    pub(super) fn decode(mut head: Head<'_>) -> Result<RoutesAck, Violation> {
        let (mut number, mut count, mut digest, mut need) = (None, None, None, None);
        while let Some(field) = head.next_field()? {
            match field.tag {
                1 => field.once(&mut number, field.number()?)?,
                2 => field.once(&mut count, field.number()?)?,
                3 => field.once(&mut digest, field.fixed_u64()?)?,
                4 => field.once(&mut need, field.flag()?)?,
                _ => field.skip()?,
            }
        }
        head.no_body()?;
        Ok(RoutesAck {
            number: number.ok_or(head.missing(1))?,
            count: count.ok_or(head.missing(2))?,
            digest: digest.ok_or(head.missing(3))?,
            need_bootstrap: need.unwrap_or(false),
        })
    }
}

/// Up to which position the speaker has taken over the other's messages. The first one answers Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagesAck {
    /// The last position of the actor that was taken over; 0 when there was none.
    pub position: u64,
    /// Which of several streams of the actor.
    pub stream: u64,
}

impl MessagesAck {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        HeadWriter::new(MESSAGES_ACK).number(1, self.position).number_or_default(2, self.stream).finish(out);
    }

    pub(super) fn decode(mut head: Head<'_>) -> Result<MessagesAck, Violation> {
        let (mut position, mut stream) = (None, None);
        while let Some(field) = head.next_field()? {
            match field.tag {
                1 => field.once(&mut position, field.number()?)?,
                2 => field.once(&mut stream, field.number()?)?,
                _ => field.skip()?,
            }
        }
        head.no_body()?;
        Ok(MessagesAck { position: position.ok_or(head.missing(1))?, stream: stream.unwrap_or(0) })
    }
}

/// A question that must come back with the same number, and a sign of life of the speaker's actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Given back unchanged.
    pub id: u64,
}

impl Probe {
    pub(super) fn encode(&self, frame: u8, out: &mut Vec<u8>) {
        debug_assert!(frame == PROBE || frame == PROBE_ACK);
        HeadWriter::new(frame).number(1, self.id).finish(out);
    }

    pub(super) fn decode(mut head: Head<'_>) -> Result<Probe, Violation> {
        let mut id = None;
        while let Some(field) = head.next_field()? {
            match field.tag {
                1 => field.once(&mut id, field.number()?)?,
                _ => field.skip()?,
            }
        }
        head.no_body()?;
        Ok(Probe { id: id.ok_or(head.missing(1))? })
    }
}

/// The speaker ends the connection; nothing follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bye<'a> {
    /// Why.
    pub reason: Reason,
    /// What happened, for a person.
    pub text: &'a str,
}

impl<'a> Bye<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        HeadWriter::new(BYE)
            .number(1, self.reason.code())
            .bytes(2, floor(self.text, TEXT_LEN_MAX).as_bytes())
            .finish(out);
    }

    pub(super) fn decode(mut head: Head<'a>) -> Result<Bye<'a>, Violation> {
        let (mut reason, mut text) = (None, None);
        while let Some(field) = head.next_field()? {
            match field.tag {
                1 => field.once(&mut reason, field.number()?)?,
                2 => field.once(&mut text, field.text(TEXT_LEN_MAX)?)?,
                _ => field.skip()?,
            }
        }
        head.no_body()?;
        Ok(Bye { reason: Reason::from_code(reason.ok_or(head.missing(1))?), text: text.unwrap_or("") })
    }
}

/// The longest beginning of `text` that has at most `len_max` bytes and ends between two characters.
fn floor(text: &str, len_max: usize) -> &str {
    &text[..text.floor_char_boundary(len_max)]
}
