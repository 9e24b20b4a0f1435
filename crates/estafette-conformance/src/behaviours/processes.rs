//! Several processes on one store: publishers and consumers that are killed, frozen, and compete.

use crate::{stage::Stage, violation::Check};

pub(crate) async fn carries_messages_between_processes(_stage: &Stage) -> Check {
    Ok(())
}
pub(crate) async fn lets_one_of_eight_processes_claim(_stage: &Stage) -> Check {
    Ok(())
}
pub(crate) async fn counts_the_attempt_of_a_killed_consumer(_stage: &Stage) -> Check {
    Ok(())
}
pub(crate) async fn takes_over_from_a_frozen_consumer(_stage: &Stage) -> Check {
    Ok(())
}
pub(crate) async fn keeps_what_a_killed_publisher_stored(_stage: &Stage) -> Check {
    Ok(())
}
