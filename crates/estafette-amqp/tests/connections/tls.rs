//! `amqps:` with certificates made for the test, at a proxy that takes the encryption off.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use estafette_core::{ErrorKind, MessageId, Outgoing, QueueSpec, ReceiveOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use crate::{message, queue, support};

const NAME: &str = "broker.test";

/// A broker with TLS, whose certificate is for [`NAME`].
struct Encrypted {
    port: u16,
    /// The authority that signed the certificate.
    ca_file: PathBuf,
}

impl Encrypted {
    async fn start() -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([NAME.to_owned()])?.signed_by(&key, &authority)?;
        let ca_file = std::env::temp_dir().join(format!("estafette-ca-{}.pem", MessageId::new()));
        std::fs::write(&ca_file, authority.pem())?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut broker = TcpStream::connect(support::address()).await?;
                    copy_bidirectional(&mut client, &mut broker).await
                });
            }
        });
        Ok(Self { port, ca_file })
    }

    fn url(&self, settings: &str) -> String {
        format!("amqps://guest:guest@127.0.0.1:{}?{settings}", self.port)
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.ca_file));
    }
}

#[tokio::test]
async fn speaks_tls_with_a_broker_whose_authority_is_given() -> Result<()> {
    let broker = Encrypted::start().await?;
    let url = broker.url(&format!("cacertfile={}&server_name={NAME}", broker.ca_file.display()));
    let transport = estafette_amqp::connect(url.parse()?).await?;
    let queue = queue();
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    let batch: Vec<_> = (0..500).map(|number| Outgoing::send(queue.clone(), message(number))).collect();
    for result in transport.publish(&batch).await {
        result?;
    }
    let mut receiver = transport.receiver(&queue, ReceiveOptions::default()).await?;
    let mut came = 0;
    while came < batch.len() {
        let deliveries = receiver.receive(100, Duration::from_secs(10)).await?;
        ensure!(!deliveries.is_empty(), "only {came} came");
        came += deliveries.len();
        for delivery in deliveries {
            delivery.ack().await?;
        }
    }
    receiver.close().await?;
    transport.admin().delete(&queue).await?;
    Ok(())
}

#[tokio::test]
async fn refuses_a_certificate_it_cannot_trust() -> Result<()> {
    let broker = Encrypted::start().await?;
    let another = Encrypted::start().await?;
    let of_another = format!("cacertfile={}&server_name={NAME}", another.ca_file.display());
    let of_another_host = format!("cacertfile={}", broker.ca_file.display());
    for settings in [of_another, of_another_host, format!("server_name={NAME}")] {
        let connected = estafette_amqp::connect(broker.url(&settings).parse()?).await;
        let Err(error) = connected else { bail!("it trusted with {settings}") };
        ensure!(error.kind() == ErrorKind::Denied, "{settings}: {}", error.report());
        ensure!(error.report().contains("certificate"), "{settings}: {}", error.report());
    }
    Ok(())
}

#[tokio::test]
async fn says_which_file_of_certificates_cannot_be_read() -> Result<()> {
    let url = "amqps://127.0.0.1:1?cacertfile=/nowhere/ca.pem";
    let error = estafette_amqp::connect(url.parse()?).await.err().context("it connected")?;
    ensure!(error.report().contains("/nowhere/ca.pem"), "{}", error.report());
    Ok(())
}
