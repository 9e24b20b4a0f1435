//! Asking one server for jobs, as long as somebody wants some.

use std::{sync::Arc, time::Duration};

use estafette_core::{Error, ErrorKind, Result, Timestamp};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    config::Endpoint,
    error,
    hold::{Fetched, Hold, IDLE},
    link::Link,
    names,
    protocol::{self, Packet, kind},
    servers::{Pause, Servers, refusal},
};

/// How many jobs are asked for first; twice as many as came after that.
pub(crate) const COUNT_FIRST: usize = 8;

/// Takes jobs from one server whenever the receiver wants some, until it ends.
pub(crate) async fn fetch(hold: Arc<Hold>, servers: Arc<Servers>, index: usize, endpoint: Endpoint) {
    let mut link: Option<Arc<Link>> = None;
    let mut pause = Pause::new();
    let mut count = COUNT_FIRST;
    while let Some(wanted) = wanted(&hold, index).await {
        let looked = look(&hold, &servers, &endpoint, &mut link, count.min(wanted)).await;
        match looked {
            Ok((_, 0)) => {
                count = COUNT_FIRST;
                pause = Pause::new();
                done(&hold, index, link.as_ref(), None);
                if let Some(link) = &link {
                    sleep(&hold, index, link).await;
                }
            }
            Ok((asked, came)) => {
                count = if came == asked { came * 2 } else { came.max(COUNT_FIRST) };
                pause = Pause::new();
                done(&hold, index, link.as_ref(), None);
            }
            Err(error) => {
                tracing::debug!(queue = %hold.queue, error = error.report(), "jobs cannot be fetched");
                hold.lock().forget(|link| !link.is_open());
                done(&hold, index, None, Some(error));
                let wait = tokio::time::sleep(pause.next());
                tokio::select! {
                    () = wait => {}
                    () = poked(&hold, index) => {}
                }
            }
        }
    }
}

async fn poked(hold: &Hold, index: usize) {
    match hold.pokes.get(index) {
        Some(poke) => poke.notified().await,
        None => std::future::pending().await,
    }
}

/// Waits until jobs are wanted and says how many; none when the receiver ends.
async fn wanted(hold: &Hold, index: usize) -> Option<usize> {
    loop {
        {
            let mut state = hold.lock();
            if state.ending {
                return None;
            }
            let count = state.wanted.saturating_sub(state.fresh.len());
            if count > 0 {
                if let Some(looks) = state.looks.get_mut(index) {
                    looks.begun += 1;
                }
                return Some(count);
            }
        }
        poked(hold, index).await;
    }
}

fn done(hold: &Hold, index: usize, link: Option<&Arc<Link>>, error: Option<Error>) {
    let mut state = hold.lock();
    if let Some(looks) = state.looks.get_mut(index) {
        looks.link = link.cloned();
        looks.done = looks.begun;
        looks.error = error;
    }
    drop(state);
    hold.changed.notify_one();
}

/// Asks for so many jobs once: how many were asked for, and how many came.
async fn look(
    hold: &Arc<Hold>,
    servers: &Servers,
    endpoint: &Endpoint,
    link: &mut Option<Arc<Link>>,
    count: usize,
) -> Result<(usize, usize)> {
    servers.check_open()?;
    let link = match link.as_ref().filter(|link| link.is_open()) {
        Some(link) => Arc::clone(link),
        None => {
            let opened = Arc::new(register(hold, servers, endpoint).await?);
            *link = Some(Arc::clone(&opened));
            opened
        }
    };
    let answered = ask(hold, &link, endpoint, count)?;
    let came = link.in_time(answered, servers.deadline()).await??;
    Ok((count, came))
}

/// Keeps the jobs among the answers, and returns how many.
fn keep(hold: &Hold, link: &Arc<Link>, endpoint: &Endpoint, answers: &[Packet]) -> Result<usize> {
    let jobs = answers.iter().map(|packet| fetched(link, endpoint, packet)).collect::<Result<Vec<_>>>()?;
    let mut state = hold.lock();
    let before = state.fresh.len();
    state.fresh.extend(jobs.into_iter().flatten());
    let came = state.fresh.len() - before;
    if state.wanted == 0 && came > 0 {
        // Should whoever wanted them have gone.
        hold.look_at(&mut state, Instant::now() + IDLE);
    }
    Ok(came)
}

/// Asks for so many jobs, and says how many came. They are kept whether anybody waits for that or not, in the order of the
/// questions.
pub(crate) fn ask(
    hold: &Arc<Hold>,
    link: &Arc<Link>,
    endpoint: &Endpoint,
    count: usize,
) -> Result<oneshot::Receiver<Result<usize>>> {
    let (done, answered) = oneshot::channel();
    let (asking, endpoint, weak) = (Arc::clone(hold), endpoint.clone(), Arc::downgrade(link));
    hold.lock().asking += 1;
    let begun = link.begin(&grabs(count), count, move |answers| {
        let came = match (answers, weak.upgrade()) {
            (Ok(answers), Some(link)) => keep(&asking, &link, &endpoint, &answers),
            (Err(error), _) => Err(error),
            // Nobody has the connection any more: the server gets its jobs back.
            (Ok(_), None) => Ok(0),
        };
        let mut state = asking.lock();
        state.asking -= 1;
        asking.look_for_the_end(&state);
        drop(state);
        asking.changed.notify_one();
        drop(done.send(came));
    });
    if let Err(error) = begun {
        hold.lock().asking -= 1;
        return Err(error);
    }
    Ok(answered)
}

async fn register(hold: &Hold, servers: &Servers, endpoint: &Endpoint) -> Result<Link> {
    let link = Link::open(endpoint, &servers.config).await?;
    let mut requests = Vec::new();
    for function in names::taken(&hold.queue) {
        protocol::put(&mut requests, kind::CAN_DO, &[function.as_bytes()]);
    }
    link.tell(&requests)?;
    Ok(link)
}

/// Asks for so many jobs; each answer is one or says that there is none.
pub(crate) async fn grab(link: &Link, count: usize, deadline: Instant) -> Result<Vec<Packet>> {
    link.call(&grabs(count), count, deadline).await
}

fn grabs(count: usize) -> Vec<u8> {
    let mut requests = Vec::with_capacity(12 * count);
    for _ in 0..count {
        protocol::put(&mut requests, kind::GRAB_JOB_UNIQ, &[]);
    }
    requests
}

/// The job in an answer; none when it says so.
pub(crate) fn fetched(link: &Arc<Link>, endpoint: &Endpoint, packet: &Packet) -> Result<Option<Fetched>> {
    match packet.kind {
        kind::NO_JOB => Ok(None),
        kind::JOB_ASSIGN_UNIQ => {
            let [handle, function, unique, data] =
                packet.arguments().map_err(|malformed| error::malformed(endpoint, malformed))?;
            Ok(Some(Fetched { link: Arc::clone(link), handle, function, unique, data }))
        }
        _ => Err(refusal(packet)),
    }
}

/// Waits until there may be a job. A server says so when one is submitted, but not when the time of a delayed one has come;
/// that is at a full second.
async fn sleep(hold: &Hold, index: usize, link: &Link) {
    let mut request = Vec::new();
    protocol::put(&mut request, kind::PRE_SLEEP, &[]);
    if let Err(error) = link.tell(&request) {
        debug_assert_ne!(error.kind(), ErrorKind::Closed, "met again when asking");
        return;
    }
    tokio::select! {
        () = link.woken() => {}
        () = poked(hold, index) => {}
        () = tokio::time::sleep(to_next_second()) => {}
    }
}

fn to_next_second() -> Duration {
    let micros = Timestamp::now().as_micros().rem_euclid(1_000_000);
    // A server reads its clock in whole seconds, a moment late.
    Duration::from_micros(u64::try_from(1_000_000 - micros).unwrap_or(0)) + Duration::from_millis(5)
}
