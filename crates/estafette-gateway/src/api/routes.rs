//! What each path answers.

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    upgrade::OnUpgrade,
};
use serde_json::{Value, json};

use super::{
    access::Roles,
    dialect::{self, Code, Dialect, Fault, Operation},
    execute::execute,
    metrics,
    nodes::Node,
    server::Shared,
    settings::advertised,
};
use crate::websocket::accept::accept_key;

/// From the end of a request's headers to the end of its body.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";

/// Which address a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// For sending and consuming.
    Management,
    /// For finding the nodes.
    Discovery,
}

/// The ends of the connection a request came on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) face: Face,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// A connection that becomes a WebSocket, and what its user may do.
pub(crate) type Upgrade = Mutex<Option<(OnUpgrade, Roles)>>;

type Answer = Response<Full<Bytes>>;

/// Answers one request.
pub(crate) async fn answer(
    shared: &Shared,
    ends: Ends,
    mut request: Request<Incoming>,
    upgrade: &Upgrade,
) -> Answer {
    let path = request.uri().path().to_owned();
    let is_management = ends.face == Face::Management;
    match (request.method(), path.as_str()) {
        (&Method::GET, "/version") => {
            let version = env!("CARGO_PKG_VERSION");
            text(StatusCode::OK, JSON, json!({"version": version, "api": ["v1"], "apis": ["v1"]}).to_string())
        }
        (&Method::GET, "/v1/nodes") => text(StatusCode::OK, JSON, nodes(shared, ends)),
        (&Method::GET, "/healthz") => plain(StatusCode::OK, "ok\n"),
        (&Method::GET, "/readyz") if shared.is_ready() => plain(StatusCode::OK, "ready\n"),
        (&Method::GET, "/readyz") => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        (&Method::GET, "/metrics") => match roles(shared, ends, request.headers()) {
            Ok(roles) if roles.read => {
                let page = metrics::page(&shared.hub, shared.stats());
                text(StatusCode::OK, "text/plain; version=0.0.4", page)
            }
            Ok(_) => forbidden("the user lacks the role read"),
            Err(refusal) => *refusal,
        },
        (&Method::POST, "/v1/mesh/send" | "/v1/mesh/publish") if is_management => {
            match roles(shared, ends, request.headers()) {
                Ok(roles) => mesh(shared, roles, request, path.ends_with("publish")).await,
                Err(refusal) => *refusal,
            }
        }
        (&Method::GET, "/ws/v1") if is_management => match roles(shared, ends, request.headers()) {
            Ok(roles) => websocket(&mut request, roles, upgrade),
            Err(refusal) => *refusal,
        },
        (_, "/version" | "/v1/nodes" | "/healthz" | "/readyz" | "/metrics") => not_allowed("GET"),
        (_, "/ws/v1") if is_management => not_allowed("GET"),
        (_, "/v1/mesh/send" | "/v1/mesh/publish") if is_management => not_allowed("POST"),
        _ => plain(StatusCode::NOT_FOUND, "there is nothing here\n"),
    }
}

fn nodes(shared: &Shared, ends: Ends) -> String {
    let bound = shared.management.unwrap_or(ends.local);
    let address = advertised(shared.advertise.as_deref(), bound, ends.local.ip());
    shared.nodes.answer(&Node { id: shared.hub.node().to_owned(), address })
}

/// What the sender of a request may do, or the refusal.
fn roles(shared: &Shared, ends: Ends, headers: &HeaderMap) -> Result<Roles, Box<Answer>> {
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let (roles, is_open) = {
        let access = shared.access();
        (access.roles(authorization, ends.peer.ip()), access.is_open())
    };
    let roles = roles.ok_or_else(|| {
        let mut answer = fault(StatusCode::UNAUTHORIZED, "credentials are needed");
        let challenge = HeaderValue::from_static("Basic realm=\"estafette\", charset=\"UTF-8\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Box::new(answer)
    })?;
    if is_from_a_foreign_page(headers, is_open) {
        return Err(Box::new(forbidden("pages of other origins may not use this")));
    }
    Ok(roles)
}

/// Whether a browser was sent here by a page that is not ours.
///
/// A loopback address is no protection against the pages that a developer's browser shows. Without users, a page of our
/// own host is one only if that host is an address: a name could be made to point here. Some published clients send `*`.
fn is_from_a_foreign_page(headers: &HeaderMap, is_open: bool) -> bool {
    let value = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(origin) = value(header::ORIGIN).filter(|origin| *origin != "*") else { return false };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    if authority.is_none() || authority != value(header::HOST) {
        return true;
    }
    let is_address = |authority: &str| {
        authority.parse::<SocketAddr>().is_ok()
            || authority.parse::<std::net::IpAddr>().is_ok()
            || authority.split(':').next() == Some("localhost")
    };
    is_open && !authority.is_some_and(is_address)
}

async fn mesh(shared: &Shared, roles: Roles, request: Request<Incoming>, is_publish: bool) -> Answer {
    shared.count_request();
    let body = Limited::new(request.into_body(), shared.request_max);
    let body = match tokio::time::timeout(BODY_TIME_MAX, body.collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return fault(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large");
        }
        Ok(Err(_)) => return fault(StatusCode::BAD_REQUEST, "the request is cut off"),
        Err(_) => return fault(StatusCode::REQUEST_TIMEOUT, "the request takes too long"),
    };
    let operation: Result<Operation, Fault> = match serde_json::from_slice::<Value>(&body) {
        Err(error) => return fault(StatusCode::BAD_REQUEST, &format!("not JSON: {error}")),
        Ok(params) if is_publish => dialect::publish(params),
        Ok(params) => dialect::send(Dialect::Short, params),
    };
    let outcome = match operation {
        Ok(operation) => execute(&shared.hub, operation, roles).await,
        Err(fault) => Err(fault),
    };
    let status = match &outcome {
        Err(Fault { code: Code::Denied, .. }) => StatusCode::FORBIDDEN,
        _ => StatusCode::OK,
    };
    text(status, JSON, dialect::http_answer(&outcome))
}

/// Accepts the upgrade; the connection's task goes on with it (RFC 6455, 4.2).
fn websocket(request: &mut Request<Incoming>, roles: Roles, upgrade: &Upgrade) -> Answer {
    let has = |name: HeaderName, word: &str| {
        let values = request.headers().get_all(name);
        let mut words = values.iter().flat_map(|value| value.to_str().unwrap_or_default().split(','));
        words.any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return plain(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n");
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        let mut answer = plain(StatusCode::UPGRADE_REQUIRED, "only version 13 is spoken\n");
        answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return answer;
    }
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let accept = key
        .and_then(|key| key.to_str().ok())
        .filter(|key| key.trim().len() == 24)
        .and_then(|key| HeaderValue::try_from(accept_key(key.trim())).ok());
    let Some(accept) = accept else {
        return plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not as it must be\n");
    };
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    let mut slot = upgrade.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *slot = Some((hyper::upgrade::on(request), roles));
    answer
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn plain(status: StatusCode, body: &'static str) -> Answer {
    text(status, "text/plain; charset=utf-8", body)
}

fn not_allowed(method: &'static str) -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(method));
    answer
}

fn forbidden(message: &str) -> Answer {
    fault(StatusCode::FORBIDDEN, message)
}

/// An error of the request itself, with its status as the code.
fn fault(status: StatusCode, message: &str) -> Answer {
    text(status, JSON, json!({"E": {"c": status.as_u16(), "m": message}}).to_string())
}
