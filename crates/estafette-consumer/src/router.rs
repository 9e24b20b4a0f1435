//! From a message's topic to its handler, with the middleware around.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use estafette_core::{BoxError, Failure, Reason, Topic};
use tower::util::{BoxCloneSyncService, ServiceExt};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Context, Handler, Verdict, handler::VerdictFuture};

/// The handlers of a consumer, or what middleware made of them: what a layer wraps and returns.
pub type BoxHandler = BoxCloneSyncService<Context, Verdict, BoxError>;

/// The handlers by topic, and the one for everything else.
#[derive(Default)]
pub(crate) struct Router {
    by_topic: HashMap<Topic, Arc<dyn Handler>>,
    any: Option<Arc<dyn Handler>>,
}

impl Router {
    pub(crate) fn add(&mut self, topic: Topic, handler: impl Handler) {
        self.by_topic.insert(topic, Arc::new(handler));
    }

    pub(crate) fn add_any(&mut self, handler: impl Handler) {
        self.any = Some(Arc::new(handler));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty() && self.any.is_none()
    }
}

impl Handler for Router {
    fn call(&self, context: Context) -> VerdictFuture {
        let topic = &context.envelope().topic;
        if let Some(handler) = self.by_topic.get(topic).or(self.any.as_ref()) {
            return handler.call(context);
        }
        let known = self.by_topic.keys().map(Topic::as_str).collect::<Vec<_>>().join(", ");
        let sentence = format!("no handler takes the topic {topic}; this consumer handles {known}");
        Box::pin(std::future::ready(Ok(Verdict::Reject(Failure::new(Reason::Unhandled, sentence)))))
    }
}

/// The router as a tower service, which layers can wrap.
#[derive(Clone)]
struct RouterService(Arc<Router>);

impl Service<Context> for RouterService {
    type Response = Verdict;
    type Error = BoxError;
    type Future = VerdictFuture;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, context: Context) -> VerdictFuture {
        self.0.call(context)
    }
}

/// A tower service as a handler.
struct Layered(BoxHandler);

impl Handler for Layered {
    fn call(&self, context: Context) -> VerdictFuture {
        Box::pin(self.0.clone().oneshot(context))
    }
}

/// Layers to be put around the router once it is complete.
#[derive(Default)]
pub(crate) struct Layers(Vec<Box<dyn FnOnce(BoxHandler) -> BoxHandler + Send>>);

impl Layers {
    pub(crate) fn push<L>(&mut self, layer: L)
    where
        L: Layer<BoxHandler> + Send + 'static,
        L::Service: Service<Context, Response = Verdict> + Clone + Send + Sync + 'static,
        <L::Service as Service<Context>>::Error: Into<BoxError>,
        <L::Service as Service<Context>>::Future: Send + 'static,
    {
        self.0.push(Box::new(move |inner| {
            let service = layer.layer(inner);
            BoxCloneSyncService::new(service.map_err(Into::into))
        }));
    }

    /// The router with the layers around it; the one added first is outermost.
    pub(crate) fn around(self, router: Router) -> Arc<dyn Handler> {
        if self.0.is_empty() {
            return Arc::new(router);
        }
        let innermost: BoxHandler = BoxCloneSyncService::new(RouterService(Arc::new(router)));
        Arc::new(Layered(self.0.into_iter().rev().fold(innermost, |inner, wrap| wrap(inner))))
    }
}
