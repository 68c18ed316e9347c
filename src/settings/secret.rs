//! The forms in which a user's secret may stand in the settings, told apart by their beginnings.

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
    pub const EXPECTED: &'static str = "expected $argon2id$…, $2b$… (bcrypt), $pbkdf2-sha256$… or $pbkdf2-sha512$…, $7$… or \
                                        $6$… (mosquitto_passwd), SCRAM-SHA-256$… (PostgreSQL), or plain: and the password";

    /// The kind of a secret, and what follows its beginning; `None` for an unknown kind, or where nothing follows.
    pub fn split(secret: &str) -> Option<(SecretKind, &str)> {
        let find = |(start, kind): &(&str, SecretKind)| Some((*kind, secret.strip_prefix(start)?));
        Self::BEGINNINGS.iter().find_map(find).filter(|(_, rest)| !rest.is_empty())
    }
}
