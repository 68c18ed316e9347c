//! Bounds are constants, and docs/limits.md and docs/security.md say what they are: who changes one meets the sentence here.

use std::fs::read_to_string;

use super::{check, root};

const LIMITS: &str = "docs/limits.md";
const SECURITY: &str = "docs/security.md";

/// A constant as its file has it, and the sentence about it.
const BOUNDS: &[(&str, &str, &str, &str)] = &[
    ("broker/core/ring.rs", "BYTES_MAX: usize = 32 << 20;", LIMITS, "(`ring.rs`) | 32 MiB |"),
    ("broker/core/row.rs", "MESSAGE_BYTES_MAX: usize = 512;", LIMITS, "(`row.rs`) | 512 bytes for each"),
    ("broker/core/queue.rs", "STEP: usize = 16;", LIMITS, "to within 16 messages and 16 KiB"),
    ("broker/core/queue.rs", "STEP_BYTES: usize = 16 * 1024;", LIMITS, "to within 16 messages and 16 KiB"),
    ("broker/core/queue.rs", "RESERVE: usize = 8;", LIMITS, "The last eighth of both bounds"),
    (
        "broker/core/queue.rs",
        "2 * size_of::<Delivery>();",
        LIMITS,
        "0 is one for each 112 bytes of the memory mark",
    ),
    ("broker/core/deliver.rs", "OUT_BYTES_MAX: usize = 4 << 20;", LIMITS, "(`deliver.rs`) | 4 MiB |"),
    (
        "broker/core/connection.rs",
        "OWED_BYTES_MAX: usize = 256 * 1024;",
        LIMITS,
        "unread (`connection.rs`) | 256 KiB |",
    ),
    ("broker/core/connection.rs", "UNANSWERED_MAX: usize = 65_535;", LIMITS, "(`connection.rs`) | 65,535 |"),
    (
        "broker/core/connection.rs",
        "CONNECT_BYTES_MAX: usize = 640 * 1024;",
        LIMITS,
        "a CONNECT (`connection.rs`) | 640 KiB |",
    ),
    ("broker/handover.rs", "CONNECT_BYTES_MAX: usize = 640 * 1024;", LIMITS, "before CONNECT 640 KiB |"),
    (
        "broker/core/subscribe.rs",
        "SUBSCRIPTION_BYTES_MAX: usize = 16 << 20;",
        LIMITS,
        "(`subscribe.rs`) | 16 MiB |",
    ),
    ("broker/core/subscribe.rs", "LEVELS_MAX: usize = 128;", LIMITS, "levels of a filter | 128 |"),
    (
        "broker/core/publish.rs",
        "ALIASES_BYTES_MAX: usize = 1 << 20;",
        LIMITS,
        "aliases (`publish.rs`) | 1 MiB |",
    ),
    (
        "broker/core/answers.rs",
        "AWAITED_BYTES_MAX: usize = 4 << 20;",
        LIMITS,
        "(`answers.rs`), of a shard | 4 MiB,",
    ),
    ("broker/core/mesh/shows.rs", "STEP_BYTES: usize = 256 * 1024;", LIMITS, "| 1,000 levels, 256 KiB |"),
    ("broker/core/mesh/shows.rs", "UNDER_WAY_MAX: usize = 4;", LIMITS, "waiting for that | 4; 10,000, or"),
    (
        "broker/core/mesh/shows.rs",
        "BEGIN_NODES: usize = 4 * STEP_NODES;",
        LIMITS,
        "at once (`shows.rs`) | 4,000 levels,",
    ),
    (
        "broker/core/mesh/shows.rs",
        "AWAITED_MAX: usize = 100;",
        LIMITS,
        "no more than 100 that wait for that |",
    ),
    ("broker/core/reading.rs", "SUBSCRIBING_MAX: u32 = 16;", LIMITS, "(`reading.rs`) | 16 |"),
    ("broker/core/mesh/shows.rs", "WAITING_MAX: usize = 10_000;", LIMITS, "turn, of a shard | 10,000 |"),
    (
        "broker/core/mesh/shows.rs",
        "SEEN_BYTES_MAX: usize = 4 << 20;",
        LIMITS,
        "(`shows.rs`), of a shard | 4 MiB |",
    ),
    (
        "broker/core/mesh/mod.rs",
        "OUT_BYTES_MAX: usize = 1 << 20;",
        LIMITS,
        "mail between two shards | 1 MiB, and 1 MiB",
    ),
    (
        "broker/core/mesh/office.rs",
        "LEFT_BYTES_MAX: usize = 1 << 20;",
        LIMITS,
        "mail between two shards | 1 MiB, and 1 MiB",
    ),
    (
        "broker/core/durable/mod.rs",
        "STALE_TOPICS_BYTES_MAX: usize = 64 << 20;",
        LIMITS,
        "hear of (`durable/mod.rs`) | 64 MiB |",
    ),
    (
        "broker/core/durable/mod.rs",
        "UNDER_WAY_BYTES_MAX: usize = 16 << 20;",
        LIMITS,
        "store (`durable/mod.rs`) | 16 MiB; 64 MiB |",
    ),
    (
        "broker/core/durable/mod.rs",
        "FLOOD_BYTES: usize = 4 * UNDER_WAY_BYTES_MAX;",
        LIMITS,
        "| 16 MiB; 64 MiB |",
    ),
    ("broker/core/pressure.rs", "SLOW_BYTES: usize = 64 * 1024;", LIMITS, "left more than 64 KiB unread"),
    ("broker/core/pressure.rs", "SHORT_QUEUE_BYTES: usize = 64 * 1024;", LIMITS, "queue beyond 64 KiB"),
    ("broker/core/pressure.rs", "PART_BYTES: usize = 64 * 1024;", LIMITS, "packet with more than 64 KiB"),
    (
        "broker/core/pressure.rs",
        "(Pressure::Closed, 100), (Pressure::Queues, 90), (Pressure::Slow, 80)",
        LIMITS,
        "80 % of the mark",
    ),
    ("broker/core/pressure.rs", "SLACK: u128 = 5;", LIMITS, "A step ends 5 % below where it begins"),
    (
        "broker/mod.rs",
        "LOOK: Duration = Duration::from_millis(100);",
        LIMITS,
        "resident memory ten times a second",
    ),
    (
        "broker/socket.rs",
        "CLOSING_MAX: Duration = Duration::from_secs(2);",
        LIMITS,
        "(`socket.rs`) | 64 MiB, 2 s |",
    ),
    ("broker/socket.rs", "DRAINED_MAX: u32 = 64 << 20;", LIMITS, "(`socket.rs`) | 64 MiB, 2 s |"),
    ("broker/crowd.rs", "HASHING_MAX: usize = 2;", LIMITS, "(`crowd.rs`), of the node | 2, 1,000 |"),
    ("broker/crowd.rs", "WAITING_MAX: usize = 1_000;", LIMITS, "(`crowd.rs`), of the node | 2, 1,000 |"),
    ("broker/crowd.rs", "ADDRESSES_MAX: usize = 10_000;", LIMITS, "remembered (`crowd.rs`) | 10,000 |"),
    ("broker/crowd.rs", "DELAY_MAX: Duration = Duration::from_secs(3);", SECURITY, "up to 3 s;"),
    ("broker/siblings.rs", "ORDERS_MAX: usize = 4_096;", LIMITS, "(`siblings.rs`) | 4,096 |"),
    ("broker/files.rs", "KEPT: usize = 512;", LIMITS, "less 512 or a quarter"),
    (
        "broker/turnstile.rs",
        "LOAD: u32 = 16;",
        LIMITS,
        "of a packet that is not whole after 8 KiB (`turnstile.rs`) | 2 |",
    ),
    (
        "broker/turnstile.rs",
        "TAKE: u32 = 2;",
        LIMITS,
        "for whom more than that waits (`turnstile.rs`) | 16, ",
    ),
    ("broker/socket.rs", "PIECE: usize = 64 * 1024;", LIMITS, "64 KiB for whom more than that waits"),
    ("broker/shard.rs", "READ_BUDGET: usize = 60 * 1024;", LIMITS, "in a turn (`shard.rs`) | 60 KiB;"),
    ("broker/shard.rs", "WORK_PER_BYTE: usize = 16;", LIMITS, "as makes 960 KiB of work: its"),
    ("broker/core/mod.rs", "DELIVERY_BYTES: usize = 64;", LIMITS, "messages' bytes and 64 more, for each"),
    ("broker/core/reading.rs", "FEW_BYTES: usize = 8 * 1024;", LIMITS, "; 8 KiB may make 8 MiB,"),
    ("broker/core/reading.rs", "FEW_MAY_COST: u64 = 8;", LIMITS, "; 8 KiB may make 8 MiB,"),
    ("broker/core/subscribe.rs", "FILTER_COST: u64 = 1024;", LIMITS, "1 KiB for each filter"),
    (
        "broker/core/mesh/mail.rs",
        "MAIL_WORK_MAX: u64 = 4 << 20;",
        LIMITS,
        "(`mesh/mail.rs`) | 4 MiB of work |",
    ),
    ("link/room.rs", "SHARE: usize = 4;", LIMITS, "of all peers together (`link/room.rs`) | a quarter"),
    ("link/route_receiver/mod.rs", "ROUTE_BYTES: usize = 128;", LIMITS, "at 128 bytes each"),
    ("broker/core/pump.rs", "TURN_BYTES: u64 = 1 << 20;", LIMITS, "or acknowledge | 1 MiB; 64 KiB of one"),
    ("broker/core/pump.rs", "PART_BYTES: u64 = 64 * 1024;", LIMITS, "or acknowledge | 1 MiB; 64 KiB of one"),
    (
        "broker/socket.rs",
        "LONG: usize = 8 * 1024;",
        LIMITS,
        "64 KiB more of a packet that is not whole after 8 KiB (`",
    ),
    ("broker/shard.rs", "TICK_BUDGET: usize = 256 * 1024;", LIMITS, "in a turn (`shard.rs`) | 256 KiB |"),
    (
        "broker/shard.rs",
        "READ_BUDGET_MIN: usize = 8 * 1024;",
        LIMITS,
        "the others bring 8 KiB, and an eighth of the work, until",
    ),
    (
        "broker/turnstile.rs",
        "TURN: u32 = 32;",
        LIMITS,
        "(`turnstile.rs`) | 32 steps; a handshake's count 8 |",
    ),
    (
        "broker/turnstile.rs",
        "HANDSHAKE: u32 = 8;",
        LIMITS,
        "(`turnstile.rs`) | 32 steps; a handshake's count 8 |",
    ),
    ("broker/proxy.rs", "LINE_MAX: usize = 107;", LIMITS, "(`proxy.rs`) | 107 bytes;"),
    ("broker/proxy.rs", "BLOCK_MAX: usize = 4096;", LIMITS, "in version 2 4,096 |"),
    (
        "broker/websocket/handshake.rs",
        "REQUEST_BYTES_MAX: usize = 8 * 1024;",
        LIMITS,
        "(`handshake.rs`) | 8 KiB, 64 headers |",
    ),
    (
        "broker/websocket/handshake.rs",
        "HEADERS_MAX: usize = 64;",
        LIMITS,
        "(`handshake.rs`) | 8 KiB, 64 headers |",
    ),
    ("broker/tokens.rs", "TOKEN_BYTES_MAX: usize = 16 * 1024;", LIMITS, "(`tokens.rs`) | 16 KiB |"),
    ("broker/tokens.rs", "LEEWAY_S: u64 = 60;", SECURITY, "with 60 s for clocks that differ"),
    ("broker/scram.rs", "MESSAGE_BYTES_MAX: usize = 4096;", LIMITS, "(`scram.rs`) | 4 KiB |"),
    ("admin/probes.rs", "CONNECTIONS_MAX: usize = 64;", LIMITS, "(`probes.rs`) | 64, 10 s each |"),
    ("admin/listen.rs", "CONNECTIONS_MAX: usize = 64;", LIMITS, "(`listen.rs`) | 64; 128 that"),
    ("admin/listen.rs", "GREETINGS_MAX: usize = 128;", LIMITS, "(`listen.rs`) | 64; 128 that"),
    ("link/route_receiver/mod.rs", "ROUTES_MAX: usize = 4_000_000;", LIMITS, "4,000,000, of 512 MiB"),
    (
        "link/forwarder.rs",
        "IN_FLIGHT_BYTES: usize = 16 * 1024 * 1024;",
        LIMITS,
        "`forwarding.maxInflight`; 16 MiB |",
    ),
];

#[test]
fn bounds_are_what_the_documents_say() {
    let read = |path: String| read_to_string(root().join(&path)).unwrap_or_default();
    let wrong = BOUNDS.iter().filter(|(file, constant, page, sentence)| {
        !read(format!("src/{file}")).contains(constant) || !read((*page).to_owned()).contains(sentence)
    });
    check("a bound and what is said of it", wrong.map(|bound| format!("{bound:?}")).collect());
}
