//! The keys of tokens, as a JWKS document has them (RFC 7517, 7518, 8037).
//!
//! What is read here is of use: a node takes exactly these, so who manages it can tell beforehand which document it would
//! refuse. Issuers publish keys for other purposes in the same document; those are left out, but one must be left. Verifies
//! nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// A secret shorter than this is guessed from one token.
const SECRET_BYTES_MIN: usize = 32;
/// 2048 bits: shorter keys of RSA are broken, or nearly.
const MODULUS_BYTES_MIN: usize = 256;

/// Why the keys are of no use. Never quotes the document: it may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error(r#"is no JWKS document (line {0}, column {1}); expected {{"keys": [{{"kty": …}}]}}"#)]
    Json(usize, usize),
    /// What it has is for something else, or too weak.
    #[error("is a JWKS document without a key that is of use; the first {0}")]
    None(&'static str),
}

/// A key that verifies tokens.
#[derive(PartialEq, Eq)]
pub struct TokenKey {
    /// What tokens call it.
    pub id: Option<String>,
    /// What it is made of.
    pub kind: KeyKind,
    /// The one algorithm that it is for; none: all of its kind.
    algorithm: Option<String>,
}

/// What a key is made of.
#[derive(PartialEq, Eq)]
pub enum KeyKind {
    /// Modulus and exponent, of at least 2048 bits.
    Rsa {
        /// The modulus, without zeros before it.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// A point of P-256, uncompressed.
    P256(Vec<u8>),
    /// A point of P-384, uncompressed.
    P384(Vec<u8>),
    /// A public key.
    Ed25519(Vec<u8>),
    /// What issuer and broker share.
    Secret(Vec<u8>),
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

/// A key as the document has it: fields of all kinds, base64 where they are bytes.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

/// Reads the keys that are of use.
///
/// # Errors
/// When there is none.
pub fn token_keys(jwks: &str) -> Result<Vec<TokenKey>, KeysError> {
    let set: Jwks =
        serde_json::from_str(jwks).map_err(|error| KeysError::Json(error.line(), error.column()))?;
    let (keys, problems): (Vec<_>, Vec<_>) = set.keys.iter().map(TokenKey::new).partition(Result::is_ok);
    let keys: Vec<TokenKey> = keys.into_iter().flatten().collect();
    if keys.is_empty() {
        let problem = problems.into_iter().find_map(Result::err);
        return Err(KeysError::None(problem.unwrap_or("is missing")));
    }
    Ok(keys)
}

impl TokenKey {
    fn new(jwk: &Jwk) -> Result<TokenKey, &'static str> {
        if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err("is not for signatures");
        }
        let kind = KeyKind::new(jwk)?;
        if jwk.alg.as_deref().is_some_and(|algorithm| !kind.algorithms().contains(&algorithm)) {
            return Err("has an alg that does not belong to its kind");
        }
        Ok(TokenKey { id: jwk.kid.clone(), kind, algorithm: jwk.alg.clone() })
    }

    /// Whether it verifies by this algorithm.
    pub fn is_for(&self, algorithm: &str) -> bool {
        let may = self.algorithm.as_deref().is_none_or(|own| own == algorithm);
        may && self.kind.algorithms().contains(&algorithm)
    }
}

impl KeyKind {
    fn new(jwk: &Jwk) -> Result<KeyKind, &'static str> {
        let bytes = |field: &Option<String>| {
            let decoded = field.as_ref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            decoded.ok_or("lacks a part, or one is not base64url without padding")
        };
        let point = |length: usize| {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            let fits = x.len() == length && y.len() == length;
            fits.then(|| [&[4], &x[..], &y].concat()).ok_or("has a point of the wrong length")
        };
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let whole =
                    |bytes: Vec<u8>| bytes.into_iter().skip_while(|&byte| byte == 0).collect::<Vec<_>>();
                let (n, e) = (whole(bytes(&jwk.n)?), whole(bytes(&jwk.e)?));
                let fits = n.len() >= MODULUS_BYTES_MIN;
                fits.then_some(KeyKind::Rsa { n, e }).ok_or("has less than 2048 bits")
            }
            ("EC", Some("P-256")) => Ok(KeyKind::P256(point(32)?)),
            ("EC", Some("P-384")) => Ok(KeyKind::P384(point(48)?)),
            ("OKP", Some("Ed25519")) => Ok(KeyKind::Ed25519(bytes(&jwk.x)?)),
            ("oct", _) => {
                let secret = bytes(&jwk.k)?;
                let fits = secret.len() >= SECRET_BYTES_MIN;
                fits.then_some(KeyKind::Secret(secret))
                    .ok_or("is a secret of less than 32 bytes, which is guessed easily")
            }
            _ => Err("is of a kind or curve that is not supported; use RSA, P-256, P-384, Ed25519 or oct"),
        }
    }

    const fn algorithms(&self) -> &'static [&'static str] {
        match self {
            KeyKind::Rsa { .. } => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            KeyKind::P256(_) => &["ES256"],
            KeyKind::P384(_) => &["ES384"],
            KeyKind::Ed25519(_) => &["EdDSA"],
            KeyKind::Secret(_) => &["HS256", "HS384", "HS512"],
        }
    }
}
