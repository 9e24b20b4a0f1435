//! Looking after queues and dead letters.

use std::collections::BTreeMap;

use estafette_core::{
    Admin, DeadLetter, DeadQuery, Error, ErrorKind, Lifetime, Pattern, QueueName, QueueStatus, Result,
    async_trait,
};

use crate::{
    Shared,
    config::{Endpoint, GearmanConfig},
    desk::{self, Counts},
    hold::Fetched,
    names::{self, Copy},
    payload::{self, REDRIVEN},
    servers::{Job, When},
    taken::Taken,
};

/// What is done with dead letters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Purge,
    Redrive,
}

impl Shared {
    /// Asks every server that can be reached.
    ///
    /// # Errors
    ///
    /// The last one's, when none can.
    async fn counts(&self) -> Result<Vec<(&Endpoint, Counts)>> {
        let mut found = Vec::new();
        let mut last = None;
        for endpoint in &self.config().endpoints {
            match desk::counts(endpoint, self.config()).await {
                Ok(counts) => found.push((endpoint, counts)),
                Err(error) => {
                    tracing::warn!(%endpoint, error = error.report(), "a server could not be asked");
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// Whether any server knows the queue, or this handle has declared it.
    pub(crate) async fn exists(&self, queue: &QueueName) -> Result<bool> {
        if self.is_declared(queue) {
            return Ok(true);
        }
        let functions = names::all(queue);
        let counts = self.counts().await?;
        Ok(counts.iter().any(|(_, counts)| functions.iter().any(|function| counts.contains_key(function))))
    }

    async fn must_exist(&self, queue: &QueueName) -> Result<()> {
        self.servers.check_open()?;
        if self.exists(queue).await? { Ok(()) } else { Err(Error::no_queue(queue)) }
    }

    fn config(&self) -> &GearmanConfig {
        &self.servers.config
    }

    fn empty(&self, name: QueueName) -> QueueStatus {
        let of_this = self.config().subscriptions.iter().filter(|(queue, _)| *queue == name);
        let mut patterns: Vec<_> = of_this.map(|(_, pattern)| pattern.clone()).collect();
        patterns.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        QueueStatus::empty(name, patterns, Lifetime::Durable)
    }

    /// Removes what waits in a function; how many that was.
    async fn purge_function(&self, endpoint: &Endpoint, counts: &Counts, function: &str) -> Result<u64> {
        let Some(count) = counts.get(function) else { return Ok(0) };
        let mut purged = 0;
        if count.waiting > 0 {
            let taken = Taken::open(endpoint, self.config(), function).await?;
            loop {
                let jobs = taken.next().await?;
                if jobs.is_empty() {
                    break;
                }
                taken.complete(&jobs).await?;
                purged += jobs.len() as u64;
            }
            taken.put_back().await?;
        }
        Ok(purged)
    }

    /// Removes what waits for its time, which cannot be taken before it: only as a whole, and while nobody consumes.
    async fn purge_waiting(&self, endpoint: &Endpoint, function: &str) -> Result<u64> {
        let counts = desk::counts(endpoint, self.config()).await?;
        let waiting = counts.get(function).map_or(0, |count| count.waiting);
        if waiting == 0 {
            return Ok(0);
        }
        match desk::drop_function(endpoint, self.config(), function).await {
            Ok(()) => Ok(waiting),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let sentence = format!(
                    "{waiting} messages in {function} wait for their time, and Gearman deletes those only while no \
                     consumer is connected; everything else was deleted"
                );
                Err(Error::new(ErrorKind::Unsupported, sentence))
            }
            Err(error) => Err(error),
        }
    }

    async fn purge_all(&self, queue: &QueueName) -> Result<u64> {
        let mut purged = 0;
        for (endpoint, counts) in self.counts().await? {
            for function in names::taken(queue) {
                purged += self.purge_function(endpoint, &counts, &function).await?;
            }
            for function in [names::retry(queue), names::delay(queue)] {
                purged += self.purge_waiting(endpoint, &function).await?;
            }
        }
        Ok(purged)
    }

    /// Every dead letter with its job, oldest first, and what holds them.
    async fn all_dead<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        queue: &QueueName,
        function: &'a str,
    ) -> Result<(Taken<'a>, Vec<(DeadLetter, Fetched)>)> {
        let taken = Taken::open(endpoint, self.config(), function).await?;
        let mut letters = Vec::new();
        loop {
            let jobs = taken.next().await?;
            if jobs.is_empty() {
                break;
            }
            letters.extend(jobs.into_iter().map(|job| {
                let read = payload::read(&job.data, queue, &job.unique, &job.handle);
                (payload::dead_letter(read, queue), job)
            }));
        }
        Ok((taken, letters))
    }

    /// Every dead letter of all servers that `query` means, oldest first; then does something with them.
    async fn each_dead(
        &self,
        queue: &QueueName,
        query: &DeadQuery,
        work: Option<Work>,
    ) -> Result<Vec<DeadLetter>> {
        self.must_exist(queue).await?;
        // One at a time: the other would see none of what this one has.
        let _turn = self.dead_turn.lock().await;
        let function = names::dead(queue);
        let mut opened = Vec::new();
        let mut letters = Vec::new();
        for (endpoint, counts) in self.counts().await? {
            if counts.get(&function).is_some_and(|count| count.waiting > 0) {
                let (taken, found) = self.all_dead(endpoint, queue, &function).await?;
                letters.extend(found.into_iter().map(|(letter, job)| (letter, job, opened.len())));
                opened.push(taken);
            }
        }
        letters.sort_by(|(one, ..), (other, ..)| {
            (one.last_failed_at, &one.envelope.id).cmp(&(other.last_failed_at, &other.envelope.id))
        });
        let meant = letters.into_iter().filter(|(letter, ..)| query.matches(letter));
        let meant: Vec<_> = meant.skip(query.skip).take(query.limit.unwrap_or(usize::MAX)).collect();
        if let Some(work) = work {
            self.work(&opened, &meant, work, queue).await?;
        }
        // The jobs hold on to the connections.
        let meant = meant.into_iter().map(|(letter, ..)| letter).collect();
        for taken in opened {
            taken.put_back().await?;
        }
        Ok(meant)
    }

    async fn work(
        &self,
        opened: &[Taken<'_>],
        meant: &[(DeadLetter, Fetched, usize)],
        work: Work,
        queue: &QueueName,
    ) -> Result<()> {
        if work == Work::Redrive {
            let jobs =
                meant.iter().map(|(letter, ..)| redriven(letter, queue)).collect::<Result<Vec<_>>>()?;
            for result in self.servers.submit(&jobs).await {
                result?;
            }
        }
        for (index, taken) in opened.iter().enumerate() {
            let jobs = meant.iter().filter(|(.., of)| *of == index).map(|(_, job, _)| job.clone());
            taken.complete(&jobs.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }
}

/// The job that puts a dead letter back.
fn redriven(letter: &DeadLetter, queue: &QueueName) -> Result<Job> {
    let mut envelope = letter.envelope.clone();
    let count: u64 = envelope.headers.get(REDRIVEN).and_then(|text| text.parse().ok()).unwrap_or(0);
    envelope.headers.insert(REDRIVEN, &(count + 1).to_string())?;
    Ok(Job {
        function: queue.to_string(),
        unique: names::unique(&envelope, Copy::After(0)),
        data: payload::write(&envelope, crate::config::Body::Envelope),
        when: When::InTurn,
    })
}

#[async_trait]
impl Admin for Shared {
    async fn queues(&self) -> Result<Vec<QueueStatus>> {
        self.servers.check_open()?;
        let mut queues: BTreeMap<String, QueueStatus> = BTreeMap::new();
        for name in self.declared() {
            queues.insert(name.to_string(), self.empty(name));
        }
        for (_, counts) in self.counts().await? {
            for (function, count) in counts {
                let name = names::queue_of(&function);
                let Ok(queue) = QueueName::try_from(name) else { continue };
                let status = queues.entry(name.to_owned()).or_insert_with(|| self.empty(queue.clone()));
                if function == names::dead(&queue) {
                    status.dead += count.waiting + count.running;
                    continue;
                }
                status.leased += count.running;
                if function == name {
                    status.ready += count.waiting;
                } else {
                    status.delayed += count.waiting;
                    status.retrying += if function == names::retry(&queue) { count.waiting } else { 0 };
                }
            }
        }
        Ok(queues.into_values().collect())
    }

    async fn unsubscribe(&self, queue: &QueueName, pattern: &Pattern) -> Result<()> {
        self.must_exist(queue).await?;
        let sentence = format!("take {queue}:{pattern} out of the setting subscribe of the URL, everywhere");
        Err(Error::new(ErrorKind::Unsupported, sentence))
    }

    async fn delete(&self, queue: &QueueName) -> Result<()> {
        self.must_exist(queue).await?;
        self.end_receivers(queue);
        self.purge_all(queue).await?;
        for (endpoint, counts) in self.counts().await? {
            let dead = names::dead(queue);
            self.purge_function(endpoint, &counts, &dead).await?;
            for function in names::all(queue) {
                match desk::drop_function(endpoint, self.config(), &function).await {
                    // Those of consumers elsewhere stay, empty, as long as they are connected.
                    Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
                    _ => {}
                }
            }
        }
        self.forget(queue);
        Ok(())
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        self.must_exist(queue).await?;
        self.purge_all(queue).await
    }

    async fn dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        self.each_dead(queue, query, None).await
    }

    async fn redrive(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        self.each_dead(queue, query, Some(Work::Redrive)).await.map(|letters| letters.len() as u64)
    }

    async fn purge_dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        self.each_dead(queue, query, Some(Work::Purge)).await.map(|letters| letters.len() as u64)
    }
}
