//! Jobs taken to be looked at or removed, on a connection of their own: a server has no other way.
//!
//! What is not completed goes back when the connection ends, also when the caller is cancelled half way. Meanwhile nobody else
//! sees it.

use std::{sync::Arc, time::Duration};

use estafette_core::Result;
use tokio::time::Instant;

use crate::{
    config::{Endpoint, GearmanConfig},
    desk,
    fetch::{fetched, grab},
    hold::Fetched,
    link::Link,
    protocol::{self, kind},
    settler::Completed,
};

/// How many are asked for at once.
const CHUNK: usize = 200;

/// How long at most it takes until what was put back can be taken again.
const PUT_BACK: Duration = Duration::from_secs(1);

pub(crate) struct Taken<'a> {
    endpoint: &'a Endpoint,
    config: &'a GearmanConfig,
    function: &'a str,
    link: Arc<Link>,
}

impl<'a> Taken<'a> {
    /// Begins to take jobs of a function of one server.
    pub(crate) async fn open(
        endpoint: &'a Endpoint,
        config: &'a GearmanConfig,
        function: &'a str,
    ) -> Result<Self> {
        let link = Arc::new(Link::open(endpoint, config).await?);
        let mut request = Vec::new();
        protocol::put(&mut request, kind::CAN_DO, &[function.as_bytes()]);
        link.tell(&request)?;
        Ok(Self { endpoint, config, function, link })
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.config.patience
    }

    /// The next ones; none at the end.
    pub(crate) async fn next(&self) -> Result<Vec<Fetched>> {
        let answers = grab(&self.link, CHUNK, self.deadline()).await?;
        let jobs = answers.iter().map(|packet| fetched(&self.link, self.endpoint, packet));
        Ok(jobs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Completes jobs for good.
    pub(crate) async fn complete(&self, jobs: &[Fetched]) -> Result<()> {
        let mut completed = Completed::default();
        for job in jobs {
            completed.add(job);
        }
        completed.tell();
        self.link.flush(self.deadline()).await
    }

    /// Puts everything back that was not completed, and returns when it is there.
    pub(crate) async fn put_back(self) -> Result<()> {
        let Self { endpoint, config, function, link } = self;
        drop(link);
        let deadline = Instant::now() + PUT_BACK;
        loop {
            let counts = desk::counts(endpoint, config).await?;
            let running = counts.get(function).is_some_and(|count| count.running > 0);
            if !running || Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
