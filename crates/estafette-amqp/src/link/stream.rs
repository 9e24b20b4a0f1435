//! Sockets: plain and with TLS.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, tcp::OwnedWriteHalf},
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
    /// The socket itself, where that is what is written to.
    pub(crate) direct: Option<Direct>,
}

/// A socket that several may write to, as long as they take turns. The last one dropped ends the stream of what is written.
#[derive(Clone)]
pub(crate) struct Direct(Arc<OwnedWriteHalf>);

impl Direct {
    /// Writes what the socket takes at once, and returns how much that was. Whoever has to wait or to hear of errors writes
    /// the rest in the usual way.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> usize {
        self.0.try_write(bytes).unwrap_or(0)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket: &TcpStream = (*self.0).as_ref();
        loop {
            match socket.poll_write_ready(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Poll::Pending,
            }
            match socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Done by dropping the last one.
        Poll::Ready(Ok(()))
    }
}

pub(crate) async fn connect(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Stream> {
    let unavailable = |source: io::Error| {
        Error::new(ErrorKind::Unavailable, format!("{endpoint} cannot be reached: {source}"))
    };
    // First, so that a mistake in the settings is heard of although no broker answers.
    let encryption = tls.map(|tls| Ok::<_, Error>((client_config(tls)?, server_name(tls, endpoint)?)));
    let encryption = encryption.transpose()?;
    let socket = TcpStream::connect((&*endpoint.host, endpoint.port)).await.map_err(unavailable)?;
    // Frames are gathered before they are written; waiting for more would only add latency.
    socket.set_nodelay(true).map_err(unavailable)?;
    let Some((config, name)) = encryption else {
        let (read, write) = socket.into_split();
        let direct = Direct(Arc::new(write));
        return Ok(Stream { read: Box::pin(read), write: Box::pin(direct.clone()), direct: Some(direct) });
    };
    let connector = TlsConnector::from(Arc::new(config));
    let socket = connector.connect(name, socket).await.map_err(|source| {
        // A certificate that is not trusted does not become so by trying again.
        let kind = if source.kind() == io::ErrorKind::InvalidData {
            ErrorKind::Denied
        } else {
            ErrorKind::Unavailable
        };
        Error::new(kind, format!("TLS with {endpoint} failed: {source}"))
    })?;
    let (read, write) = tokio::io::split(socket);
    Ok(Stream { read: Box::pin(read), write: Box::pin(write), direct: None })
}

/// The name in the broker's certificate.
fn server_name(tls: &Tls, endpoint: &Endpoint) -> Result<ServerName<'static>> {
    let name = tls.server_name.as_deref().unwrap_or(&endpoint.host).to_owned();
    ServerName::try_from(name).map_err(|source| Error::new(ErrorKind::InvalidInput, source))
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
