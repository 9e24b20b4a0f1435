//! JSON Web Tokens (RFC 7519): HS256/384/512, RS256, ES256 and EdDSA, checked by ring, which TLS needs already.
//!
//! The key says which algorithms it is for, never the token: a token that names another is refused.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{hmac, signature};
use serde::Deserialize;
use tokio_rustls::rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

use super::Grants;

/// The most a token takes.
const TOKEN_MAX: usize = 8 << 10;

/// What tokens are checked with.
#[derive(Clone)]
pub enum Key {
    /// A secret shared with who signs: HS256, HS384, HS512. At least 32 bytes.
    Secret(Vec<u8>),
    /// An RSA public key: RS256.
    Rsa(Vec<u8>),
    /// A P-256 public key: ES256.
    P256(Vec<u8>),
    /// An Ed25519 public key: EdDSA.
    Ed25519(Vec<u8>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A shared secret.
    ///
    /// # Errors
    /// A sentence, when it is shorter than 32 bytes and could be guessed.
    pub fn secret(secret: &str) -> Result<Self, &'static str> {
        if secret.len() < 32 {
            Err("the secret has fewer than 32 bytes")
        } else {
            Ok(Self::Secret(secret.into()))
        }
    }

    /// A public key in PEM (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// A sentence, when it is none, or of a kind that is not known.
    pub fn public(pem: &[u8]) -> Result<Self, &'static str> {
        let info =
            SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_error| "not a public key in PEM")?;
        let (algorithm, key) = split(&info).ok_or("the public key cannot be read")?;
        // The object identifiers of rsaEncryption, prime256v1 and Ed25519, as they stand in the algorithm.
        let names =
            |identifier: &[u8]| algorithm.windows(identifier.len()).any(|window| window == identifier);
        if names(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01]) {
            Ok(Self::Rsa(key.to_vec()))
        } else if names(&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07]) {
            Ok(Self::P256(key.to_vec()))
        } else if names(&[0x2B, 0x65, 0x70]) {
            Ok(Self::Ed25519(key.to_vec()))
        } else {
            Err("the public key is not RSA, P-256 or Ed25519")
        }
    }

    fn verifies(&self, algorithm: &str, message: &[u8], sign: &[u8]) -> bool {
        let public = |kind: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(kind, key).verify(message, sign).is_ok()
        };
        let secret = |kind, key: &[u8]| hmac::verify(&hmac::Key::new(kind, key), message, sign).is_ok();
        match (self, algorithm) {
            (Self::Secret(key), "HS256") => secret(hmac::HMAC_SHA256, key),
            (Self::Secret(key), "HS384") => secret(hmac::HMAC_SHA384, key),
            (Self::Secret(key), "HS512") => secret(hmac::HMAC_SHA512, key),
            (Self::Rsa(key), "RS256") => public(&signature::RSA_PKCS1_2048_8192_SHA256, key),
            (Self::P256(key), "ES256") => public(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Self::Ed25519(key), "EdDSA") => public(&signature::ED25519, key),
            _ => false,
        }
    }
}

/// The algorithm and the key of a SubjectPublicKeyInfo (RFC 5280, 4.1).
fn split(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let (0x30, content, _) = element(info)? else { return None };
    let (0x30, algorithm, rest) = element(content)? else { return None };
    let (0x03, bits, _) = element(rest)? else { return None };
    Some((algorithm, bits.strip_prefix(&[0])?))
}

/// One DER element: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
        if digits.len() > 3 {
            return None;
        }
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((*tag, content, after))
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Claims {
    /// Who it is.
    #[serde(rename = "sub")]
    pub(crate) user: String,
    /// When it ends; seconds since 1970.
    #[serde(rename = "exp", deserialize_with = "seconds")]
    pub(crate) expires: u64,
    /// When it begins.
    #[serde(rename = "nbf", default, deserialize_with = "seconds")]
    begins: u64,
    #[serde(flatten)]
    pub(crate) grants: Grants,
}

/// A NumericDate may have a fraction (RFC 7519, 2).
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates, as it should")]
    Ok(number.as_u64().unwrap_or_else(|| number.as_f64().unwrap_or(0.0) as u64))
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    /// Extensions that must be understood (RFC 7515, 4.1.11): we know none.
    crit: Option<serde_json::Value>,
}

/// What the token says, if it is signed with `key` and in force at `now`, in seconds since 1970.
///
/// # Errors
/// A sentence.
pub(crate) fn verify(token: &str, key: &Key, now: u64) -> Result<Claims, &'static str> {
    const MALFORMED: &str = "the token is malformed";
    if token.len() > TOKEN_MAX {
        return Err("the token is too long");
    }
    let (message, sign) = token.rsplit_once('.').ok_or(MALFORMED)?;
    let (head, body) = message.split_once('.').ok_or(MALFORMED)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_error| MALFORMED);
    let head: Head = serde_json::from_slice(&decode(head)?).map_err(|_error| MALFORMED)?;
    if head.crit.is_some() || !key.verifies(&head.alg, message.as_bytes(), &decode(sign)?) {
        return Err("the token is not signed as it must be");
    }
    let claims: Claims = serde_json::from_slice(&decode(body)?)
        .map_err(|_error| "the token lacks sub or exp, or they are wrong")?;
    if claims.expires <= now {
        return Err("the token has expired");
    }
    if claims.begins > now {
        return Err("the token is not in force yet");
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
    };

    use super::*;

    const SECRET: &str = "a secret that is long enough for it";

    fn token(head: &str, body: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(body));
        let sign = sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign))
    }

    fn signed(head: &str, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        token(head, body, |message| hmac::sign(&key, message).as_ref().to_vec())
    }

    #[test]
    fn a_good_token_says_who_and_what() {
        let token = signed(r#"{"alg":"HS256"}"#, r#"{"sub":"7","exp":100.5,"channels":["a*"]}"#);
        let claims = verify(&token, &Key::secret(SECRET).unwrap(), 99).unwrap();
        assert_eq!((claims.user.as_str(), claims.expires), ("7", 100));
        assert!(claims.grants.may_subscribe("abc") && !claims.grants.may_publish("abc"));
    }

    #[test]
    fn bad_tokens_are_refused() {
        let key = Key::secret(SECRET).unwrap();
        let body = r#"{"sub":"7","exp":100}"#;
        let good = signed(r#"{"alg":"HS256"}"#, body);
        assert!(verify(&good, &key, 99).is_ok());
        assert!(verify(&good, &key, 100).is_err());
        assert!(verify(&good, &Key::secret(&SECRET.repeat(2)).unwrap(), 99).is_err());
        assert!(verify(&good, &Key::Rsa(SECRET.into()), 99).is_err());
        for head in [r#"{"alg":"none"}"#, r#"{"alg":"HS512"}"#, r#"{"alg":"HS256","crit":["x"]}"#, "{}", "x"]
        {
            assert!(verify(&signed(head, body), &key, 99).is_err(), "{head}");
        }
        for body in [r#"{"sub":"7"}"#, r#"{"exp":100}"#, r#"{"sub":"7","exp":100,"nbf":101}"#, "[]"] {
            assert!(verify(&signed(r#"{"alg":"HS256"}"#, body), &key, 99).is_err(), "{body}");
        }
        assert!(verify(&token(r#"{"alg":"none"}"#, body, |_| Vec::new()), &key, 99).is_err());
        assert!(Key::secret("short").is_err());
    }

    /// A SubjectPublicKeyInfo around a key, in PEM.
    fn pem(algorithm: &[u8], key: &[u8]) -> String {
        let mut bits = vec![0x03, u8::try_from(key.len() + 1).unwrap(), 0];
        bits.extend_from_slice(key);
        let mut info = vec![0x30, u8::try_from(algorithm.len() + bits.len()).unwrap()];
        info.extend_from_slice(algorithm);
        info.extend_from_slice(&bits);
        let text = base64::engine::general_purpose::STANDARD.encode(info);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    #[test]
    fn public_keys_verify_what_their_private_ones_sign() {
        let body = r#"{"sub":"7","exp":100}"#;
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let algorithm = [
            0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48,
            0xCE, 0x3D, 0x03, 0x01, 0x07,
        ];
        let key = Key::public(pem(&algorithm, pair.public_key().as_ref()).as_bytes()).unwrap();
        let signed = token(r#"{"alg":"ES256"}"#, body, |m| pair.sign(&random, m).unwrap().as_ref().to_vec());
        assert!(verify(&signed, &key, 99).is_ok());

        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = Key::public(pem(&[0x30, 5, 6, 3, 0x2B, 0x65, 0x70], pair.public_key().as_ref()).as_bytes())
            .unwrap();
        assert!(verify(&signed, &key, 99).is_err());
        let signed = token(r#"{"alg":"EdDSA"}"#, body, |m| pair.sign(m).as_ref().to_vec());
        assert!(verify(&signed, &key, 99).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,60}", bytes: Vec<u8>) {
            prop_assert!(verify(&text, &Key::secret(SECRET).unwrap(), 0).is_err());
            let _answer = split(&bytes);
        }
    }
}
