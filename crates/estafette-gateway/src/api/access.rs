//! Who may use the management API: users with roles, known by HTTP Basic and by where they come from.

use std::{fmt, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use subtle::{Choice, ConstantTimeEq as _};

/// What a user may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles {
    /// Consume queues, look at metrics.
    pub read: bool,
    /// Send, publish, and call functions of connections.
    pub write: bool,
}

impl Roles {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true };
}

/// One who may use the management API.
///
/// A user whose name and password are both empty stands for those who send no credentials, as the published clients do:
/// let its `host` name your own networks.
#[derive(Clone)]
pub struct User {
    /// The name, without a colon.
    pub username: String,
    /// The password.
    pub password: String,
    /// What is permitted.
    pub roles: Roles,
    /// The addresses it may come from: `*` stands for any characters, as in `172.*.*.*`.
    pub host: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { username, password: _, roles, host } = self;
        let mut user = f.debug_struct("User");
        user.field("username", username).field("roles", roles).field("host", host).finish_non_exhaustive()
    }
}

/// The users; without any, everybody who reaches the API may do everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    users: Vec<User>,
}

impl Access {
    pub(crate) fn new(users: Vec<User>) -> Self {
        Self { users }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.users.is_empty()
    }

    /// What one from `peer` with this `Authorization` header may do; `None`: nobody we know.
    ///
    /// Takes the same time whichever users there are and however much of a secret was right.
    pub(crate) fn roles(&self, authorization: Option<&str>, peer: IpAddr) -> Option<Roles> {
        if self.is_open() {
            return Some(Roles::ALL);
        }
        let credentials = match authorization {
            Some(header) => basic(header)?,
            None => ":".to_owned(),
        };
        let peer = peer.to_canonical().to_string();
        let mut roles = None;
        for user in &self.users {
            let expected = format!("{}:{}", user.username, user.password);
            let known =
                is_equal(&expected, &credentials) & Choice::from(u8::from(matches(&user.host, &peer)));
            if bool::from(known) {
                roles = Some(user.roles);
            }
        }
        roles
    }
}

/// The `name:password` of a Basic header.
fn basic(header: &str) -> Option<String> {
    let (scheme, encoded) = header.trim().split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()))?;
    String::from_utf8(decoded.ok()?).ok()
}

/// Compares in a time that depends on the lengths alone.
fn is_equal(a: &str, b: &str) -> Choice {
    a.as_bytes().ct_eq(b.as_bytes())
}

/// Whether `text` is what `pattern` describes; `*` is any characters, none included.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, password: &str, host: &str) -> User {
        let roles = Roles { read: true, write: false };
        User { username: name.into(), password: password.into(), roles, host: host.into() }
    }

    fn header(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn a_user_is_known_by_name_password_and_host() {
        let access = Access::new(vec![user("amy", "pass:word", "10.*"), user("bob", "x", "*")]);
        let roles = |credentials: &str, peer: &str| {
            access.roles(Some(&header(credentials)), peer.parse().unwrap()).is_some()
        };
        assert!(roles("amy:pass:word", "10.1.2.3"));
        assert!(roles("amy:pass:word", "::ffff:10.1.2.3"));
        assert!(roles("bob:x", "::1"));
        assert!(!roles("amy:pass:word", "11.1.2.3"));
        assert!(!roles("amy:pass", "10.1.2.3"));
        assert!(!roles("amy", "10.1.2.3"));
        assert!(!roles("", "10.1.2.3"));
        let nobody: IpAddr = "10.1.2.3".parse().unwrap();
        for other in [None, Some("Basic"), Some("Basic %%%"), Some("Bearer Ym9iOng="), Some("")] {
            assert_eq!(access.roles(other, nobody), None, "{other:?}");
        }
    }

    #[test]
    fn a_user_without_name_and_password_is_who_sends_none() {
        let access = Access::new(vec![user("", "", "172.*.*.*")]);
        assert!(access.roles(None, "172.16.0.1".parse().unwrap()).is_some());
        assert!(access.roles(None, "173.16.0.1".parse().unwrap()).is_none());
        assert_eq!(Access::default().roles(None, "1.2.3.4".parse().unwrap()), Some(Roles::ALL));
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "x", false),
            ("a*a", "a", false),
            ("a*a", "aba", true),
            ("1*2*3", "1x2y2z3", true),
            ("1*2*3", "1x3", false),
            ("127.0.0.1", "127.0.0.10", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        assert!(!format!("{:?}", user("amy", "secret", "*")).contains("secret"));
    }
}
