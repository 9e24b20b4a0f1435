//! The kernel's word that a file was written to.

#[cfg(target_os = "linux")]
pub(super) use linux::Writes;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Writes;

#[cfg(target_os = "linux")]
mod linux {
    #![allow(
        unsafe_code,
        reason = "registering a descriptor with the runtime is unsafe; the block says why it may be"
    )]

    use std::{io, path::Path};

    use inotify::{Inotify, WatchMask};
    use tokio::io::unix::AsyncFd;

    /// Writes to one file, by whomever.
    pub(in crate::sqlite) struct Writes(AsyncFd<Inotify>);

    impl Writes {
        pub(in crate::sqlite) fn to(file: &Path) -> io::Result<Self> {
            let inotify = Inotify::init()?;
            inotify.watches().add(file, WatchMask::MODIFY)?;
            // SAFETY: the descriptor is open, and inotify closes it only when it is dropped, after the registration.
            let registered = unsafe { AsyncFd::register(inotify)? };
            Ok(Self(registered))
        }

        /// Waits for a write since the last one waited for.
        pub(in crate::sqlite) async fn next(&mut self) {
            let mut events = [0; 1024];
            // Fails only when the runtime shuts down.
            let Ok(mut ready) = self.0.readable_mut().await else { return std::future::pending().await };
            // What the events say is known; equal ones are merged by the kernel, so few are ever read.
            drop(ready.try_io(|inotify| inotify.get_mut().read_events(&mut events).map(drop)));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::{io, path::Path};

    /// Nothing tells of writes here.
    pub(in crate::sqlite) struct Writes;

    impl Writes {
        pub(in crate::sqlite) fn to(_file: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in crate::sqlite) async fn next(&mut self) {
            std::future::pending().await
        }
    }
}
