//! What strangers say before they are let in: nothing panics, it does not matter in which pieces it comes, nobody gets in who
//! knows nothing, and what is believed is well formed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqlink_fuzz::broker::doors::{proxy_header, scram_login, signed_token, token, web_socket};
use mqlink_fuzz::mqtt::Filter;

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let [door, piece, says @ ..] = input else { return };
    let piece = usize::from(*piece);
    match door % 6 {
        0 => check_proxy_header(says, piece),
        1 => check_web_socket(says, piece),
        2 => check_web_socket(&[REQUEST, says].concat(), piece),
        3 => assert!(!token(says)),
        4 => check_claims(says),
        _ => {
            let (first, last) = says.split_at(says.len().min(piece));
            let (challenge, is_in) = scram_login(first, last);
            assert!(!is_in, "somebody is in who knows no password");
            assert!(challenge.is_none_or(|text| text.starts_with("r=") && !text.contains('\n')));
        }
    }
});

fn check_proxy_header(says: &[u8], piece: usize) {
    let found = proxy_header(says, piece);
    assert_eq!(found, proxy_header(says, says.len()));
    if let Some((_, left)) = found {
        assert!(says.len() - left <= 16 + 4096);
    }
}

/// What comes before a mistake in the same piece may be lost with it.
fn check_web_socket(says: &[u8], piece: usize) {
    let ((few, told), (all, _)) = (web_socket(says, piece), web_socket(says, says.len()));
    assert!(few.starts_with(&all) || all.starts_with(&few), "another payload in pieces");
    assert!(few.len() <= says.len());
    assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 "));
}

fn check_claims(claims: &[u8]) {
    let Some((username, grants)) = signed_token(claims, 1_800_000_000) else { return };
    assert!(!username.is_empty() && !username.contains('\0'));
    for rule in grants.iter().flat_map(|grants| &grants.rules) {
        assert!(rule.filters.iter().all(|filter| Filter::parse(filter).is_ok()));
    }
}
