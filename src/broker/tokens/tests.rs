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
        acl_claim: None,
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

fn with_rsa(
    rsa: &RsaKeyPair,
    algorithm: &str,
    padding: &'static dyn signature::RsaEncoding,
    claims: &Value,
) -> String {
    sign(json!({"alg": algorithm}), claims, |message| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(padding, &SystemRandom::new(), message, &mut signature).expect("a signature");
        signature
    })
}

fn rsa_jwk(rsa: &RsaKeyPair) -> Value {
    // PKCS#1: a sequence of two numbers, the first with a zero before it.
    let der = rsa.public_key().as_ref();
    json!({"kty": "RSA", "n": base64(&der[8..265]), "e": base64(&der[der.len() - 3..])})
}

/// A token with these claims by each kind of key, and the key as JWK.
pub(in crate::broker) fn tokens_of_each_kind(claims: &Value) -> [(String, Value); 6] {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let rsa_jwk = rsa_jwk(&rsa);
    let mut one_of_rsa = rsa_jwk.clone();
    one_of_rsa["alg"] = json!("RS256");
    let ec = |algorithm, name: &str, curve: &str| {
        let pair = EcdsaKeyPair::generate(algorithm).expect("a key");
        let token = sign(json!({"alg": name}), claims, |message| {
            pair.sign(&random, message).expect("a signature").as_ref().to_vec()
        });
        let point = pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(point.len() / 2);
        (token, json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y)}))
    };
    let ed = Ed25519KeyPair::generate().expect("a key");
    let with_ed = sign(json!({"alg": "EdDSA"}), claims, |message| ed.sign(message).as_ref().to_vec());
    [
        (with_rsa(&rsa, "RS256", &signature::RSA_PKCS1_SHA256, claims), one_of_rsa),
        (with_rsa(&rsa, "PS512", &signature::RSA_PSS_SHA512, claims), rsa_jwk),
        ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256"),
        ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384"),
        (with_ed, json!({"kty": "OKP", "crv": "Ed25519", "x": base64(ed.public_key())})),
        (hs256(claims), secret_jwk()),
    ]
}

#[test]
fn each_kind_of_key_verifies_its_own_signatures_and_no_others() {
    let kinds = tokens_of_each_kind(&json!({"sub": "ann", "exp": NOW_S + 60}));
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
fn every_algorithm_of_rsa_and_of_secrets_lets_in() {
    let claims = json!({"sub": "ann", "exp": NOW_S + 60});
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let paddings: [(&str, &'static dyn signature::RsaEncoding); 6] = [
        ("RS256", &signature::RSA_PKCS1_SHA256),
        ("RS384", &signature::RSA_PKCS1_SHA384),
        ("RS512", &signature::RSA_PKCS1_SHA512),
        ("PS256", &signature::RSA_PSS_SHA256),
        ("PS384", &signature::RSA_PSS_SHA384),
        ("PS512", &signature::RSA_PSS_SHA512),
    ];
    for (algorithm, padding) in paddings {
        let token = with_rsa(&rsa, algorithm, padding, &claims);
        assert_eq!(user(&settings(json!([rsa_jwk(&rsa)])), &token), Some("ann".to_owned()), "{algorithm}");
    }
    let jwk = json!({"kty": "oct", "k": base64(SECRET)});
    for algorithm in ["HS256", "HS384", "HS512"] {
        let token = with_secret(json!({"alg": algorithm}), &claims);
        assert_eq!(user(&settings(json!([jwk])), &token), Some("ann".to_owned()), "{algorithm}");
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

fn grants(acl: Value) -> Option<Option<Grants>> {
    let settings = Jwt { acl_claim: Some("acl".to_owned()), ..settings(json!([secret_jwk()])) };
    let claims = json!({"sub": "ann", "exp": NOW_S + 60, "acl": acl});
    let tokens = Tokens::new(&settings).expect("the keys are of use");
    tokens.verify(hs256(&claims).as_bytes(), NOW_S).map(|claims| claims.grants)
}

#[test]
fn a_token_may_say_what_its_bearer_may_do() {
    let one = |action, effect, topic: &str| AccessRule {
        principals: Principals::default(),
        action,
        filters: vec![topic.to_owned()],
        effect,
    };
    assert_eq!(
        grants(json!([
            {"permission": "allow", "action": "publish", "topic": "t/${clientid}"},
            {"permission": "deny", "action": "all", "topic": "#"},
        ])),
        Some(Some(Grants {
            rules: vec![
                one(Action::Publish, Effect::Allow, "t/${clientid}"),
                one(Action::All, Effect::Deny, "#")
            ],
            is_final: false
        }))
    );
    assert_eq!(
        grants(json!({"pub": ["a"], "sub": ["b/#"], "all": []})),
        Some(Some(Grants {
            rules: vec![
                one(Action::Publish, Effect::Allow, "a"),
                one(Action::Subscribe, Effect::Allow, "b/#")
            ],
            is_final: true
        }))
    );
    assert_eq!(grants(json!([])), Some(Some(Grants { rules: Vec::new(), is_final: false })));
    // Nobody asked for the claim: it says nothing.
    let claims = json!({"sub": "ann", "exp": NOW_S + 60, "acl": "whatever"});
    assert!(user(&settings(json!([secret_jwk()])), &hs256(&claims)).is_some());
}

#[test]
fn an_access_list_that_is_not_understood_opens_nothing() {
    let rule = |more: Value| {
        let mut rule = json!({"permission": "allow", "action": "publish", "topic": "t"});
        rule.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!([rule])
    };
    assert!(grants(rule(json!({}))).is_some());
    for acl in [
        json!(null),
        json!("#"),
        json!(7),
        json!([7]),
        json!([{}]),
        json!([{"permission": "allow", "action": "publish"}]),
        rule(json!({"qos": [1]})),
        rule(json!({"retain": false})),
        rule(json!({"ipaddr": "10.0.0.0/8"})),
        rule(json!({"permission": "maybe"})),
        rule(json!({"action": "connect"})),
        rule(json!({"topic": "a/#/b"})),
        rule(json!({"topic": "eq t/#"})),
        rule(json!({"topic": "${cert_common_name}/#"})),
        rule(json!({"topic": ["t"]})),
        json!({"publish": ["t"]}),
        json!({"pub": "t"}),
        json!({"pub": ["a/#/b"]}),
        json!(vec![rule(json!({}))[0].clone(); RULES_MAX + 1]),
    ] {
        assert_eq!(grants(acl.clone()), None, "{acl}");
    }
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der = rsa.public_key().as_ref();
    let (n, jwk) = (&der[8..265], rsa_jwk(&rsa));
    let claims = json!({"sub": "root", "exp": NOW_S + 60});
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n", base64(der));
    let texts: [&[u8]; 6] =
        [n, &n[1..], der, pem.as_bytes(), base64(n).leak().as_bytes(), jwk.to_string().leak().as_bytes()];
    for secret in texts {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let token = sign(json!({"alg": algorithm}), &claims, |message| {
                hmac::sign(&hmac::Key::new(hash(algorithm), secret), message).as_ref().to_vec()
            });
            assert_eq!(user(&settings(json!([jwk])), &token), None, "{algorithm}");
        }
    }
}

#[test]
fn what_a_token_costs_is_bounded_whatever_it_says() {
    let settings = settings(json!([secret_jwk()]));
    let exp = NOW_S + 60;
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let texts = [
        format!(r#"{{"sub": "ann", "exp": {exp}, "x": {deep}}}"#),
        format!(r#"{{"sub": "ann", "exp": {exp}1e400}}"#),
        format!(r#"{{"sub": "{}", "exp": {exp}}}"#, "a".repeat(13_000)),
    ];
    let verdicts = texts.map(|text| {
        let message = format!("{}.{}", base64(r#"{"alg":"HS256"}"#), base64(text));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
        user(&settings, &format!("{message}.{}", base64(signature.as_ref()))).map(|name| name.len())
    });
    assert_eq!(verdicts, [None, None, None], "too deep, no number, longer than a token may be");
    // What would be unpacked elsewhere (RFC 7516) is no token here.
    let packed = json!({"alg": "dir", "enc": "A256GCM", "zip": "DEF"});
    let five_parts = format!("{}..a.b.c", base64(packed.to_string()));
    assert_eq!(user(&settings, &five_parts), None);
    let zip = with_secret(json!({"alg": "HS256", "zip": "DEF"}), &json!({"sub": "ann", "exp": exp}));
    assert_eq!(user(&settings, &zip).as_deref(), Some("ann"), "it is not heeded, so nothing is unpacked");
}

#[test]
fn keys_are_told_apart_by_what_they_are_made_of() {
    let key = |jwk: Value| Tokens::new(&settings(json!([jwk]))).expect("a key").keys.remove(0).mark;
    let first = key(secret_jwk());
    assert_eq!(first, key(json!({"kty": "oct", "k": base64(SECRET), "kid": "another name"})));
    assert_ne!(first, key(json!({"kty": "oct", "k": base64([7; 32])})));
    let tokens = Tokens::new(&settings(json!([secret_jwk()]))).expect("a key");
    assert!(tokens.has_key(first) && !tokens.has_key(first ^ 1));
}
