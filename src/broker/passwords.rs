//! Passwords against stored secrets: what a client showed, and whether it belongs to the secret.
//!
//! Secrets come as PHC strings (argon2), in mosquitto's two formats, or plain. All comparisons take the same time for
//! equal lengths. This is slow on purpose (argon2, PBKDF2) and therefore never called on the shard's thread.

use argon2::Argon2;
use argon2::password_hash::{PasswordVerifier, phc::PasswordHash};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

/// More rounds than this would be an attack on ourselves.
const ROUNDS_MAX: u32 = 10_000_000;

/// True if the secret is compared without hashing, so that no thread is needed for it.
pub(super) fn is_cheap(secret: &str) -> bool {
    secret.starts_with("plain:")
}

/// True if the password belongs to the secret. A secret of unknown form belongs to no password.
pub(super) fn verify(secret: &str, password: &[u8]) -> bool {
    if let Some(plain) = secret.strip_prefix("plain:") {
        return plain.as_bytes().ct_eq(password).into();
    }
    if let Some(rest) = secret.strip_prefix("$7$") {
        return verify_pbkdf2(rest, password).unwrap_or(false);
    }
    if let Some(rest) = secret.strip_prefix("$6$") {
        return verify_sha512(rest, password).unwrap_or(false);
    }
    match PasswordHash::new(secret) {
        Ok(hash) => Argon2::default().verify_password(password, &hash).is_ok(),
        Err(_) => false,
    }
}

/// mosquitto's `$7$rounds$salt$hash`: PBKDF2 with HMAC-SHA-512.
fn verify_pbkdf2(rest: &str, password: &[u8]) -> Option<bool> {
    let (rounds, rest) = rest.split_once('$')?;
    let (salt, wanted) = salt_and_hash(rest)?;
    let rounds = rounds.parse().ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds))?;
    let mut hash = [0; 64];
    pbkdf2::pbkdf2_hmac::<Sha512>(password, &salt, rounds, &mut hash);
    Some(hash[..].ct_eq(&wanted).into())
}

/// mosquitto's older `$6$salt$hash`: one SHA-512 over password and salt.
fn verify_sha512(rest: &str, password: &[u8]) -> Option<bool> {
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
    }

    #[test]
    fn what_is_no_secret_takes_no_password() {
        for secret in
            ["", "correct horse", "$7$", "$7$0$AAAA$AAAA", "$7$99999999999$AAAA$AAAA", "$6$x$y", "$argon2id$"]
        {
            assert!(!verify(secret, b"correct horse"), "{secret}");
            assert!(!verify(secret, b""), "{secret}");
        }
    }
}
