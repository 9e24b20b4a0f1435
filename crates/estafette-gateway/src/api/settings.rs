//! What the API is told: addresses, users, limits, with their defaults.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::access::User;

/// The API's settings.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Where backends connect; 127.0.0.1:6789 by default. Another address than a loopback one needs a user.
    pub management: Option<SocketAddr>,
    /// Where backends ask for the nodes; 127.0.0.1:6787 by default.
    pub discovery: Option<SocketAddr>,
    /// `host` or `host:port` under which backends reach this node's management address. By default the address itself or,
    /// if that means all interfaces, the one on which a backend asks.
    pub advertise: Option<String>,
    /// Who may use the management address; everybody who reaches it, by default.
    pub users: Vec<User>,
    /// Bytes of one request; 1 MiB by default.
    pub request_max: usize,
    /// Connections at a time on each address; 1,024 by default.
    pub connections_max: usize,
}

impl Default for ApiSettings {
    fn default() -> Self {
        let local = |port| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self {
            management: local(6789),
            discovery: local(6787),
            advertise: None,
            users: Vec::new(),
            request_max: 1 << 20,
            connections_max: 1_024,
        }
    }
}

impl ApiSettings {
    /// Refuses what would let anybody send to the connections.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.management {
            Some(address) if is_public(address) && self.users.is_empty() => Err(unprotected(address)),
            _ => Ok(()),
        }
    }
}

pub(crate) fn is_public(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

pub(crate) fn unprotected(address: SocketAddr) -> io::Error {
    let sentence = format!(
        "the management API is not opened on {address} without a user: add one to access.users, or bind it to 127.0.0.1"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, sentence)
}

/// `host:port` that a backend which came to `local` can use.
pub(crate) fn advertised(setting: Option<&str>, bound: SocketAddr, local: IpAddr) -> String {
    match setting {
        Some(name) if has_port(name) => name.to_owned(),
        Some(name) => format!("{name}:{}", bound.port()),
        None if bound.ip().is_unspecified() => {
            SocketAddr::new(local.to_canonical(), bound.port()).to_string()
        }
        None => bound.to_string(),
    }
}

fn has_port(name: &str) -> bool {
    name.rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::access::Roles;

    #[test]
    fn a_public_address_needs_a_user() {
        let mut settings = ApiSettings::default();
        assert!(settings.check().is_ok());
        settings.management = Some("0.0.0.0:6789".parse().unwrap());
        assert_eq!(settings.check().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let roles = Roles::ALL;
        settings.users.push(User { username: "a".into(), password: "b".into(), roles, host: "*".into() });
        assert!(settings.check().is_ok());
    }

    #[test]
    fn the_advertised_address_can_be_reached() {
        let local = "10.0.0.7".parse().unwrap();
        let any = "0.0.0.0:6789".parse().unwrap();
        assert_eq!(advertised(None, any, local), "10.0.0.7:6789");
        assert_eq!(advertised(Some("gw"), any, local), "gw:6789");
        assert_eq!(advertised(Some("gw:80"), any, local), "gw:80");
        assert_eq!(advertised(None, "127.0.0.1:1".parse().unwrap(), local), "127.0.0.1:1");
    }
}
