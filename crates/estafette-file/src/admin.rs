//! Looking after queues: how full they are, changing and emptying them.

use std::{collections::HashMap, sync::Arc};

use estafette_core::{
    Admin, DeadLetter, DeadQuery, Error, MessageId, Pattern, QueueName, QueueStatus, Result, async_trait,
    wire,
};

use crate::{
    FileTransport, Shared,
    claim::{self, Folders, Wanted},
    dead, declare, disk, error, journal, line,
    lines::ReadLines,
    name::{ClaimName, EntryName, JOURNAL_SUFFIX},
    queues::Queue,
    store::Store,
};

/// How long a message that is being cancelled is held.
const CANCELLING: std::time::Duration = std::time::Duration::from_secs(10);

impl Shared {
    /// Does what may take long on a thread that may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.map_err(|_ended| error::no_answer("looking after queues"))?
    }

    fn folders(&self, name: &QueueName) -> Result<(Arc<Queue>, Folders)> {
        let queue = self.routes.queue(&self.store, name)?;
        let folders = Folders::open(&self.store, &queue)?;
        Ok((queue, folders))
    }
}

/// Counts what is in a queue, by the names of the files alone.
fn status(store: &Store, queue: &Queue) -> Result<QueueStatus> {
    let folders = Folders::open(store, queue)?;
    let failed = |errno| error::io(&format!("counting the messages of {}", queue.name), errno);
    let mut status = QueueStatus::empty(queue.name.clone(), queue.patterns.clone(), queue.lifetime);
    let now = store.now();
    let each = |name: &[u8], count: &mut dyn FnMut(&str)| {
        if let Ok(name) = std::str::from_utf8(name) {
            count(name);
        }
    };
    let mut in_new = |name: &str| match EntryName::parse(name) {
        Some(entry) if entry.due <= now => status.ready += u64::from(entry.span.count),
        Some(entry) => {
            status.delayed += u64::from(entry.span.count);
            status.retrying += u64::from(if entry.retrying { entry.span.count } else { 0 });
        }
        None if name.starts_with('.') => {}
        // Put there by hand: one message, or as many as there are lines, which a look inside will tell.
        None => status.ready += 1,
    };
    disk::for_each_name(&folders.new, |name| each(name, &mut in_new)).map_err(failed)?;
    disk::for_each_name(&folders.dead, |name| {
        each(name, &mut |name| {
            status.dead += u64::from(EntryName::parse(name).map_or(0, |entry| entry.span.count));
        })
    })
    .map_err(failed)?;
    let (ready, leased) = claimed(store, &folders, now).map_err(failed)?;
    status.ready += ready;
    status.leased += leased;
    Ok(status)
}

/// How many messages are claimed: those whose lease has ended, and the others.
fn claimed(
    store: &Store,
    folders: &Folders,
    now: estafette_core::Timestamp,
) -> Result<(u64, u64), rustix::io::Errno> {
    let mut claims = Vec::new();
    let mut journals: HashMap<String, u64> = HashMap::new();
    for name in disk::names(&folders.claimed)? {
        if name.ends_with(JOURNAL_SUFFIX) {
            let size = rustix::fs::statat(&folders.claimed, &*name, rustix::fs::AtFlags::empty());
            let size = size.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
            journals.insert(name, size / journal::RECORD_BYTES);
        } else {
            claims.extend(ClaimName::parse(&name));
        }
    }
    let (mut ready, mut leased) = (0, 0);
    for claim in claims {
        let lines = claim.part.map_or(claim.entry.span.count, |(_, count)| count);
        let settled = journals.get(&claim.journal()).copied().unwrap_or(0);
        let open = u64::from(lines).saturating_sub(settled);
        let has_ended = claim.until <= now || store.owner.is_dead(claim.owner);
        *(if has_ended { &mut ready } else { &mut leased }) += open;
    }
    Ok((ready, leased))
}

/// Removes everything in `new/`.
fn purge(folders: &Folders) -> Result<u64> {
    let failed = |errno| error::io("purging a queue", errno);
    let mut count = 0;
    for name in disk::names(&folders.new).map_err(failed)? {
        if !name.starts_with('.') && disk::remove_file(&folders.new, &name).map_err(failed)? {
            count += EntryName::parse(&name).map_or(1, |entry| u64::from(entry.span.count));
        }
    }
    Ok(count)
}

/// Removes the delayed message with this id.
fn cancel(store: &Store, folders: &Folders, id: &MessageId) -> Result<bool> {
    let failed = |errno| error::io("looking for a delayed message", errno);
    let names = disk::names(&folders.new).map_err(failed)?;
    for entry in names.iter().filter_map(|name| EntryName::parse(name)) {
        if entry.due <= store.now() {
            continue;
        }
        let Ok(file) = disk::open_file(&folders.new, &entry.to_string()) else { continue };
        let lines = ReadLines::read(&file, entry.span, entry.span.count).map_err(failed)?;
        let is_meant = |index: &usize| {
            wire::decode(line::split(lines.get(*index)).1).is_ok_and(|envelope| envelope.id == *id)
        };
        let Some(index) = (0..lines.len()).find(is_meant) else { continue };
        let wanted = Wanted { skip: u32::try_from(index).unwrap_or(u32::MAX), max: 1 };
        // Taking it is what decides: a consumer may be quicker.
        let taken = claim::claim(store, folders, &entry, wanted, store.now() + CANCELLING)?;
        let Some(taken) = taken else { return Ok(false) };
        disk::remove_file(&folders.claimed, &taken.name.to_string()).map_err(failed)?;
        store.flush_dir(&folders.new)?;
        return Ok(true);
    }
    Ok(false)
}

#[async_trait]
impl Admin for FileTransport {
    async fn queues(&self) -> Result<Vec<QueueStatus>> {
        self.shared
            .blocking(|shared| {
                shared.delete_orphans()?;
                let queues = shared.routes.all(&shared.store)?;
                let counted = queues.iter().map(|queue| status(&shared.store, queue));
                // One that was deleted meanwhile is not listed.
                counted.filter(|status| !is_gone(status)).collect()
            })
            .await
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueStatus> {
        let name = queue.clone();
        self.shared
            .blocking(move |shared| {
                shared.delete_orphans()?;
                let queue = shared.routes.queue(&shared.store, &name)?;
                status(&shared.store, &queue)
            })
            .await
    }

    async fn unsubscribe(&self, queue: &QueueName, pattern: &Pattern) -> Result<()> {
        let (name, pattern) = (queue.clone(), pattern.clone());
        self.shared.blocking(move |shared| declare::unsubscribe(&shared.store, &name, &pattern)).await
    }

    async fn delete(&self, queue: &QueueName) -> Result<()> {
        let name = queue.clone();
        self.shared.blocking(move |shared| declare::delete(&shared.store, &name)).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        let name = queue.clone();
        self.shared.blocking(move |shared| purge(&shared.folders(&name)?.1)).await
    }

    async fn dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        let (name, query) = (queue.clone(), query.clone());
        self.shared
            .blocking(move |shared| {
                let (queue, folders) = shared.folders(&name)?;
                let found = dead::find(&folders, &queue, &query)?;
                Ok(found.into_iter().map(|found| found.letter).collect())
            })
            .await
    }

    async fn redrive(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        let (name, wanted) = (queue.clone(), query.clone());
        let (queue, folders, found) = self
            .shared
            .blocking(move |shared| {
                let (queue, folders) = shared.folders(&name)?;
                let found = dead::find(&folders, &queue, &wanted)?;
                Ok((queue, folders, found))
            })
            .await?;
        dead::redrive(&self.shared, &queue, &folders, found).await
    }

    async fn purge_dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        let (name, query) = (queue.clone(), query.clone());
        self.shared
            .blocking(move |shared| {
                let (queue, folders) = shared.folders(&name)?;
                dead::purge(&folders, &dead::find(&folders, &queue, &query)?)
            })
            .await
    }

    async fn cancel(&self, queue: &QueueName, id: &MessageId) -> Result<bool> {
        let (name, id) = (queue.clone(), id.clone());
        self.shared.blocking(move |shared| cancel(&shared.store, &shared.folders(&name)?.1, &id)).await
    }
}

fn is_gone(status: &Result<QueueStatus>) -> bool {
    matches!(status, Err(error) if Error::kind(error) == estafette_core::ErrorKind::NotFound)
}
