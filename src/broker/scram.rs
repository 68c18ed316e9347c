//! SCRAM-SHA-256 (RFC 5802 and 7677), the server's side: a client proves that it has the password without showing it.
//!
//! A secret is PostgreSQL's: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, salt and keys in Base64. Nothing here is
//! slow: the client does the hashing. No state is kept between its messages either: what the second step needs of the
//! first is handed back by the caller.
//!
//! Who does not exist looks like one who does: an unknown name gets a salt that is its own and always the same, with the
//! rounds of somebody else's, and fails at the end. Channel binding is not offered; names and passwords are taken as they are, without normalizing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What CONNECT calls it.
pub(super) const METHOD: &str = "SCRAM-SHA-256";
/// What a secret of this kind begins with.
pub(crate) const PREFIX: &str = "SCRAM-SHA-256$";
/// What an unknown user appears to have where no other has a secret.
const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;
/// More rounds than this would be an attack on whoever hashes.
const ITERATIONS_MAX: u32 = 10_000_000;
/// The longest message that is read; a nonce and a name need little.
const MESSAGE_BYTES_MAX: usize = 4096;

type Key = [u8; 32];

/// A user's stored secret.
struct Secret {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

/// What a challenge shows of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Face {
    iterations: u32,
    salt_bytes: usize,
}

impl Default for Face {
    fn default() -> Face {
        Face { iterations: ITERATIONS, salt_bytes: SALT_BYTES }
    }
}

impl Face {
    /// That of a secret, if it is one of SCRAM.
    pub(super) fn of(secret: &str) -> Option<Face> {
        let secret = Secret::parse(secret)?;
        Some(Face { iterations: secret.iterations, salt_bytes: secret.salt.len() })
    }
}

/// The server's first message, and what [`finish`] needs.
pub(super) struct Challenge {
    pub(super) message: String,
    pub(super) context: String,
}

/// A client that proved who it is.
pub(super) struct Proved {
    pub(super) username: String,
    /// The server's last message: it proves that the server knows the secret too.
    pub(super) message: String,
}

/// Answers a client's first message. `nonce` is random and fresh; `decoy` is random and lasting; `secret_of` finds the
/// secret of a user, `face_of` what one who has none appears to have. `None` if the message is not valid.
pub(super) fn begin(
    message: &[u8],
    nonce: &[u8; 18],
    decoy: &Key,
    secret_of: impl Fn(&str) -> Option<String>,
    face_of: impl Fn(&str) -> Face,
) -> Option<Challenge> {
    let first = First::parse(text(message)?)?;
    let secret = secret_of(&first.username).and_then(|secret| Secret::parse(&secret));
    let (salt, iterations) = match secret {
        Some(secret) => (secret.salt, secret.iterations),
        None => {
            let face = face_of(&first.username);
            (decoy_salt(decoy, &first.username, face.salt_bytes), face.iterations)
        }
    };
    let message =
        format!("r={}{},s={},i={iterations}", first.nonce, STANDARD.encode(nonce), STANDARD.encode(salt));
    let context = format!("{}\n{}\n{message}", first.header, first.bare);
    Some(Challenge { message, context })
}

/// A salt for who has none: always the same.
fn decoy_salt(decoy: &Key, username: &str, bytes: usize) -> Vec<u8> {
    let block = |n: usize| hmac(decoy, format!("{n}.{username}").as_bytes());
    (0..bytes.div_ceil(size_of::<Key>())).flat_map(block).take(bytes).collect()
}

/// Checks a client's last message. `None` if it does not prove anything.
pub(super) fn finish(
    message: &[u8],
    context: &str,
    secret_of: impl Fn(&str) -> Option<String>,
) -> Option<Proved> {
    let message = text(message)?;
    let mut parts = context.splitn(3, '\n');
    let (header, bare, challenge) = (parts.next()?, parts.next()?, parts.next()?);
    let username = First::parse(&format!("{header}{bare}"))?.username;
    let secret = secret_of(&username).and_then(|secret| Secret::parse(&secret))?;
    let (signed, proof) = message.rsplit_once(",p=")?;
    let nonce = challenge.strip_prefix("r=")?.split(',').next()?;
    if signed != format!("c={},r={nonce}", STANDARD.encode(header)) {
        return None;
    }
    let signed = format!("{bare},{challenge},{signed}");
    let signature = hmac(&secret.stored_key, signed.as_bytes());
    let proof: Key = STANDARD.decode(proof).ok()?.try_into().ok()?;
    let client_key: Vec<u8> =
        proof.iter().zip(signature).map(|(proof, signature)| proof ^ signature).collect();
    let is_right: bool = Sha256::digest(&client_key)[..].ct_eq(&secret.stored_key).into();
    let own = hmac(&secret.server_key, signed.as_bytes());
    is_right.then(|| Proved { username, message: format!("v={}", STANDARD.encode(own)) })
}

/// True if a password that a client showed belongs to a secret. Slow on purpose.
pub(super) fn verify_password(secret: &str, password: &[u8]) -> bool {
    let Some(secret) = Secret::parse(secret) else { return false };
    let mut salted = Key::default();
    pbkdf2::pbkdf2_hmac::<Sha256>(password, &secret.salt, secret.iterations, &mut salted);
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    stored_key[..].ct_eq(&secret.stored_key).into()
}

/// A client's first message: `n,,n=user,r=nonce`.
struct First<'a> {
    /// What it says of channel binding.
    header: &'a str,
    bare: &'a str,
    username: String,
    nonce: &'a str,
}

impl First<'_> {
    fn parse(message: &str) -> Option<First<'_>> {
        let mut parts = message.splitn(3, ',');
        let (binding, other_name, bare) = (parts.next()?, parts.next()?, parts.next()?);
        // `y`: it could bind the channel and thinks that we cannot, which is right. Acting for others is not known here.
        if !matches!(binding, "n" | "y") || !other_name.is_empty() {
            return None;
        }
        let header = &message[..message.len() - bare.len()];
        let (name, rest) = bare.strip_prefix("n=")?.split_once(',')?;
        let nonce = rest.strip_prefix("r=")?.split(',').next()?;
        let is_nonce = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        is_nonce.then_some(First { header, bare, username: unescape(name)?, nonce })
    }
}

/// `,` and `=` stand as `=2C` and `=3D` in a name.
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut all = parts.next()?.to_owned();
    for part in parts {
        let (character, rest) = match part.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        all.push(character);
        all.push_str(rest);
    }
    (!all.is_empty()).then_some(all)
}

impl Secret {
    fn parse(secret: &str) -> Option<Secret> {
        let (head, keys) = secret.strip_prefix(PREFIX)?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        let iterations = iterations.parse().ok().filter(|count| (1..=ITERATIONS_MAX).contains(count))?;
        let salt = STANDARD.decode(salt).ok()?;
        Some(Secret { iterations, salt, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }
}

/// A message as text, without what would confuse the context.
fn text(message: &[u8]) -> Option<&str> {
    let message = std::str::from_utf8(message).ok()?;
    (message.len() <= MESSAGE_BYTES_MAX && !message.contains(['\n', '\0'])).then_some(message)
}

fn hmac(key: &[u8], data: &[u8]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677's example: user `user`, password `pencil`.
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn secret() -> String {
        let salt = STANDARD.decode(SALT).expect("it is Base64");
        let mut salted = Key::default();
        pbkdf2::pbkdf2_hmac::<Sha256>(b"pencil", &salt, 4096, &mut salted);
        let stored_key = STANDARD.encode(Sha256::digest(hmac(&salted, b"Client Key")));
        let server_key = STANDARD.encode(hmac(&salted, b"Server Key"));
        format!("{PREFIX}4096:{SALT}${stored_key}:{server_key}")
    }

    fn secret_of(name: &str) -> Option<String> {
        (name == "user").then(secret)
    }

    fn context() -> String {
        let (header, bare) = CLIENT_FIRST.split_at(3);
        format!("{header}\n{bare}\n{SERVER_FIRST}")
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted_and_answered() {
        let proved = finish(CLIENT_FINAL.as_bytes(), &context(), secret_of).expect("it is right");
        assert_eq!((proved.username.as_str(), proved.message.as_str()), ("user", SERVER_FINAL));
        assert!(verify_password(&secret(), b"pencil") && !verify_password(&secret(), b"pencils"));
    }

    #[test]
    fn a_changed_byte_anywhere_proves_nothing() {
        for at in 0..CLIENT_FINAL.len() {
            let mut message = CLIENT_FINAL.as_bytes().to_vec();
            message[at] ^= 1;
            assert!(finish(&message, &context(), secret_of).is_none(), "byte {at}");
        }
        assert!(finish(CLIENT_FINAL.as_bytes(), &context(), |_| None).is_none());
        assert!(finish(CLIENT_FINAL.as_bytes(), "", secret_of).is_none());
    }

    #[test]
    fn a_challenge_extends_the_nonce_and_looks_alike_for_who_does_not_exist() {
        let challenge =
            |message: &str| begin(message.as_bytes(), &[7; 18], &[9; 32], secret_of, |_| Face::default());
        let known = challenge(CLIENT_FIRST).expect("it is valid").message;
        let stem = format!("r=rOprNGfwEbeRWgbNEkqO{},s=", STANDARD.encode([7; 18]));
        assert_eq!(known, format!("{stem}{SALT},i=4096"));
        let unknown = challenge("n,,n=nobody,r=x").expect("it is valid").message;
        assert_eq!(unknown.len() + "rOprNGfwEbeRWgbNEkqO".len() - 1, known.len());
        assert_eq!(challenge("n,,n=nobody,r=x").expect("it is valid").message, unknown);
    }

    #[test]
    fn what_is_not_a_first_message_gets_no_challenge() {
        let wrong =
            ["", "n,,", "n,,n=user", "n,,r=x,n=user", "p=tls-unique,,n=user,r=x", "n,a=other,n=user,r=x"];
        let more = ["n,,n=,r=x", "n,,n=a=2,r=x", "n,,n=a=2x,r=x", "n,,n=user,r=", "n,,n=us\ner,r=x"];
        for message in wrong.into_iter().chain(more) {
            assert!(
                begin(message.as_bytes(), &[7; 18], &[9; 32], secret_of, |_| Face::default()).is_none(),
                "{message}"
            );
        }
        let first = First::parse("y,,n=a=2Cb=3Dc,r=x").expect("it is valid");
        assert_eq!(first.username, "a,b=c");
    }
}
