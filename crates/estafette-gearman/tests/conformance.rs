//! The contract, as far as Gearman can keep it, against a real server.

#![allow(clippy::panic, reason = "a test fails by panicking")]

estafette_conformance::suite!(estafette_gearman::connect, |directory| {
    let Ok(url) = std::env::var("ESTAFETTE_TEST_GEARMAN_URL") else {
        panic!(
            "this test needs gearmand: run `scripts/services up`, then `eval \"$(scripts/services env)\"`"
        );
    };
    format!("{url}?state={}", directory.display())
});
