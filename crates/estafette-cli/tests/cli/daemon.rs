//! Consuming and forwarding as services: what a supervisor sees.

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use crate::vocabulary::{Place, end, signal};

/// Where systemd would listen.
struct Systemd(UnixDatagram);

impl Systemd {
    fn listen(place: &Place) -> (Self, std::path::PathBuf) {
        let path = place.directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (Self(socket), path)
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 1000];
        let count = self.0.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).trim().to_owned()
    }

    /// What is said next that is not only a sign of life.
    fn hear_news(&self) -> String {
        loop {
            let said = self.hear();
            if said != "WATCHDOG=1" {
                return said;
            }
        }
    }
}

fn start(mut command: Command, socket: &Path) -> Child {
    command.env("NOTIFY_SOCKET", socket).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn systemd_hears_of_readiness_and_of_the_end() {
    let place = Place::file();
    let (systemd, socket) = Systemd::listen(&place);
    let bridge = ["bridge", "--from", &place.url, "out", "--to", "memory:"];
    for arguments in [&["consume", "work"] as &[&str], &bridge] {
        let running = start(place.command(arguments), &socket);
        assert_eq!(systemd.hear(), "READY=1");
        signal(running.id(), Signal::TERM);
        assert_eq!(systemd.hear(), "STOPPING=1");
        assert_eq!(end(running).status, 0);
    }
}

#[test]
fn the_watchdog_hears_signs_of_life() {
    let place = Place::file();
    let (systemd, socket) = Systemd::listen(&place);
    let mut command = place.command(&["consume", "work"]);
    command.env("WATCHDOG_USEC", "20000");
    let running = start(command, &socket);
    assert_eq!(systemd.hear_news(), "READY=1");
    for _ in 0..5 {
        assert_eq!(systemd.hear(), "WATCHDOG=1");
    }
    signal(running.id(), Signal::TERM);
    assert_eq!(systemd.hear_news(), "STOPPING=1");
    assert_eq!(end(running).status, 0);
}

#[test]
fn the_file_with_the_number_is_held_and_removed() {
    let place = Place::file();
    let (systemd, socket) = Systemd::listen(&place);
    let consume = ["consume", "work", "--pid-file", "work.pid"];
    let running = start(place.command(&consume), &socket);
    assert_eq!(systemd.hear(), "READY=1");
    let path = place.directory.path().join("work.pid");
    let number = std::fs::read_to_string(&path).unwrap();
    let complaint = place.run(&consume).fails(1);
    assert!(complaint.contains(&format!("held by process {}", number.trim())), "{complaint}");
    signal(running.id(), Signal::TERM);
    assert_eq!(end(running).status, 0);
    assert!(!path.exists());
}

#[test]
fn the_file_of_a_killed_process_is_no_obstacle() {
    let place = Place::file();
    std::fs::write(place.directory.path().join("work.pid"), "1\n").unwrap();
    place.ok(&["consume", "work", "--pid-file", "work.pid", "--until-empty"]);
}
