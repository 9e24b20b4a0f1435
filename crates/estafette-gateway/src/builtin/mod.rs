//! The built-in protocol: JSON over WebSocket, for which no script is needed.
//!
//! `docs/gateway-protocol.md` describes it. Reading order: [`token`] (who somebody is), [`grants`] (what they may do),
//! this file (the messages).

mod grants;
mod token;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

pub use grants::Grants;
pub use token::Key;

use crate::{
    core::{
        Core,
        application::{Application, Flow, Wake},
        connection::{Connection, Prepared},
    },
    mesh::{Kind, Payload},
    queues::QueueMessage,
    stats::CloseReason,
    websocket::{close::CloseCode, handshake::Handshake},
};
use token::Claims;

/// How the built-in protocol knows its users, and what they may do.
#[derive(Debug, Clone, Default)]
pub struct BuiltinSettings {
    /// What tokens are signed with; without one, nobody can log in.
    pub key: Option<Key>,
    /// What somebody who is not logged in may do; nothing by default.
    pub anonymous: Grants,
    /// Whether the handshake must carry a token.
    pub required: bool,
}

/// One server's users.
pub(crate) struct Builtin {
    settings: BuiltinSettings,
    /// Those who are logged in, by the number of their connection.
    users: RefCell<HashMap<u64, Claims>>,
}

/// What a client says; see the documentation for which member belongs to which `op`.
#[derive(Deserialize)]
struct Request<'a> {
    op: &'a str,
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

type Outcome = Result<Value, String>;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |now| now.as_secs())
}

impl Builtin {
    pub(crate) fn new(settings: BuiltinSettings) -> Self {
        Self { settings, users: RefCell::default() }
    }

    fn is_granted(&self, connection: &Connection, what: impl Fn(&Grants) -> bool) -> bool {
        let users = self.users.borrow();
        what(users.get(&connection.id.sequence()).map_or(&self.settings.anonymous, |claims| &claims.grants))
    }

    fn log_in(&self, core: &Core, connection: &Rc<Connection>, token: &str) -> Outcome {
        let key = self.settings.key.as_ref().ok_or("this server knows no tokens")?;
        let claims = token::verify(token, key, now()).map_err(str::to_owned)?;
        let user = claims.user.clone();
        core.set_context_value(connection, "user_id", json!(user)).map_err(|error| error.to_string())?;
        self.users.borrow_mut().insert(connection.id.sequence(), claims);
        Ok(json!({ "user": user }))
    }

    fn answer(&self, core: &Core, connection: &Rc<Connection>, request: &Request<'_>) -> Outcome {
        let channel = || request.channel.clone().ok_or_else(|| "channel is missing".to_owned());
        match request.op {
            "ping" => Ok(json!({ "pong": true })),
            "auth" => self.log_in(core, connection, request.token.as_deref().ok_or("token is missing")?),
            "subscribe" => {
                let channel = channel()?;
                if !self.is_granted(connection, |grants| grants.may_subscribe(&channel)) {
                    return Err("not permitted".into());
                }
                core.subscribe(connection, &[channel]).map_err(|error| error.to_string())?;
                Ok(json!({}))
            }
            "unsubscribe" => {
                core.unsubscribe(connection, &[channel()?]);
                Ok(json!({}))
            }
            "publish" => {
                let channel = channel()?;
                if !self.is_granted(connection, |grants| grants.may_publish(&channel)) {
                    return Err("not permitted".into());
                }
                let data = request.data.ok_or("data is missing")?;
                let message = format!("{{\"channel\":{},\"data\":{}}}", json!(channel), data.get());
                let published = core.publish_everywhere(&channel, &Payload::text(message));
                Ok(json!({ "success": published.success, "fail": published.fail }))
            }
            "push" => self.push(core, connection, request),
            _ => Err("op is not known".into()),
        }
    }

    fn push(&self, core: &Core, connection: &Rc<Connection>, request: &Request<'_>) -> Outcome {
        let queue = request.queue.clone().ok_or("queue is missing")?;
        if !self.is_granted(connection, |grants| grants.may_push(&queue)) {
            return Err("not permitted".into());
        }
        let data = request
            .data
            .filter(|data| data.get().starts_with(['{', '[']))
            .ok_or("data must be an object or a list")?;
        let user = connection.context.borrow().get("user_id").cloned();
        let event = format!("{{\"user\":{},\"data\":{}}}", user.unwrap_or_default(), data.get());
        let data = RawValue::from_string(event).map_err(|error| error.to_string())?;
        let node = core.hub.node().to_owned();
        let message = QueueMessage { node, client_id: Some(connection.id), queue, data };
        core.hub.queues().push(message).map_err(|full| full.to_string())?;
        Ok(json!({}))
    }
}

impl Application for Builtin {
    fn on_open(
        &self,
        core: &Core,
        connection: &Rc<Connection>,
        handshake: Option<&Handshake>,
    ) -> Result<(), ()> {
        let Some(token) = handshake.and_then(|handshake| handshake.query("token")) else {
            return if self.settings.required { Err(()) } else { Ok(()) };
        };
        self.log_in(core, connection, &token).map(drop).map_err(|reason| {
            tracing::debug!(reason, "a token was refused");
        })
    }

    fn on_message(&self, core: &Core, connection: &Rc<Connection>, kind: Kind, data: &[u8]) -> Flow {
        let request = (kind == Kind::Text).then(|| serde_json::from_slice::<Request<'_>>(data));
        let Some(Ok(request)) = request else {
            core.close(connection, CloseReason::Protocol, CloseCode::POLICY, "the message is not a request");
            return Flow::Done;
        };
        let answer = match self.answer(core, connection, &request) {
            Ok(result) => json!({ "id": request.id, "result": result }),
            Err(error) => json!({ "id": request.id, "error": error }),
        };
        // A connection that takes no more is closed by whoever found that out.
        let _full = core.send(connection, &Prepared::new(Payload::text(answer.to_string())));
        Flow::Done
    }

    fn on_bytes(&self, core: &Core, connection: &Rc<Connection>) {
        core.close(connection, CloseReason::Protocol, CloseCode::PROTOCOL, "");
    }

    fn resume(&self, _: &Core, _: &Rc<Connection>, _: &str, _: Wake) -> Flow {
        Flow::Done
    }

    fn on_close(&self, _: &Core, connection: &Rc<Connection>, _: CloseReason) {
        self.users.borrow_mut().remove(&connection.id.sequence());
    }

    fn encode(&self, _: &Core, _: &Rc<Connection>, payload: &Payload) -> Result<Bytes, String> {
        Ok(payload.data.clone())
    }

    fn on_tick(&self, core: &Core) {
        let now = now();
        let over = |(number, claims): (&u64, &Claims)| (claims.expires <= now).then_some(*number);
        let over: Vec<u64> = self.users.borrow().iter().filter_map(over).collect();
        for number in over {
            self.users.borrow_mut().remove(&number);
            if let Some(connection) = core.find_sequence(number) {
                core.close(
                    &connection,
                    CloseReason::Unauthorized,
                    CloseCode::EXPIRED,
                    "the token has expired",
                );
            }
        }
    }
}
