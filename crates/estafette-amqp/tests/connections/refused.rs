//! What a broker refuses is said with names and values.

use anyhow::{Result, bail, ensure};
use estafette_core::{Envelope, ErrorKind, MessageId, Outgoing, Pattern, QueueSpec, Topic};

use crate::{
    bare::Bare,
    message, queue,
    support::{self, connect},
};

#[tokio::test]
async fn names_the_user_that_is_refused() -> Result<()> {
    let url = format!("amqp://nobody:wrong@{}", support::address());
    let Err(error) = estafette_amqp::connect(url.parse()?).await else { anyhow::bail!("it connected") };
    ensure!(error.kind() == ErrorKind::Denied && error.report().contains("nobody"), "{}", error.report());
    ensure!(!error.report().contains("wrong"), "the error shows the password");
    Ok(())
}

#[tokio::test]
async fn names_both_values_when_a_queue_exists_with_other_settings() -> Result<()> {
    let transport = connect("").await?;
    let spec = QueueSpec::durable(queue());
    transport.declare(&spec).await?;
    let other = connect("queue_arguments=x-max-length:7").await?;
    let Err(error) = other.declare(&spec).await else { anyhow::bail!("it was declared") };
    let report = error.report();
    ensure!(error.kind() == ErrorKind::Conflict, "{report}");
    ensure!(
        report.contains(spec.name.as_str()) && report.contains("x-max-length") && report.contains('7'),
        "{report}"
    );
    let passive = connect("declare=passive").await?;
    passive.declare(&spec).await?;
    transport.admin().delete(&spec.name).await?;
    ensure!(passive.declare(&spec).await.is_err_and(|error| error.kind() == ErrorKind::NotFound));
    Ok(())
}

#[tokio::test]
async fn names_both_types_when_an_exchange_exists_with_another() -> Result<()> {
    let word = format!("refused-{}", MessageId::new());
    let mut other = Bare::connect().await?;
    other.declare_exchange(&word, "direct").await?;
    let transport = connect("").await?;
    let names_all =
        |report: &str| report.contains(&word) && report.contains("'direct'") && report.contains("'topic'");
    let spec = QueueSpec::durable(queue()).subscribe(Pattern::try_from(format!("{word}.*"))?);
    let Err(error) = transport.declare(&spec).await else { bail!("it was declared") };
    ensure!(error.kind() == ErrorKind::Conflict && names_all(&error.report()), "{}", error.report());
    let topic: Topic = format!("{word}.created").parse()?;
    for result in transport.publish(&[Outgoing::publish(Envelope::new(topic.clone(), "{}".into()))]).await {
        let Err(error) = result else { bail!("it was published") };
        ensure!(error.kind() == ErrorKind::Conflict && names_all(&error.report()), "{}", error.report());
    }
    // Used as it is when that is asked for.
    let passive = connect(&format!("exchange={word}&declare=passive")).await?;
    for result in passive.publish(&[Outgoing::publish(Envelope::new(topic, "{}".into()))]).await {
        ensure!(!result?.routing.is_routed());
    }
    transport.admin().delete(&spec.name).await?;
    other.delete_exchange(&word).await
}

#[tokio::test]
async fn names_the_virtual_host_that_is_refused() -> Result<()> {
    let url = format!("{}/nowhere", support::url());
    let Err(error) = estafette_amqp::connect(url.parse()?).await else { bail!("it connected") };
    ensure!(error.kind() == ErrorKind::Denied && error.report().contains("nowhere"), "{}", error.report());
    // The default one, by its name.
    estafette_amqp::connect(format!("{}/%2F", support::url()).parse()?).await?;
    Ok(())
}

#[tokio::test]
async fn publishes_on_after_its_channel_was_closed_by_an_error() -> Result<()> {
    let word = format!("closed-{}", MessageId::new());
    let topic: Topic = format!("{word}.created").parse()?;
    let transport = connect("").await?;
    let publish = || [Outgoing::publish(Envelope::new(topic.clone(), "{}".into()))];
    for result in transport.publish(&publish()).await {
        result?;
    }
    // Publishing to an exchange that is gone closes the channel.
    Bare::connect().await?.delete_exchange(&word).await?;
    for result in transport.publish(&publish()).await {
        ensure!(!result?.routing.is_routed());
    }
    Bare::connect().await?.delete_exchange(&word).await
}

#[tokio::test]
async fn reports_each_publication_whatever_the_window() -> Result<()> {
    let spec = QueueSpec::durable(queue());
    for window in [1, 3, 1000] {
        let transport = connect(&format!("window={window}")).await?;
        transport.declare(&spec).await?;
        let nobody: Topic = format!("nobody-{}.listens", MessageId::new()).parse()?;
        let mixed: Vec<_> = (0..50)
            .map(|number| match number % 2 {
                0 => Outgoing::send(spec.name.clone(), message(number)),
                _ => Outgoing::publish(Envelope::new(nobody.clone(), "{}".into())),
            })
            .collect();
        for (number, result) in transport.publish(&mixed).await.into_iter().enumerate() {
            ensure!(result?.routing.is_routed() == (number % 2 == 0), "window {window}, message {number}");
        }
    }
    connect("").await?.admin().delete(&spec.name).await?;
    Ok(())
}
