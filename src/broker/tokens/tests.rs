//! Tokens of each kind, and those that are none.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::json;

use super::*;

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const NOW_S: u64 = 1_800_000_000;

fn settings(keys: Value) -> Jwt {
    Jwt {
        jwks: json!({ "keys": keys }).to_string(),
        username_claim: "sub".to_owned(),
        issuer: None,
        audience: None,
    }
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn secret_jwk() -> Value {
    json!({"kty": "oct", "k": base64(SECRET), "alg": "HS256", "kid": "one"})
}

fn sign(header: Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    let signature = base64(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn with_secret(header: Value, claims: &Value) -> String {
    let algorithm = hash(header["alg"].as_str().expect("it has one"));
    sign(header, claims, |message| hmac::sign(&hmac::Key::new(algorithm, SECRET), message).as_ref().to_vec())
}

fn hs256(claims: &Value) -> String {
    with_secret(json!({"alg": "HS256"}), claims)
}

#[track_caller]
fn user(settings: &Jwt, token: &str) -> Option<String> {
    let tokens = Tokens::new(settings).expect("the keys are of use");
    tokens.verify(token.as_bytes(), NOW_S).map(|claims| claims.username)
}

#[test]
fn each_kind_of_key_verifies_its_own_signatures_and_no_others() {
    let claims = json!({"sub": "ann", "exp": NOW_S + 60});
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let with_rsa = |algorithm: &str, padding: &'static dyn signature::RsaEncoding| {
        sign(json!({"alg": algorithm}), &claims, |message| {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(padding, &random, message, &mut signature).expect("a signature");
            signature
        })
    };
    // PKCS#1: a sequence of two numbers, the first with a zero before it.
    let der = rsa.public_key().as_ref();
    let rsa_jwk = json!({"kty": "RSA", "n": base64(&der[8..265]), "e": base64(&der[der.len() - 3..])});
    let mut one_of_rsa = rsa_jwk.clone();
    one_of_rsa["alg"] = json!("RS256");
    let ec = |algorithm, name: &str, curve: &str| {
        let pair = EcdsaKeyPair::generate(algorithm).expect("a key");
        let token = sign(json!({"alg": name}), &claims, |message| {
            pair.sign(&random, message).expect("a signature").as_ref().to_vec()
        });
        let point = pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(point.len() / 2);
        (token, json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y)}))
    };
    let ed = Ed25519KeyPair::generate().expect("a key");
    let with_ed = sign(json!({"alg": "EdDSA"}), &claims, |message| ed.sign(message).as_ref().to_vec());
    let kinds = [
        (with_rsa("RS256", &signature::RSA_PKCS1_SHA256), one_of_rsa),
        (with_rsa("PS512", &signature::RSA_PSS_SHA512), rsa_jwk),
        ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256"),
        ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384"),
        (with_ed, json!({"kty": "OKP", "crv": "Ed25519", "x": base64(ed.public_key())})),
        (hs256(&claims), secret_jwk()),
    ];
    for (at, (own, jwk)) in kinds.iter().enumerate() {
        let settings = settings(json!([jwk]));
        for (other, (token, _)) in kinds.iter().enumerate() {
            let is_right = at == other || (at == 1 && other == 0);
            assert_eq!(user(&settings, token), is_right.then(|| "ann".to_owned()), "{jwk}, {other}");
        }
        let [header, payload, signature] =
            parts(own.as_bytes()).expect("a token").map(|part| part.escape_ascii());
        let other = base64(json!({"sub": "root", "exp": NOW_S + 60}).to_string());
        assert_eq!(user(&settings, &format!("{header}.{other}.{signature}")), None);
        assert_eq!(user(&settings, &format!("{header}.{payload}.{}", base64([0; 64]))), None);
    }
}

#[test]
fn a_token_has_a_beginning_an_end_and_a_name() {
    let plain = settings(json!([secret_jwk()]));
    for (claims, expected) in [
        (json!({"sub": "ann", "exp": NOW_S + 60}), Some("ann")),
        (json!({"sub": "ann", "exp": NOW_S as f64 + 0.5}), Some("ann")),
        (json!({"sub": "ann", "exp": NOW_S - 30}), Some("ann")),
        (json!({"sub": "ann", "exp": NOW_S - 60}), None),
        (json!({"sub": "ann", "exp": -1}), None),
        (json!({"sub": "ann"}), None),
        (json!({"sub": "ann", "exp": "tomorrow"}), None),
        (json!({"sub": "ann", "exp": NOW_S + 60, "nbf": NOW_S + 600}), None),
        (json!({"sub": "ann", "exp": NOW_S + 60, "nbf": NOW_S + 30}), Some("ann")),
        (json!({"sub": "ann", "exp": NOW_S + 60, "nbf": "now"}), None),
        (json!({"sub": "", "exp": NOW_S + 60}), None),
        (json!({"sub": 7, "exp": NOW_S + 60}), None),
        (json!({"sub": "a\u{0}b", "exp": NOW_S + 60}), None),
        (json!({"exp": NOW_S + 60}), None),
        (json!([]), None),
    ] {
        assert_eq!(user(&plain, &hs256(&claims)).as_deref(), expected, "{claims}");
    }
    let token = hs256(&json!({"sub": "a", "exp": NOW_S}));
    let claims = Tokens::new(&plain).expect("keys").verify(token.as_bytes(), NOW_S);
    assert_eq!(claims.expect("it is valid").expires_s, NOW_S + LEEWAY_S);
}

#[test]
fn a_token_is_for_whom_the_settings_say() {
    let strict = Jwt {
        username_claim: "name".to_owned(),
        issuer: Some("https://id".to_owned()),
        audience: Some("mqtt".to_owned()),
        ..settings(json!([secret_jwk()]))
    };
    let exp = NOW_S + 60;
    for (claims, expected) in [
        (json!({"name": "ann", "exp": exp, "iss": "https://id", "aud": "mqtt"}), Some("ann")),
        (json!({"name": "ann", "exp": exp, "iss": "https://id", "aud": ["web", "mqtt"]}), Some("ann")),
        (json!({"name": "ann", "exp": exp, "iss": "https://id", "aud": "web"}), None),
        (json!({"name": "ann", "exp": exp, "iss": "https://id", "aud": []}), None),
        (json!({"name": "ann", "exp": exp, "iss": "https://id"}), None),
        (json!({"name": "ann", "exp": exp, "iss": "https://other", "aud": "mqtt"}), None),
        (json!({"name": "ann", "exp": exp, "iss": ["https://id"], "aud": "mqtt"}), None),
        (json!({"name": "ann", "exp": exp, "aud": "mqtt"}), None),
        (json!({"sub": "ann", "exp": exp, "iss": "https://id", "aud": "mqtt"}), None),
    ] {
        assert_eq!(user(&strict, &hs256(&claims)).as_deref(), expected, "{claims}");
    }
}

#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    let settings = settings(json!([secret_jwk()]));
    let claims = json!({"sub": "ann", "exp": NOW_S + 60});
    for (header, expected) in [
        (json!({"alg": "HS256", "kid": "one", "typ": "JWT"}), Some("ann")),
        (json!({"alg": "HS512"}), None),
        (json!({"alg": "HS256", "kid": "two"}), None),
        (json!({"alg": "HS256", "crit": ["b64"]}), None),
    ] {
        assert_eq!(user(&settings, &with_secret(header.clone(), &claims)).as_deref(), expected, "{header}");
    }
    for algorithm in ["none", "hs256", "RS256", ""] {
        let header = json!({"alg": algorithm});
        assert_eq!(user(&settings, &sign(header, &claims, |_| vec![0; 32])), None, "{algorithm}");
    }
    let none = format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(claims.to_string()));
    assert_eq!(user(&settings, &none), None);
    let long = format!("{}.b.c", "a".repeat(TOKEN_BYTES_MAX));
    for nonsense in ["", ".", "..", "a.b.c", "a.b", "a.b.c.d", "a.b.c=", long.as_str()] {
        assert_eq!(user(&settings, nonsense), None);
    }
}

#[test]
fn keys_of_no_use_are_passed_over_unless_there_is_no_other() {
    let short = json!({"kty": "oct", "k": base64("short")});
    let encryption =
        json!({"kty": "RSA", "n": base64([1; 256]), "e": "AQAB", "use": "enc", "alg": "RSA-OAEP"});
    let weak = json!({"kty": "RSA", "n": base64([1; 128]), "e": "AQAB"});
    let other = json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"});
    let wrong = json!({"kty": "oct", "k": base64(SECRET), "alg": "RS256"});
    let token = hs256(&json!({"sub": "ann", "exp": NOW_S + 60}));
    assert!(user(&settings(json!([short, encryption, other, secret_jwk()])), &token).is_some());
    let problem =
        |keys: Value| Tokens::new(&settings(keys)).err().map(|error| error.to_string()).unwrap_or_default();
    for (keys, expected) in [
        (json!([short]), "less than 32 bytes"),
        (json!([encryption]), "not for signatures"),
        (json!([weak]), "less than 2048 bits"),
        (json!([other]), "kind or curve that is not supported"),
        (json!([wrong]), "does not belong to its kind"),
        (json!([{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]), "wrong length"),
        (json!([{"kty": "OKP", "crv": "Ed25519"}]), "lacks a part"),
        (json!([]), "is missing"),
        (json!({}), "is no JWKS document"),
    ] {
        assert!(problem(keys.clone()).contains(expected), "{keys}: {}", problem(keys.clone()));
    }
}
