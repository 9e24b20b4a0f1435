//! Middleware: handle a message once, as far as this process remembers.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context as TaskContext, Poll},
};

use estafette_core::{BoxError, MessageId};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Context, Verdict};

/// A layer that acknowledges messages this process has handled already, by their ids, without calling the handler.
///
/// It remembers the last so many handled messages, in memory: enough against redelivery after a lost acknowledgement, not
/// across restarts. For effects that must happen once whatever happens, remember the id in the handler's own transaction.
#[derive(Clone, Debug)]
pub struct Deduplicate {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    max: NonZeroUsize,
    ids: HashSet<MessageId>,
    oldest_first: VecDeque<MessageId>,
}

impl Deduplicate {
    /// Remembers the last `max` handled messages.
    #[must_use]
    pub fn new(max: NonZeroUsize) -> Self {
        let seen = Seen { max, ids: HashSet::new(), oldest_first: VecDeque::new() };
        Self { seen: Arc::new(Mutex::new(seen)) }
    }

    fn contains(&self, id: &MessageId) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).ids.contains(id)
    }

    fn remember(&self, id: MessageId) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.ids.insert(id.clone()) {
            seen.oldest_first.push_back(id);
        }
        if seen.oldest_first.len() > seen.max.get()
            && let Some(oldest) = seen.oldest_first.pop_front()
        {
            seen.ids.remove(&oldest);
        }
    }
}

impl<S> Layer<S> for Deduplicate {
    type Service = DeduplicateService<S>;

    fn layer(&self, inner: S) -> DeduplicateService<S> {
        DeduplicateService { memory: self.clone(), inner }
    }
}

/// The service [`Deduplicate`] makes.
#[derive(Clone, Debug)]
pub struct DeduplicateService<S> {
    memory: Deduplicate,
    inner: S,
}

impl<S> Service<Context> for DeduplicateService<S>
where
    S: Service<Context, Response = Verdict>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Verdict;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Verdict, BoxError>> + Send>>;

    fn poll_ready(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(task).map_err(Into::into)
    }

    fn call(&mut self, context: Context) -> Self::Future {
        let id = context.envelope().id.clone();
        if self.memory.contains(&id) {
            tracing::debug!(%id, "handled before; acknowledged without calling the handler");
            return Box::pin(std::future::ready(Ok(Verdict::Ack)));
        }
        let memory = self.memory.clone();
        let handling = self.inner.call(context);
        Box::pin(async move {
            let verdict = handling.await.map_err(Into::into)?;
            if verdict == Verdict::Ack {
                memory.remember(id);
            }
            Ok(verdict)
        })
    }
}
