//! The directory of a group: where its sockets are, and the proof that nobody else can reach them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use estafette_core::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;

use crate::{
    Address,
    address::check_name,
    error::{invalid, system},
    wire::Wire,
};

/// The longest path a Unix socket can have, in bytes, without the zero behind it.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A directory that only its owner can enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// The directory of the group `name` below `root`, made when it is missing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] when somebody else owns it or may enter it; [`ErrorKind::InvalidInput`] for a name or root
    /// that makes the paths of sockets too long.
    pub(crate) fn create(root: &Path, name: &str) -> Result<Self> {
        let directory = Self::of(root, name)?;
        make_private(root)?;
        make_private(&directory.0)?;
        Ok(directory)
    }

    /// The directory of the group `name` below `root`, which must exist.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when it does not exist, and those of [`create`](Self::create).
    pub(crate) fn open(root: &Path, name: &str) -> Result<Self> {
        let directory = Self::of(root, name)?;
        if !directory.0.exists() {
            return Err(no_group(name));
        }
        check_private(root)?;
        check_private(&directory.0)?;
        Ok(directory)
    }

    /// A directory that the supervisor has made, as a worker is told it.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create).
    pub(crate) fn existing(path: PathBuf) -> Result<Self> {
        check_private(&path)?;
        Ok(Self(path))
    }

    fn of(root: &Path, name: &str) -> Result<Self> {
        check_name(name, "group")?;
        let directory = Self(root.join(name));
        let longest = directory.0.as_os_str().len() + 1 + crate::NAME_BYTES_MAX + ".lines".len();
        if longest > SOCKET_PATH_BYTES_MAX {
            let shown = directory.0.display();
            return Err(invalid(format!(
                "{shown} is too long: sockets below it may reach {longest} bytes; the limit is {SOCKET_PATH_BYTES_MAX}"
            )));
        }
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The socket on which `address` accepts connections that speak `wire`.
    pub(crate) fn socket(&self, address: &Address, wire: Wire) -> PathBuf {
        let extension = match wire {
            Wire::Frames => "sock",
            Wire::Lines => "lines",
        };
        self.0.join(format!("{address}.{extension}"))
    }

    /// Removes what a participant that no longer runs has left.
    pub(crate) fn remove_sockets(&self, address: &Address) -> Result<()> {
        for wire in [Wire::Frames, Wire::Lines] {
            match fs::remove_file(self.socket(address, wire)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(system("removing an old socket", error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The sole right to supervise this group, held as long as the file is open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when another supervisor holds it.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.0.join("lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = opened.map_err(|error| system("opening the group's lock", error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let sentence = format!("a group with this name runs already in {}", self.0.display());
                Err(Error::new(ErrorKind::Conflict, sentence))
            }
            Err(error) => Err(system("locking the group's lock", error)),
        }
    }
}

pub(crate) fn no_group(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no group named {name} runs"))
}

fn make_private(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(system(&format!("making {}", path.display()), error))
        }
        _ => check_private(path),
    }
}

fn check_private(path: &Path) -> Result<()> {
    // Not following links: a link could lead into somebody else's directory.
    let found = fs::symlink_metadata(path).map_err(|error| system(&path.display().to_string(), error))?;
    let denied = |problem: &str| {
        let sentence = format!("{} {problem}; sockets there would not be private", path.display());
        Err(Error::new(ErrorKind::Denied, sentence))
    };
    if !found.is_dir() {
        return denied("is no directory");
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return denied("belongs to another user");
    }
    if found.mode() & 0o077 != 0 {
        return denied("can be entered by other users");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_directory_is_made_private_and_an_open_one_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("estafette");
        let directory = Directory::create(&root, "app").unwrap();
        assert_eq!(fs::metadata(directory.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(Directory::create(&root, "app").unwrap(), directory);

        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(Directory::create(&root, "app").unwrap_err().kind(), ErrorKind::Denied);
        symlink("/tmp", root.join("link")).unwrap();
        assert_eq!(Directory::create(&root, "link").unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(Directory::open(&root, "other").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(Directory::create(&root, "../app").unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_second_supervisor_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::create(&root.path().join("e"), "app").unwrap();
        let held = directory.lock().unwrap();
        assert_eq!(directory.lock().unwrap_err().kind(), ErrorKind::Conflict);
        drop(held);
        assert!(directory.lock().is_ok());
    }
}
