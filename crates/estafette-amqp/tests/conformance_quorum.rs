//! The contract, against a real broker: quorum queues.

#![allow(clippy::panic, reason = "a test fails by panicking")]

estafette_conformance::suite!(estafette_amqp::connect, |_directory| {
    let Ok(url) = std::env::var("ESTAFETTE_TEST_AMQP_URL") else {
        panic!(
            "this test needs RabbitMQ: run `scripts/services up`, then `eval \"$(scripts/services env)\"`"
        );
    };
    format!("{url}?heartbeat=3s&queue_type=quorum")
});
