//! A group seen from outside: asking and steering one that runs.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use estafette_core::{Error, ErrorKind, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Address, GroupStatus, Limits, To, Worker,
    directory::{Directory, no_group},
    endpoint::{Endpoint, Identity},
    environment,
    members::{Members, actions},
};

/// How long the supervisor may take for what it does at once.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// A running group of this user on this host. Takes part as an outsider: it can send and ask, and listeners can answer it.
pub struct Group {
    worker: Worker,
}

impl Group {
    /// The group `name`, as it runs now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when no such group runs; [`ErrorKind::Denied`] when its directory is not private.
    pub async fn connect(name: &str) -> Result<Self> {
        Self::connect_below(&environment::runtime_root(), name).await
    }

    /// The group `name` whose supervisor was given `root` as its runtime directory.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    pub async fn connect_below(root: &Path, name: &str) -> Result<Self> {
        let directory = Directory::open(root, name)?;
        if !supervisor_listens(&directory).await {
            return Err(no_group(name));
        }
        let identity = Identity {
            address: Address::Outside(std::process::id()),
            incarnation: 0,
            group: name.to_owned(),
            directory,
        };
        let endpoint = Endpoint::start(identity, Limits::default(), Members::default());
        let worker = Worker::of(Arc::clone(&endpoint));
        let members: Members = worker.request(actions::LIST, &(), To::Supervisor, ANSWER_WAIT_MAX).await?;
        endpoint.set_members(members);
        Ok(Self { worker })
    }

    /// Everything the supervisor knows about the group.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] or [`ErrorKind::Unavailable`] when the supervisor has gone meanwhile.
    pub async fn status(&self) -> Result<GroupStatus> {
        self.worker.request(actions::STATUS, &(), To::Supervisor, ANSWER_WAIT_MAX).await
    }

    /// Replaces the processes one by one; returns when all are replaced, or after `wait_max`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when the group is being reloaded already; [`ErrorKind::TimedOut`] when it took longer, which
    /// does not stop it.
    pub async fn reload(&self, wait_max: Duration) -> Result<()> {
        self.worker.request(actions::RELOAD, &(), To::Supervisor, wait_max).await
    }

    /// Starts workers, or stops those of the highest ids, until there are `count`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for no workers at all, or too many.
    pub async fn scale(&self, count: u32) -> Result<()> {
        self.worker.request(actions::SCALE, &count, To::Supervisor, ANSWER_WAIT_MAX).await
    }

    /// Stops the group gracefully; returns when it has ended, or after `wait_max`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] when it still runs after `wait_max`.
    pub async fn stop(&self, wait_max: Duration) -> Result<()> {
        self.worker.stop_group().await?;
        let directory = &self.worker.endpoint().directory;
        let ended = async {
            // The lock is free when the supervisor has ended, whatever happened to it.
            while directory.lock().is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(wait_max, ended).await {
            Ok(()) => Ok(()),
            Err(_elapsed) => {
                let sentence = format!("the group has not ended within {wait_max:?}; it is still stopping");
                Err(Error::new(ErrorKind::TimedOut, sentence))
            }
        }
    }

    /// Sends to members of the group; see [`Worker::send`].
    ///
    /// # Errors
    ///
    /// Those of [`Worker::send`].
    pub async fn send<T: Serialize + ?Sized>(&self, action: &str, data: &T, to: To<'_>) -> Result<usize> {
        self.worker.send(action, data, to).await
    }

    /// Asks a member of the group; see [`Worker::request`].
    ///
    /// # Errors
    ///
    /// Those of [`Worker::request`].
    pub async fn request<T, R>(&self, action: &str, data: &T, to: To<'_>, wait_max: Duration) -> Result<R>
    where
        T: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.worker.request(action, data, to, wait_max).await
    }

    /// Asks several members of the group; see [`Worker::request_all`].
    ///
    /// # Errors
    ///
    /// Those of [`Worker::request_all`].
    pub async fn request_all<T, R>(
        &self,
        action: &str,
        data: &T,
        to: To<'_>,
        wait_max: Duration,
    ) -> Result<Vec<(Address, Result<R>)>>
    where
        T: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.worker.request_all(action, data, to, wait_max).await
    }

    /// Writes what is still waiting and disconnects. Without it, messages sent last may not leave.
    pub async fn close(self) {
        self.worker.endpoint().close().await;
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Group").field("name", &self.worker.group()).finish_non_exhaustive()
    }
}

async fn supervisor_listens(directory: &Directory) -> bool {
    let path = directory.socket(&Address::Supervisor, crate::wire::Wire::Frames);
    tokio::net::UnixStream::connect(path).await.is_ok()
}
