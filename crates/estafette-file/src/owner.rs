//! Who holds claims: every open transport has a file in `owners/`, locked as long as it lives.
//!
//! When a process ends, however it ends, the kernel lets go of the lock, so that others on the same machine can take back its
//! claims at once instead of waiting for the leases. A lock says nothing about another machine's processes (not every
//! network file system passes locks on), so there only the lease counts: the file tells the machine by its kernel's boot id.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use estafette_core::Result;
use rustix::{
    fs::{self, FlockOperation},
    io::Errno,
};

use crate::{disk, error, name::OwnerId};

#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    owners: OwnedFd,
    /// Locked while open.
    file: OwnedFd,
    machine: String,
}

impl Owner {
    /// Makes a new owner's file. It is locked before it gets its name, so that nobody sees it unlocked.
    pub(crate) fn register(owners: OwnedFd, tmp: BorrowedFd<'_>) -> Result<Self> {
        let id = random_id();
        let name = id.to_string();
        let machine = machine();
        let failed = |errno| error::io("making the lock file of this process", errno);
        // Not named like an owner's left-over, which another process would remove.
        let hidden = format!("lock-{name}");
        let file = disk::create_file(tmp, &hidden).map_err(failed)?;
        disk::write_all(&file, machine.as_bytes()).map_err(failed)?;
        fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
        fs::renameat(tmp, &*hidden, &owners, &*name).map_err(failed)?;
        Ok(Self { id, owners, file, machine })
    }

    /// The locked file, to read the store's time from.
    pub(crate) fn probe(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether `other` has certainly ended.
    pub(crate) fn is_dead(&self, other: OwnerId) -> bool {
        if other == self.id {
            return false;
        }
        let name = other.to_string();
        match disk::read_file(&self.owners, &name) {
            Err(Errno::NOENT) => true,
            Err(_) => false,
            Ok(machine) if machine != self.machine.as_bytes() => false,
            Ok(_) => is_unlocked(&self.owners, &name),
        }
    }

    /// Removes the files of owners that have ended. Their claims are as free without.
    pub(crate) fn forget_dead(&self) {
        let Ok(names) = disk::names(&self.owners) else { return };
        for name in names.iter().filter(|name| OwnerId::parse(name).is_some_and(|id| self.is_dead(id))) {
            // Somebody else was quicker, or may and we may not: as good.
            disk::remove_file(&self.owners, name).unwrap_or_default();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // What cannot be removed is unlocked in a moment, which says the same.
        disk::remove_file(&self.owners, &self.id.to_string()).unwrap_or_default();
    }
}

fn is_unlocked(owners: &OwnedFd, name: &str) -> bool {
    let Ok(file) = disk::open_file(owners, name) else { return false };
    fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok()
}

/// The id of this machine's running kernel; empty where there is none.
fn machine() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // Without an id every owner is a stranger: a word that no other process has says so.
    if id.trim().is_empty() { format!("unknown-{}", random_id()) } else { id.trim().to_owned() }
}

/// A number nobody else has. The standard library's hash keys come from the system's source of randomness.
pub(crate) fn random_id() -> OwnerId {
    use std::hash::{BuildHasher, RandomState};
    let first = RandomState::new().hash_one(std::process::id());
    let second = RandomState::new().hash_one(std::time::SystemTime::now());
    OwnerId((first ^ second.rotate_left(32)) >> (64 - OwnerId::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(directory: &std::path::Path) -> Owner {
        let open = || disk::open_dir(fs::CWD, directory.to_str().unwrap()).unwrap();
        disk::make_dir(open(), "owners").unwrap();
        let owners = disk::open_dir(open(), "owners").unwrap();
        Owner::register(owners, open().as_fd()).unwrap()
    }

    #[test]
    fn an_owner_is_dead_when_it_has_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (owner(directory.path()), owner(directory.path()));
        assert!(!one.is_dead(other.id) && !other.is_dead(one.id) && !one.is_dead(one.id));
        let id = other.id;
        drop(other);
        assert!(one.is_dead(id));
    }

    #[test]
    fn a_left_over_file_of_the_same_machine_is_dead_and_of_another_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let owner = owner(directory.path());
        std::fs::write(directory.path().join("owners/000000000001"), machine()).unwrap();
        std::fs::write(directory.path().join("owners/000000000002"), "another").unwrap();
        assert!(owner.is_dead(OwnerId(1)) && !owner.is_dead(OwnerId(2)));
        owner.forget_dead();
        assert!(!directory.path().join("owners/000000000001").exists());
        assert!(directory.path().join("owners/000000000002").exists());
    }
}
