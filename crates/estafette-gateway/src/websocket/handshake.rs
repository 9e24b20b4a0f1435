//! The opening handshake: an HTTP request that must ask for exactly what we do (RFC 6455, 4.2).

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeLimits {
    /// Bytes of the request line and all headers.
    pub bytes_max: usize,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self { bytes_max: 8 << 10 }
    }
}

/// Headers of one request; more are refused.
pub const HEADERS_MAX: usize = 64;

/// A request that asks for a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The target as it was sent, query included.
    pub target: String,
    /// The `Host` header.
    pub host: String,
    /// The client's key, to be answered.
    pub key: String,
    /// The sub-protocols it offers, the most wanted first.
    pub protocols: Vec<String>,
    /// Every header, names as they were sent; a value that is not UTF-8 with its bad bytes replaced.
    pub headers: Vec<(String, String)>,
}

/// Why a request is not answered with a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Not HTTP/1.1 as it must be written.
    Malformed,
    /// Larger than allowed.
    TooLarge,
    /// Not a GET.
    Method,
    /// Not for this path.
    Path,
    /// A plain request, not one for a WebSocket.
    NotUpgrade,
    /// Another version than 13.
    Version,
    /// From a page of another origin.
    Origin,
    /// A handler does not want it.
    Forbidden,
}

impl Refusal {
    /// The status line that says so, without `HTTP/1.1`.
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Self::Malformed => "400 Bad Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Method => "405 Method Not Allowed",
            Self::Path => "404 Not Found",
            Self::NotUpgrade | Self::Version => "426 Upgrade Required",
            Self::Origin | Self::Forbidden => "403 Forbidden",
        }
    }
}

impl Handshake {
    /// Reads the request at the front of `bytes`; `None` until its end is there. Also returns how long it is: what
    /// follows belongs to the WebSocket.
    ///
    /// # Errors
    /// [`Refusal`] as soon as it cannot become a handshake.
    pub fn parse(bytes: &[u8], limits: &HandshakeLimits) -> Result<Option<(Self, usize)>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length <= limits.bytes_max => length,
            Ok(httparse::Status::Partial) if bytes.len() < limits.bytes_max => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
            Err(_) => return Err(Refusal::Malformed),
        };
        if request.version != Some(1) {
            return Err(Refusal::Malformed);
        }
        if request.method != Some("GET") {
            return Err(Refusal::Method);
        }
        let target = request.path.unwrap_or_default().to_owned();
        Self::check(target, request.headers).map(|handshake| Some((handshake, length)))
    }

    fn check(target: String, headers: &[httparse::Header<'_>]) -> Result<Self, Refusal> {
        let headers: Vec<(String, String)> = headers
            .iter()
            .map(|header| (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned()))
            .collect();
        let upgrade = words(&headers, "upgrade").any(|word| word.eq_ignore_ascii_case("websocket"));
        let connection = words(&headers, "connection").any(|word| word.eq_ignore_ascii_case("upgrade"));
        if !upgrade || !connection {
            return Err(Refusal::NotUpgrade);
        }
        if only(&headers, "sec-websocket-version")? != "13" {
            return Err(Refusal::Version);
        }
        let key = only(&headers, "sec-websocket-key")?.to_owned();
        if !is_key(&key) {
            return Err(Refusal::Malformed);
        }
        let host = only(&headers, "host")?.to_owned();
        let protocols = words(&headers, "sec-websocket-protocol").map(str::to_owned).collect();
        Ok(Self { target, host, key, protocols, headers })
    }

    /// The value of a header that is there once or more; the first one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        values(&self.headers, name).next()
    }

    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The value of the query's first parameter of this name, percent-encoding undone.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let value = query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key) == name).then_some(value)
        });
        value.map(percent_decode)
    }

    /// Whether the page that asks is of our own host, or not a page of a browser, or of one of `allowed`.
    ///
    /// An entry is an origin such as `https://example.com`, or `*` for all. Ports make no difference for our own host:
    /// a page served beside the gateway has another port by nature.
    #[must_use]
    pub fn origin_is_allowed(&self, allowed: &[String]) -> bool {
        let mut origins = values(&self.headers, "origin");
        let Some(origin) = origins.next() else { return true };
        if origins.next().is_some() {
            return false;
        }
        if allowed.iter().any(|entry| entry == "*" || entry.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let Some((_, authority)) = origin.split_once("://") else { return false };
        without_port(authority).eq_ignore_ascii_case(without_port(&self.host))
    }
}

fn values<'a>(headers: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The entries of a header that is a list, over all its lines.
fn words<'a>(headers: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    values(headers, name).flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// The value of a header that must be there exactly once.
fn only<'a>(headers: &'a [(String, String)], name: &str) -> Result<&'a str, Refusal> {
    let mut values = values(headers, name);
    let value = values.next().ok_or(Refusal::Malformed)?;
    if values.next().is_some() { Err(Refusal::Malformed) } else { Ok(value.trim()) }
}

/// Sixteen bytes in base64 are 22 digits and two signs of padding.
fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default();
    digits.len() == 22
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Undoes percent-encoding and `+`; what is no encoding stays as it is, what is no UTF-8 is replaced.
pub(crate) fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        let code =
            (byte == b'%').then(|| rest.split_first_chunk::<2>()).flatten().and_then(|(digits, rest)| {
                let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
                Some((u8::from_str_radix(digits, 16).ok()?, rest))
            });
        match code {
            Some((decoded, rest)) => {
                out.push(decoded);
                bytes = rest;
            }
            None => out.push(if byte == b'+' { b' ' } else { byte }),
        }
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn request(first: &str, more: &str) -> Vec<u8> {
        format!("{first}\r\nHost: a.example:6790\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n{more}\r\n").into_bytes()
    }

    fn parse(bytes: &[u8]) -> Result<Option<(Handshake, usize)>, Refusal> {
        Handshake::parse(bytes, &HandshakeLimits::default())
    }

    #[test]
    fn a_browser_s_request_is_read_and_what_follows_is_kept() {
        let mut bytes = request("GET /chat?token=a%2Bb&x HTTP/1.1", KEY);
        let length = bytes.len();
        bytes.extend_from_slice(&[0x81, 0x80]);
        let (handshake, taken) = parse(&bytes).unwrap().unwrap();
        assert_eq!(
            (taken, handshake.path(), handshake.query("token")),
            (length, "/chat", Some("a+b".into()))
        );
        for end in 0..length {
            assert_eq!(parse(&bytes[..end]), Ok(None));
        }
    }

    #[test]
    fn requests_that_ask_for_something_else_are_refused() {
        let refusal = |first: &str, more: &str| parse(&request(first, more)).err();
        let get = "GET / HTTP/1.1";
        assert_eq!(refusal("GET / HTTP/1.0", KEY), Some(Refusal::Malformed));
        assert_eq!(refusal("POST / HTTP/1.1", KEY), Some(Refusal::Method));
        assert_eq!(refusal(get, &KEY.repeat(2)), Some(Refusal::Malformed));
        assert_eq!(refusal(get, &format!("{KEY}Host: b\r\n")), Some(Refusal::Malformed));
        assert_eq!(refusal(get, "Sec-WebSocket-Key: short\r\n"), Some(Refusal::Malformed));
        assert_eq!(refusal(get, ""), Some(Refusal::Malformed));
        assert_eq!(refusal(get, &"X: y\r\n".repeat(1_000)), Some(Refusal::TooLarge));
        assert_eq!(parse(&b"GET / HTTP/1.1\r\nX: y".repeat(1_000)), Err(Refusal::TooLarge));
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(Refusal::NotUpgrade));
        assert_eq!(parse(&vec![b'A'; 9_000]), Err(Refusal::TooLarge));
    }

    #[test]
    fn pages_of_other_hosts_are_refused_unless_listed() {
        let allowed = |origin: &str, list: &[String]| {
            let bytes = request("GET / HTTP/1.1", &format!("{KEY}Origin: {origin}\r\n"));
            parse(&bytes).unwrap().unwrap().0.origin_is_allowed(list)
        };
        assert!(allowed("http://A.example", &[]));
        assert!(allowed("http://a.example:8000", &[]));
        assert!(!allowed("http://b.example", &[]));
        assert!(!allowed("null", &[]));
        assert!(allowed("null", &["*".into()]));
        assert!(allowed("http://b.example", &["http://b.example".into()]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _answer = parse(&bytes);
        }

        #[test]
        fn any_header_is_answered(more in "(X|Host|Sec-WebSocket-Key|Upgrade): \\PC{0,30}\r\n") {
            let _answer = parse(&request("GET / HTTP/1.1", &more));
        }
    }
}
