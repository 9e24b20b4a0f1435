//! Sockets: plain and with TLS.

use std::{pin::Pin, sync::Arc};

use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::config::{Endpoint, Tls};

/// The two directions of a socket.
pub(crate) struct Stream {
    pub(crate) read: Pin<Box<dyn AsyncRead + Send>>,
    pub(crate) write: Pin<Box<dyn AsyncWrite + Send>>,
}

pub(crate) async fn connect(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Stream> {
    let unavailable = |source: std::io::Error| {
        Error::new(ErrorKind::Unavailable, format!("{endpoint} cannot be reached: {source}"))
    };
    let socket = TcpStream::connect((&*endpoint.host, endpoint.port)).await.map_err(unavailable)?;
    // Frames are gathered before they are written; waiting for more would only add latency.
    socket.set_nodelay(true).map_err(unavailable)?;
    let Some(tls) = tls else {
        let (read, write) = socket.into_split();
        return Ok(Stream { read: Box::pin(read), write: Box::pin(write) });
    };
    let name = tls.server_name.as_deref().unwrap_or(&endpoint.host).to_owned();
    let name = ServerName::try_from(name).map_err(|source| Error::new(ErrorKind::InvalidInput, source))?;
    let connector = TlsConnector::from(Arc::new(client_config(tls)?));
    let socket = connector.connect(name, socket).await.map_err(|source| {
        // A certificate that is not trusted does not become so by trying again.
        let kind = if source.kind() == std::io::ErrorKind::InvalidData {
            ErrorKind::Denied
        } else {
            ErrorKind::Unavailable
        };
        Error::new(kind, format!("TLS with {endpoint} failed: {source}"))
    })?;
    let (read, write) = tokio::io::split(socket);
    Ok(Stream { read: Box::pin(read), write: Box::pin(write) })
}

fn client_config(tls: &Tls) -> Result<ClientConfig> {
    let invalid = |what: String| Error::new(ErrorKind::InvalidInput, what);
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            let unreadable = |source: String| invalid(format!("cacertfile {}: {source}", path.display()));
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|source| unreadable(source.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|source| unreadable(source.to_string()))?;
                roots.add(certificate).map_err(|source| unreadable(source.to_string()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a certificate of the system cannot be read");
            }
            // Some systems list roots that rustls does not accept; the others do.
            let (_added, _ignored) = roots.add_parsable_certificates(found.certs);
        }
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| invalid(source.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
