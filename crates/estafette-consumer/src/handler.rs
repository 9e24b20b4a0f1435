//! Handlers: the user's functions, typed and untyped, behind one interface.

use std::{future::Future, marker::PhantomData, pin::Pin, sync::Arc};

use estafette_core::{BoxError, Bytes, Envelope, ErrorKind, Failure, Message, Reason, Topic, Transport};

use crate::{
    Context, IntoVerdict, Verdict,
    request::{REPLY_ERROR_HEADER, reply_to},
};

pub(crate) type VerdictFuture = Pin<Box<dyn Future<Output = Result<Verdict, BoxError>> + Send>>;

/// A function from a message to a verdict. Implemented for async closures by the consumer's `handle` functions.
pub trait Handler: Send + Sync + 'static {
    /// Handles the message of `context`.
    fn call(&self, context: Context) -> Pin<Box<dyn Future<Output = Result<Verdict, BoxError>> + Send>>;
}

/// A handler of messages of one type: decodes the body first.
pub(crate) struct Typed<M, F> {
    function: F,
    message: PhantomData<fn(M)>,
}

impl<M, F> Typed<M, F> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, message: PhantomData }
    }
}

impl<M, F, Fut> Handler for Typed<M, F>
where
    M: Message,
    F: Fn(M, Context) -> Fut + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: IntoVerdict,
{
    fn call(&self, context: Context) -> VerdictFuture {
        match context.envelope().decode::<M>() {
            Ok(message) => {
                let future = (self.function)(message, context);
                Box::pin(async move { future.await.into_verdict() })
            }
            Err(error) => {
                let failure = Failure::new(Reason::Undecodable, error.report());
                Box::pin(std::future::ready(Ok(Verdict::Reject(failure))))
            }
        }
    }
}

/// A handler of messages of any type, which gets them as they are.
pub(crate) struct Untyped<F>(pub(crate) F);

impl<F, Fut> Handler for Untyped<F>
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: IntoVerdict,
{
    fn call(&self, context: Context) -> VerdictFuture {
        let future = (self.0)(context);
        Box::pin(async move { future.await.into_verdict() })
    }
}

impl<H: Handler + ?Sized> Handler for Arc<H> {
    fn call(&self, context: Context) -> VerdictFuture {
        (**self).call(context)
    }
}

/// A handler that answers: what it returns is sent to the queue the request names.
pub(crate) struct Answering<M, F> {
    function: Arc<F>,
    transport: Arc<dyn Transport>,
    message: PhantomData<fn(M)>,
}

impl<M, F> Answering<M, F> {
    pub(crate) fn new(function: F, transport: Arc<dyn Transport>) -> Self {
        Self { function: Arc::new(function), transport, message: PhantomData }
    }
}

impl<M, R, E, F, Fut> Handler for Answering<M, F>
where
    M: Message,
    R: Message,
    E: Into<BoxError>,
    F: Fn(M, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
{
    fn call(&self, context: Context) -> VerdictFuture {
        let function = Arc::clone(&self.function);
        let transport = Arc::clone(&self.transport);
        Box::pin(async move {
            let request = Arc::clone(context.envelope());
            let answer = match request.decode::<M>() {
                Ok(message) => function(message, context).await.map_err(Into::into),
                Err(error) => Err(error.report().into()),
            };
            answer_with(&transport, &request, answer).await
        })
    }
}

/// Sends the answer, or the error, to whoever asked. Nobody asked: an error is a failed attempt.
async fn answer_with<R: Message>(
    transport: &Arc<dyn Transport>,
    request: &Envelope,
    answer: Result<R, BoxError>,
) -> Result<Verdict, BoxError> {
    if request.reply_to.is_none() {
        return answer.map(|_nobody_asked| Verdict::Ack);
    }
    let envelope = match answer {
        Ok(answer) => Envelope::of(&answer)?,
        Err(error) => {
            let mut refusal = Envelope::new(REFUSAL, Bytes::new());
            refusal.headers.insert(REPLY_ERROR_HEADER, &error.to_string())?;
            refusal
        }
    };
    let Some(reply) = reply_to(request, envelope) else { return Ok(Verdict::Ack) };
    let mut receipts = transport.publish(std::slice::from_ref(&reply)).await;
    match receipts.pop() {
        Some(Err(error)) if error.kind() == ErrorKind::Unroutable => {
            tracing::debug!(id = %request.id, "whoever asked is gone; the reply is dropped");
            Ok(Verdict::Ack)
        }
        Some(Err(error)) => Err(error.into()),
        _ => Ok(Verdict::Ack),
    }
}

/// The topic of an answer that is an error.
const REFUSAL: Topic = Topic::from_static("estafette.refusal");
