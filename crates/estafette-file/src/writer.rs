//! Group commit: one thread stores for everybody in this process.
//!
//! It takes all requests that wait, sorts their lines onto sheets, writes and flushes each sheet and each directory once, and
//! answers all. While it flushes, the next requests gather, so that the more publishers there are, the more share a flush.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use estafette_core::{Error, Result};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::{
    error,
    sheet::{Slot, Sorter},
    store::Store,
    write::Disk,
};

/// How much may wait for the thread, in KiB: beyond, publishers wait.
const WAITING_KIB_MAX: u32 = 128 << 10;

/// So much of it belongs to a request however small it is: at most 8,192 wait.
const REQUEST_KIB_MIN: u32 = 16;

/// Lines to be stored.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) bytes: Vec<u8>,
    /// For each line: where it ends in `bytes`, and where it goes.
    pub(crate) items: Vec<(usize, Slot)>,
}

impl Lines {
    /// Ends a line that was appended to `bytes`, line feed included.
    pub(crate) fn end_line(&mut self, slot: Slot) {
        self.items.push((self.bytes.len(), slot));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

struct Request {
    lines: Lines,
    reply: oneshot::Sender<Vec<Result<()>>>,
}

/// Hands requests to the thread, which is started by the first one.
pub(crate) struct Writer {
    store: Arc<Store>,
    shared: Arc<Shared>,
    room: Semaphore,
    started: OnceLock<Result<()>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics half way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let room = Semaphore::new(WAITING_KIB_MAX as usize);
        Self { store, shared: Arc::default(), room, started: OnceLock::new() }
    }

    /// Stores lines: one result for each, in order.
    ///
    /// When the future is dropped before it ends, the lines may or may not be stored.
    pub(crate) async fn store(&self, lines: Lines) -> Vec<Result<()>> {
        let count = lines.items.len();
        match self.hand_over(lines).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); count],
        }
    }

    async fn hand_over(&self, lines: Lines) -> Result<Vec<Result<()>>> {
        self.started.get_or_init(|| self.start()).clone()?;
        let _room = self.room_for(lines.bytes.len()).await?;
        let (reply, answer) = oneshot::channel();
        self.shared.lock().requests.push_back(Request { lines, reply });
        self.shared.arrived.notify_one();
        answer.await.map_err(|_ended| error::no_answer("storing"))
    }

    async fn room_for(&self, bytes: usize) -> Result<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(REQUEST_KIB_MIN, WAITING_KIB_MAX);
        self.room.acquire_many(kib).await.map_err(|_closed| error::closed())
    }

    fn start(&self) -> Result<()> {
        let (store, shared) = (Arc::clone(&self.store), Arc::clone(&self.shared));
        let run = move || run(&store, &shared);
        match thread::Builder::new().name("estafette-file-writer".into()).spawn(run) {
            Ok(_detached) => Ok(()),
            Err(source) => Err(error::std_io("starting the writer's thread", &source)),
        }
    }
}

impl Drop for Writer {
    /// The thread ends when it has stored what it was given.
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.arrived.notify_one();
    }
}

fn run(store: &Store, shared: &Shared) {
    let mut disk = Disk::new();
    while let Some(requests) = next_requests(shared) {
        commit(store, &mut disk, requests);
        disk.prepare(store);
    }
}

/// Everything that waits, as soon as there is something; none when there will never be.
fn next_requests(shared: &Shared) -> Option<VecDeque<Request>> {
    let mut waiting = shared.lock();
    loop {
        if !waiting.requests.is_empty() {
            return Some(std::mem::take(&mut waiting.requests));
        }
        if waiting.ended {
            return None;
        }
        waiting = shared.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
    }
}

fn commit(store: &Store, disk: &mut Disk, requests: VecDeque<Request>) {
    store.clock.keep_right(store.owner.probe());
    let mut sorter = Sorter::new(store);
    let mut results: Vec<Vec<Result<()>>> = Vec::with_capacity(requests.len());
    for (number, request) in requests.iter().enumerate() {
        let mut start = 0;
        for (index, (end, slot)) in request.lines.items.iter().enumerate() {
            sorter.add(request.lines.bytes.get(start..*end).unwrap_or_default(), slot, (number, index));
            start = *end;
        }
        results.push(vec![Ok(()); request.lines.items.len()]);
    }
    let failed = disk.write(store, &sorter.sheets);
    for (sheet, error) in sorter.sheets.iter().zip(failed) {
        let Some(error) = error else { continue };
        fail(&mut results, &sheet.items, &error);
    }
    for (request, results) in requests.into_iter().zip(results) {
        // Who does not wait for the answer any more does not get it.
        request.reply.send(results).unwrap_or_default();
    }
}

fn fail(results: &mut [Vec<Result<()>>], items: &[(usize, usize)], error: &Error) {
    for &(request, item) in items {
        if let Some(result) = results.get_mut(request).and_then(|results| results.get_mut(item)) {
            *result = Err(error.clone());
        }
    }
}
