//! TLS from PEM files.

use std::path::Path;

use tokio_rustls::rustls::{
    self, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::error::{Error, ErrorKind};

/// A configuration with the certificate chain and the key of these files.
///
/// # Errors
/// [`ErrorKind::Tls`] when a file cannot be read, or the key does not belong to the certificate.
pub fn config(certificate: &Path, key: &Path) -> Result<ServerConfig, Error> {
    let failed = |what: &Path, error: Box<dyn std::error::Error + Send + Sync>| {
        Error::with(ErrorKind::Tls(format!("{} cannot be used", what.display())), error)
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(certificate, error.into()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error.into()))?;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| failed(key, error.into()))
}
