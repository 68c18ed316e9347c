//! What a peer can do wrong on the wire.
//!
//! A closed list: each case is one way in which a frame breaks docs/link-protocol.md. A violation ends the
//! connection it came on and nothing else; it is never our own mistake and never the network's.

/// A frame, or a frame at this moment, that the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The frame ends before what it announces.
    #[error("the frame ends before what it announces")]
    Truncated,
    /// A varint has more bytes than its value needs, or more than a u64 has.
    #[error("a number is not in its shortest form or is too large")]
    BadVarint,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A frame without a type.
    #[error("the frame is empty")]
    EmptyFrame,
    /// A frame type that is not known and not optional.
    #[error("unknown critical frame type {0:#04x}")]
    UnknownFrame(u8),
    /// A field that is not known and not optional.
    #[error("unknown critical field {tag:#04x} in frame type {frame:#04x}")]
    UnknownField {
        /// The type of the frame.
        frame: u8,
        /// The tag of the field.
        tag: u8,
    },
    /// A field that the frame cannot do without.
    #[error("field {tag:#04x} is missing in frame type {frame:#04x}")]
    MissingField {
        /// The type of the frame.
        frame: u8,
        /// The tag of the field.
        tag: u8,
    },
    /// A field that may stand once stands twice.
    #[error("field {tag:#04x} is repeated in frame type {frame:#04x}")]
    RepeatedField {
        /// The type of the frame.
        frame: u8,
        /// The tag of the field.
        tag: u8,
    },
    /// A field whose value is out of its range.
    #[error("field {tag:#04x} in frame type {frame:#04x} has a value out of range")]
    BadValue {
        /// The type of the frame.
        frame: u8,
        /// The tag of the field.
        tag: u8,
    },
    /// More entries, or more bytes once expanded, than a frame may have.
    #[error("the frame holds more than it may")]
    TooMany,
    /// More routes than there is room for.
    #[error(
        "more routes than there is room for: those of all linked clusters have a quarter of the memory mark"
    )]
    RoutesFull,
    /// Bytes after the end of a frame.
    #[error("bytes after the end of the frame")]
    TrailingBytes,
    /// A front-coded filter refers to more bytes than the one before it has.
    #[error("a filter's prefix is longer than the filter before it")]
    BadPrefix,
    /// Filters of one list that do not ascend.
    #[error("the filters of a list do not ascend")]
    Unsorted,
    /// Something that is not a topic filter, or one that may not cross.
    #[error("not a topic filter that may cross")]
    BadFilter,
    /// A message refers to a topic or property list that the frame does not have.
    #[error("a message refers to a topic or property list that is not in its frame")]
    BadReference,
    /// Flags of a message that have no meaning.
    #[error("reserved flags of a message are set")]
    ReservedFlags,
    /// Something that is not a topic name, or one that may not cross.
    #[error("not a topic name that may cross")]
    BadTopic,
    /// Properties that MQTT does not allow in a message, or that may not cross.
    #[error("not properties that may cross")]
    BadProperties,
    /// The first frame of a connection is not Hello.
    #[error("the first frame is not Hello")]
    FirstFrameNotHello,
    /// A second Hello on one connection.
    #[error("a second Hello on one connection")]
    SecondHello,
    /// A Routes frame whose number is not the one after the last.
    #[error("a Routes frame out of order")]
    RoutesOutOfOrder,
    /// A delta before, or a second bootstrap inside, a bootstrap.
    #[error("a Routes frame that does not fit the state of the bootstrap")]
    RoutesOutOfPlace,
    /// An answer to a Routes frame that was not sent.
    #[error("an answer to a Routes frame that was not sent")]
    RoutesAckAhead,
    /// Messages whose first position leaves a gap after the last one held.
    #[error("a gap in the positions of messages")]
    MessagesGap,
    /// An acknowledgement of positions that were not sent.
    #[error("an acknowledgement of messages that were not sent")]
    MessagesAckAhead,
    /// A first acknowledgement that takes back an earlier one: what lies between is gone.
    #[error("an acknowledgement that takes back an earlier one")]
    MessagesAckBehind,
}
