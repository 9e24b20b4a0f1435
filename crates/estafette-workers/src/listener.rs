//! Listeners: the application's functions, by action.

use std::{
    collections::HashMap,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError, RwLock},
};

use estafette_core::{BoxError, Bytes, Error, ErrorKind, Message, Result};
use futures_util::{FutureExt as _, future::BoxFuture};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Address, Worker,
    frame::{Body, Form, View, undecodable},
};

/// What a listener is told beside the data.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) from: Address,
    pub(crate) action: Arc<str>,
    pub(crate) worker: Worker,
}

impl Context {
    /// Who sent the message.
    #[must_use]
    pub fn from(&self) -> &Address {
        &self.from
    }

    /// The id of the sender, when it is a numbered worker.
    #[must_use]
    pub fn worker_id(&self) -> Option<u32> {
        match self.from {
            Address::Worker(id) => Some(id),
            _ => None,
        }
    }

    /// The action the message was sent under.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The worker that listens, to send and ask from within a listener.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }
}

/// What a listener answers to a request.
#[derive(Clone, Debug)]
pub struct Reply(pub(crate) Body);

impl Reply {
    /// `value` as JSON.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when the value has no JSON form.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        match serde_json::to_vec(value) {
            Ok(data) => Ok(Self(Body { form: Form::Json, data: data.into() })),
            Err(source) => Err(Error::new(ErrorKind::InvalidInput, source)),
        }
    }

    /// Bytes as they are.
    #[must_use]
    pub fn bytes(data: Bytes) -> Self {
        Self(Body { form: Form::Bytes, data })
    }
}

/// What a listener may return: nothing, or a `Result` whose value becomes the reply and whose error goes to the requester.
pub trait IntoReply {
    /// The reply, or the error that the requester gets.
    ///
    /// # Errors
    ///
    /// The listener's own.
    fn into_reply(self) -> Result<Reply>;
}

impl IntoReply for () {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply(Body::NULL))
    }
}

impl IntoReply for Reply {
    fn into_reply(self) -> Result<Reply> {
        Ok(self)
    }
}

impl<T: Serialize, E: Into<BoxError>> IntoReply for std::result::Result<T, E> {
    fn into_reply(self) -> Result<Reply> {
        match self {
            Ok(value) => Reply::json(&value),
            Err(error) => {
                let error: BoxError = error.into();
                Err(match error.downcast::<Error>() {
                    Ok(error) => *error,
                    Err(error) => Error::new(ErrorKind::Engine, error),
                })
            }
        }
    }
}

/// What a listener does with a message, whatever its types.
pub(crate) trait Listener: Send + Sync {
    /// Starts to handle a message. Decoding happens here, handling in the future.
    fn call(&self, context: Context, message: View<'_>) -> BoxFuture<'static, Result<Body>>;
}

/// Reads a body as a value.
type Decode<T> = fn(Form, &[u8]) -> Result<T>;

struct Typed<T, F> {
    decode: Decode<T>,
    function: F,
    marker: PhantomData<fn(T)>,
}

impl<T, F, Fut> Listener for Typed<T, F>
where
    T: Send + 'static,
    F: Fn(T, Context) -> Fut + Send + Sync,
    Fut: Future<Output: IntoReply> + Send + 'static,
{
    fn call(&self, context: Context, message: View<'_>) -> BoxFuture<'static, Result<Body>> {
        let value = match (self.decode)(message.form, message.data) {
            Ok(value) => value,
            Err(error) => return std::future::ready(Err(error)).boxed(),
        };
        let running = (self.function)(value, context);
        let guarded = AssertUnwindSafe(running).catch_unwind();
        let answer = async move {
            match guarded.await {
                Ok(output) => output.into_reply().map(|reply| reply.0),
                Err(_panic) => Err(panicked()),
            }
        };
        answer.boxed()
    }
}

/// Reads JSON.
pub(crate) fn decode_json<T: DeserializeOwned>(form: Form, data: &[u8]) -> Result<T> {
    match form {
        Form::Json => {
            serde_json::from_slice(data).map_err(|source| Error::new(ErrorKind::Undecodable, source))
        }
        Form::Bytes => Err(undecodable("a body of bytes where JSON was expected")),
    }
}

/// Reads a message with its own codec.
pub(crate) fn decode_message<M: Message>(_form: Form, data: &[u8]) -> Result<M> {
    M::decode(data)
}

/// Makes a listener of a function.
pub(crate) fn listener<T, F, Fut>(decode: Decode<T>, function: F) -> Arc<dyn Listener>
where
    T: Send + 'static,
    F: Fn(T, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: IntoReply> + Send + 'static,
{
    Arc::new(Typed { decode, function, marker: PhantomData })
}

/// The listeners of one action, in the order in which they were added.
pub(crate) struct Audience {
    pub(crate) action: Arc<str>,
    listeners: Vec<Arc<dyn Listener>>,
}

impl Audience {
    /// Starts every listener; the first one's answer counts.
    pub(crate) fn call(&self, context: Context, message: View<'_>) -> BoxFuture<'static, Result<Body>> {
        match &*self.listeners {
            [only] => start(only, context, message),
            listeners => {
                let all: Vec<_> =
                    listeners.iter().map(|listener| start(listener, context.clone(), message)).collect();
                futures_util::future::join_all(all).map(first_answer).boxed()
            }
        }
    }
}

/// The first answer. What the others had to complain about is logged: nobody waits for their answers.
fn first_answer(answers: Vec<Result<Body>>) -> Result<Body> {
    let mut answers = answers.into_iter();
    let first = answers.next();
    for error in answers.filter_map(Result::err) {
        tracing::warn!(error = %error.report(), "a further listener failed");
    }
    first.unwrap_or(Ok(Body::NULL))
}

fn start(
    listener: &Arc<dyn Listener>,
    context: Context,
    message: View<'_>,
) -> BoxFuture<'static, Result<Body>> {
    // The function may panic before it returns its future.
    let started = std::panic::catch_unwind(AssertUnwindSafe(|| listener.call(context, message)));
    started.unwrap_or_else(|_panic| std::future::ready(Err(panicked())).boxed())
}

/// The listeners of a participant.
#[derive(Default)]
pub(crate) struct Listeners {
    by_action: RwLock<HashMap<Arc<str>, Arc<Audience>>>,
}

impl Listeners {
    /// Adds a listener behind those that listen already.
    pub(crate) fn add(&self, action: &str, listener: Arc<dyn Listener>) {
        let mut by_action = self.by_action.write().unwrap_or_else(PoisonError::into_inner);
        let mut listeners =
            by_action.get(action).map(|audience| audience.listeners.clone()).unwrap_or_default();
        listeners.push(listener);
        let action: Arc<str> = action.into();
        by_action.insert(Arc::clone(&action), Arc::new(Audience { action, listeners }));
    }

    /// Those who listen for `action`.
    pub(crate) fn of(&self, action: &str) -> Option<Arc<Audience>> {
        let by_action = self.by_action.read().unwrap_or_else(PoisonError::into_inner);
        by_action.get(action).map(Arc::clone)
    }

    /// Forgets all listeners.
    pub(crate) fn clear(&self) {
        self.by_action.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Engine, "the listener panicked")
}
