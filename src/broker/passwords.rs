//! Passwords against stored secrets: what a client showed, and whether it belongs to the secret.
//!
//! Secrets come in the forms of [`SecretKind`]. All comparisons take the same time for equal lengths. Hashing is slow on
//! purpose and therefore never done on the shard's thread.

use argon2::Argon2;
use argon2::password_hash::{PasswordVerifier, phc::PasswordHash};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::scram;
use crate::settings::{BCRYPT_COST_MAX, ROUNDS_MAX, SecretKind};

/// The longest hash that is derived for comparison.
const HASH_BYTES_MAX: usize = 64;

/// True if the secret is compared without hashing, so that no thread is needed for it.
pub(super) fn is_cheap(secret: &str) -> bool {
    matches!(SecretKind::split(secret), None | Some((SecretKind::Plain, _)))
}

/// True if the password belongs to the secret. A secret of unknown form belongs to no password.
pub(super) fn verify(secret: &str, password: &[u8]) -> bool {
    let Some((kind, rest)) = SecretKind::split(secret) else { return false };
    let verified = match kind {
        SecretKind::Plain => Some(rest.as_bytes().ct_eq(password).into()),
        SecretKind::Mosquitto7 => verify_mosquitto7(rest, password),
        SecretKind::Mosquitto6 => verify_mosquitto6(rest, password),
        SecretKind::Scram => Some(scram::verify_password(secret, password)),
        SecretKind::Argon2 => verify_argon2(secret, password),
        SecretKind::Bcrypt => verify_bcrypt(secret, password),
        SecretKind::Pbkdf2Sha256 => verify_pbkdf2(rest, |salt, rounds, hash| {
            pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, rounds, hash);
        }),
        SecretKind::Pbkdf2Sha512 => verify_pbkdf2(rest, |salt, rounds, hash| {
            pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, rounds, hash);
        }),
    };
    verified.unwrap_or(false)
}

fn verify_argon2(secret: &str, password: &[u8]) -> Option<bool> {
    let hash = PasswordHash::new(secret).ok()?;
    let [kib, passes, lanes] = ["m", "t", "p"].map(|cost| hash.params.get_decimal(cost));
    let is_bearable = SecretKind::is_bearable_argon2(kib?, passes?, lanes?);
    Some(is_bearable && Argon2::default().verify_password(password, &hash).is_ok())
}

fn verify_bcrypt(secret: &str, password: &[u8]) -> Option<bool> {
    let cost: u32 = secret.split('$').nth(2)?.parse().ok()?;
    (cost <= BCRYPT_COST_MAX && secret.is_ascii()).then(|| bcrypt::verify(password, secret).unwrap_or(false))
}

/// `rounds$salt$hash` of passlib, or `i=rounds,l=length$salt$hash` (PHC); base64 without padding, passlib's with `.` for `+`.
fn verify_pbkdf2(rest: &str, derive: impl FnOnce(&[u8], u32, &mut [u8])) -> Option<bool> {
    let (parameters, rest) = rest.split_once('$')?;
    let (salt, wanted) = rest.split_once('$')?;
    let rounds = parameters.split(',').find_map(|one| one.strip_prefix("i=")).unwrap_or(parameters);
    let rounds = rounds.parse().ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds))?;
    let decode = |text: &str| STANDARD_NO_PAD.decode(text.replace('.', "+")).ok();
    let (salt, wanted) = (decode(salt)?, decode(wanted)?);
    if !(16..=HASH_BYTES_MAX).contains(&wanted.len()) {
        return None;
    }
    let mut hash = [0; HASH_BYTES_MAX];
    let hash = &mut hash[..wanted.len()];
    derive(&salt, rounds, hash);
    Some((*hash).ct_eq(&wanted).into())
}

/// mosquitto's `$7$rounds$salt$hash`: PBKDF2 with HMAC-SHA-512.
fn verify_mosquitto7(rest: &str, password: &[u8]) -> Option<bool> {
    let (rounds, rest) = rest.split_once('$')?;
    let (salt, wanted) = salt_and_hash(rest)?;
    let rounds = rounds.parse().ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds))?;
    let mut hash = [0; 64];
    pbkdf2::pbkdf2_hmac::<Sha512>(password, &salt, rounds, &mut hash);
    Some(hash[..].ct_eq(&wanted).into())
}

/// mosquitto's older `$6$salt$hash`: one SHA-512 over password and salt.
fn verify_mosquitto6(rest: &str, password: &[u8]) -> Option<bool> {
    let (salt, wanted) = salt_and_hash(rest)?;
    let hash = Sha512::new().chain_update(password).chain_update(&salt).finalize();
    Some(hash[..].ct_eq(&wanted).into())
}

fn salt_and_hash(rest: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (salt, hash) = rest.split_once('$')?;
    Some((STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with Python's hashlib and, the last, with cheap parameters by the argon2 crate.
    const MOSQUITTO_7: &str = "$7$101$MDEyMzQ1Njc4OWFi$bGJdXfn6P9jmSY0ZCpIaCSkQ1XayfQBMBwplxxuT8e+N6cR6JaUl22kyOezT4vgFZzRNUODVbwJMCRIfFS1o8A==";
    const MOSQUITTO_6: &str = "$6$MDEyMzQ1Njc4OWFi$vMblpzgCS5oj2lUbBcEO+PGDOv2Ychcm2aCJlOM/97en/aLeFXM5JAedC3UgjydjvghOxFalEDxmI0OHi3Vlsg==";
    const ARGON2: &str =
        "$argon2id$v=19$m=64,t=1,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM";
    const PBKDF2_SHA256: &str =
        "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$cBg8D2DungRB9k76szThf5ehfyBz991ay6PT8Srwk4M";
    const PASSLIB_SHA512: &str = "$pbkdf2-sha512$1000$8PHy8/T19vf4.fr7/P3./w$xqu1f3FSdHbs02z9AocIk0UpBf6S9uqlRTfcS56zkPqTxPMhm.kj4D.e8E9DRlH/uXf/Pe1g59vHIM0MwcvtiA";

    #[track_caller]
    fn check(secret: &str) {
        assert!(verify(secret, b"correct horse"), "{secret}");
        assert!(!verify(secret, b"correct horsf"), "{secret}");
        assert!(!verify(secret, b""), "{secret}");
        assert!(!verify(&secret[..secret.len() - 1], b"correct horse"), "{secret}, cut short");
    }

    #[test]
    fn each_form_of_secret_takes_its_password_and_no_other() {
        check("plain:correct horse");
        check(MOSQUITTO_7);
        check(MOSQUITTO_6);
        check(ARGON2);
        check(PBKDF2_SHA256);
        check(PASSLIB_SHA512);
        let bcrypt = bcrypt::hash("correct horse", 4).expect("a hash");
        for version in ["$2a$", "$2b$", "$2y$"] {
            check(&format!("{version}{}", &bcrypt[4..]));
        }
    }

    #[test]
    fn what_is_no_secret_takes_no_password() {
        for secret in [
            "",
            "correct horse",
            "$7$",
            "$7$0$AAAA$AAAA",
            "$7$99999999999$AAAA$AAAA",
            "$6$x$y",
            "$argon2id$",
            "$argon2id$v=19$m=4294967295,t=1,p=1$LSb9gjRjgHRXoiZmB0GtHA$NmLJ8P9sALgVF2BhBk/xRG5GsYWbZTsETV3M9R3JjBM",
            "$2b$",
            "$2b$31$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuuabcdefghijklm",
            "$2b$04$äöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäö",
            "$pbkdf2-sha256$1$AAAA$",
            "$pbkdf2-sha256$1$AAAA$AAAA",
            "$pbkdf2-sha256$0$AAAA$AAAAAAAAAAAAAAAAAAAAAAAA",
            "$pbkdf2-sha512$i=99999999$AAAA$AAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(!verify(secret, b"correct horse"), "{secret}");
            assert!(!verify(secret, b""), "{secret}");
        }
    }
}
