//! The forms in which a user's secret may stand in the settings, told apart by their beginnings.
//!
//! A secret that was cut short or mistyped would let nobody in, and nobody would know why: [`SecretKind::check`] says so before
//! it is used. What is more work than anybody should be able to ask for with a password is refused there too.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// More rounds than this would be an attack on ourselves.
pub const ROUNDS_MAX: u32 = 10_000_000;
/// Likewise for bcrypt, whose cost is an exponent: about a minute.
pub const BCRYPT_COST_MAX: u32 = 20;
/// Likewise for argon2: 1 GiB, in KiB.
const ARGON2_KIB_MAX: u32 = 1 << 20;
/// And so much over all passes, in KiB: some seconds.
const ARGON2_WORK_MAX: u64 = 4 << 20;
/// And in so many lanes; RFC 9106 recommends four.
const ARGON2_LANES_MAX: u32 = 64;

/// How a secret is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// `plain:` and the password itself.
    Plain,
    /// `$7$rounds$salt$hash` of mosquitto_passwd: PBKDF2 with SHA-512.
    Mosquitto7,
    /// `$6$salt$hash` of older ones: SHA-512, once.
    Mosquitto6,
    /// `$argon2id$…`, `$argon2i$…`, `$argon2d$…` (PHC).
    Argon2,
    /// `$2a$…`, `$2b$…`, `$2y$…`.
    Bcrypt,
    /// `$pbkdf2-sha256$…` (PHC and passlib).
    Pbkdf2Sha256,
    /// `$pbkdf2-sha512$…` (PHC and passlib).
    Pbkdf2Sha512,
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as PostgreSQL writes it: for clients that authenticate by SCRAM,
    /// and good for a password too.
    Scram,
}

impl SecretKind {
    /// What a secret may begin with, and what that means.
    const BEGINNINGS: &'static [(&'static str, SecretKind)] = &[
        ("plain:", SecretKind::Plain),
        ("$7$", SecretKind::Mosquitto7),
        ("$6$", SecretKind::Mosquitto6),
        ("$argon2", SecretKind::Argon2),
        ("$2a$", SecretKind::Bcrypt),
        ("$2b$", SecretKind::Bcrypt),
        ("$2y$", SecretKind::Bcrypt),
        ("$pbkdf2-sha256$", SecretKind::Pbkdf2Sha256),
        ("$pbkdf2-sha512$", SecretKind::Pbkdf2Sha512),
        ("SCRAM-SHA-256$", SecretKind::Scram),
    ];
    /// What [`SecretKind::split`] accepts, for those who wrote something else.
    const EXPECTED: &'static str = "expected $argon2id$…, $2b$… (bcrypt), $pbkdf2-sha256$… or $pbkdf2-sha512$…, $7$… or \
                                        $6$… (mosquitto_passwd), SCRAM-SHA-256$… (PostgreSQL), or plain: and the password";

    /// The kind of a secret, and what follows its beginning; `None` for an unknown kind, or where nothing follows.
    pub fn split(secret: &str) -> Option<(SecretKind, &str)> {
        let find = |(start, kind): &(&str, SecretKind)| Some((*kind, secret.strip_prefix(start)?));
        Self::BEGINNINGS.iter().find_map(find).filter(|(_, rest)| !rest.is_empty())
    }

    /// True if an argon2 hash of these costs is one that we make.
    pub fn is_bearable_argon2(kib: u32, passes: u32, lanes: u32) -> bool {
        (1..=ARGON2_LANES_MAX).contains(&lanes)
            && passes >= 1
            && kib <= ARGON2_KIB_MAX
            && u64::from(kib) * u64::from(passes) <= ARGON2_WORK_MAX
    }

    /// Checks that a secret is whole.
    ///
    /// # Errors
    /// What is wrong with it and what is expected; never the secret itself.
    pub fn check(secret: &str) -> Result<(), String> {
        let Some((kind, rest)) = Self::split(secret) else {
            return Err(format!("is of no known kind; {}", Self::EXPECTED));
        };
        let (is_whole, form) = match kind {
            SecretKind::Plain => (true, ""),
            SecretKind::Mosquitto7 => {
                (is_mosquitto7(rest), "$7$rounds$salt$hash in Base64, 64 bytes of hash")
            }
            SecretKind::Mosquitto6 => (is_salt_and_hash(rest), "$6$salt$hash in Base64, 64 bytes of hash"),
            SecretKind::Argon2 => (
                is_argon2(secret),
                "$argon2id$v=19$m=…,t=…,p=…$salt$hash with at most 64 lanes, 1 GiB of memory, and 4 GiB over all passes (m times t)",
            ),
            SecretKind::Bcrypt => (is_bcrypt(rest), "$2b$, a cost from 04 to 20, `$` and 53 more characters"),
            SecretKind::Pbkdf2Sha256 | SecretKind::Pbkdf2Sha512 => {
                (is_pbkdf2(rest), "i=rounds,l=length$salt$hash or rounds$salt$hash, 16 to 64 bytes of hash")
            }
            SecretKind::Scram => (is_scram(rest), "SCRAM-SHA-256$rounds:salt$StoredKey:ServerKey in Base64"),
        };
        match is_whole {
            true => Ok(()),
            false => Err(format!("is cut short or mistyped; expected {form}: make it anew")),
        }
    }
}

fn is_rounds(text: &str) -> bool {
    text.parse().is_ok_and(|rounds: u32| (1..=ROUNDS_MAX).contains(&rounds))
}

fn is_mosquitto7(rest: &str) -> bool {
    rest.split_once('$').is_some_and(|(rounds, rest)| is_rounds(rounds) && is_salt_and_hash(rest))
}

fn is_salt_and_hash(rest: &str) -> bool {
    let Some((salt, hash)) = rest.split_once('$') else { return false };
    STANDARD.decode(salt).is_ok() && STANDARD.decode(hash).is_ok_and(|hash| hash.len() == 64)
}

fn is_argon2(secret: &str) -> bool {
    let parts: Vec<&str> = secret.split('$').skip(1).collect();
    let (kind, rest) = match &parts[..] {
        [kind, version, rest @ ..] if ["v=16", "v=19"].contains(version) => (kind, rest),
        [kind, rest @ ..] => (kind, rest),
        [] => return false,
    };
    let &[costs, salt, hash] = rest else { return false };
    let cost = |name: &str| costs.split(',').find_map(|one| one.strip_prefix(name)?.parse::<u32>().ok());
    let costs = [cost("m="), cost("t="), cost("p=")];
    let is_bearable = matches!(costs, [Some(kib), Some(passes), Some(lanes)] if SecretKind::is_bearable_argon2(kib, passes, lanes));
    let long_enough = |text: &str, min| STANDARD_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() >= min);
    ["argon2id", "argon2i", "argon2d"].contains(kind)
        && is_bearable
        && long_enough(salt, 8)
        && long_enough(hash, 10)
}

fn is_bcrypt(rest: &str) -> bool {
    let Some((cost, hash)) = rest.split_once('$') else { return false };
    let is_cost =
        cost.len() == 2 && cost.parse().is_ok_and(|cost: u32| (4..=BCRYPT_COST_MAX).contains(&cost));
    let in_hash = |byte: u8| byte.is_ascii_alphanumeric() || b"./".contains(&byte);
    is_cost && hash.len() == 53 && hash.bytes().all(in_hash)
}

fn is_pbkdf2(rest: &str) -> bool {
    let parts: Vec<&str> = rest.split('$').collect();
    let &[parameters, salt, hash] = &parts[..] else { return false };
    let rounds = parameters.split(',').find_map(|one| one.strip_prefix("i=")).unwrap_or(parameters);
    let decode = |text: &str| STANDARD_NO_PAD.decode(text.replace('.', "+"));
    is_rounds(rounds)
        && decode(salt).is_ok()
        && decode(hash).is_ok_and(|hash| (16..=64).contains(&hash.len()))
}

fn is_scram(rest: &str) -> bool {
    let Some((head, keys)) = rest.split_once('$') else { return false };
    let (Some((rounds, salt)), Some((stored, server))) = (head.split_once(':'), keys.split_once(':')) else {
        return false;
    };
    let is_key = |text: &str| STANDARD.decode(text).is_ok_and(|key| key.len() == 32);
    is_rounds(rounds) && STANDARD.decode(salt).is_ok() && is_key(stored) && is_key(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH_64: &str =
        "bGJdXfn6P9jmSY0ZCpIaCSkQ1XayfQBMBwplxxuT8e+N6cR6JaUl22kyOezT4vgFZzRNUODVbwJMCRIfFS1o8A==";
    const KEY_32: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    #[test]
    fn what_is_whole_is_taken_and_each_mistake_is_named_without_the_secret() {
        let bcrypt = "abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK";
        let whole = [
            "plain:x".to_owned(),
            format!("$7$101$MDEyMzQ1Njc4OWFi${HASH_64}"),
            format!("$6$MDEyMzQ1Njc4OWFi${HASH_64}"),
            "$argon2id$v=19$m=64,t=1,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM"
                .to_owned(),
            "$argon2id$v=19$m=1048576,t=4,p=64$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM"
                .to_owned(),
            format!("$2b$04${bcrypt}"),
            "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$cBg8D2DungRB9k76szThf5ehfyBz991ay6PT8Srwk4M"
                .to_owned(),
            "$pbkdf2-sha256$1000$MDEyMzQ1Njc4OWFiY2RlZg$cBg8D2DungRB9k76szThf5ehfyBz991ay6PT8Srwk4M"
                .to_owned(),
            format!("SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFi${KEY_32}:{KEY_32}"),
        ];
        for secret in &whole {
            assert_eq!(SecretKind::check(secret), Ok(()), "{secret}");
        }
        for secret in &whole[1..] {
            let cut = &secret[..secret.len() - 30];
            let problem = SecretKind::check(cut).expect_err(cut);
            assert!(problem.contains("expected") && !problem.contains(&cut[cut.len() - 10..]), "{problem}");
        }
        for wrong in [
            "",
            "hunter2",
            "plain:",
            "$7$0$AAAA$AAAA",
            "$7$99999999999$MDEyMzQ1Njc4OWFi$AAAA",
            "$6$x$y",
            "$argon2id$",
            "$argon2x$v=19$m=64,t=1,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
            "$argon2id$v=19$m=4294967295,t=1,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
            "$argon2id$v=19$m=64,t=4294967295,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
            "$argon2id$v=19$m=1048576,t=5,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
            "$argon2id$v=19$m=64,t=0,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
            "$argon2id$v=19$m=1048576,t=1,p=65$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
            "$argon2id$v=19$m=64,t=1,p=0$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
            "$2b$31$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuuabcdefghijklm",
            "$2b$04$äöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäö",
            "$pbkdf2-sha256$1$AAAA$",
            "$pbkdf2-sha512$i=99999999$AAAA$AAAAAAAAAAAAAAAAAAAAAAAA",
            "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
        ] {
            let problem = SecretKind::check(wrong).expect_err(wrong);
            assert!(problem.contains("expected") && !problem.contains("hunter2"), "{wrong}: {problem}");
        }
    }
}
