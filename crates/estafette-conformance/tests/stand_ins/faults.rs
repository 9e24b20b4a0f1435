//! The ways in which a stand-in is broken, and the behaviours that must notice.

/// One thing a stand-in does wrong. Everything else it does as the transport it stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    // Publishing.
    LosesEverySeventh,
    StoresTwice,
    LosesEmptyHeaders,
    TrimsBodies,
    CutsLargeBodies,
    AcceptsTooLarge,
    GivesUpAtTheFirstFailure,
    SaysRouted,
    RefusesUndeclaredQueues,
    IgnoresTopics,
    // Receiving.
    NeverWaits,
    AlwaysWaits,
    NoticesLate,
    TakesOneMore,
    AcksWhenReceived,
    IgnoresTheUnsettledMaximum,
    // Order.
    ReversesBatches,
    IgnoresKeys,
    AlwaysOrdersByKey,
    // Settling.
    ForgetsAcks,
    LosesRetries,
    RetriesAtOnce,
    StopsDuringRetries,
    DeletesRejected,
    AcksDropped,
    IgnoresFences,
    SettlesOnlyTheFirst,
    // Attempts.
    ForgetsAttempts,
    CountsOnlyRetries,
    CountsReleases,
    // Leases.
    LeasesForever,
    LeasesTooShort,
    PretendsToExtend,
    FetchesAhead,
    // Subscriptions.
    SkipsTheSecondQueue,
    KeepsTemporaryQueues,
    KeepsSubscriptions,
    ReplacesPatterns,
    KeepsDeletedQueues,
    // Delay and expiry.
    IgnoresDelays,
    QueuesUpDelays,
    IgnoresExpiry,
    ForgetsExpired,
    PretendsToCancel,
    // Dead letters.
    ForgetsErrors,
    IgnoresQueries,
    RedrivesEverything,
    RedrivesToAll,
    RedrivesKeepingAttempts,
    RedrivesInTwoSteps,
    // Looking after queues.
    SaysNothingIsLeased,
    PurgesDeadLetters,
    InventsQueues,
    PromisesNothing,
    // Opening and closing.
    StaysOpen,
    ClosesOnce,
}

/// Each fault with behaviours that must be violated by it; other behaviours may be too.
pub(crate) const NOTICED: &[(Fault, &[&str])] = &[
    (
        Fault::LosesEverySeventh,
        &[
            "publish::carries_what_was_published_before_anybody_listened",
            "publish::stores_a_large_batch_whole",
            "publish::loses_nothing_among_many_publishers_and_consumers",
        ],
    ),
    (
        Fault::StoresTwice,
        &[
            "publish::carries_what_was_published_before_anybody_listened",
            "subscriptions::copies_once_to_a_queue_with_overlapping_patterns",
            "subscriptions::shares_a_queue_among_its_consumers",
        ],
    ),
    (Fault::LosesEmptyHeaders, &["publish::keeps_headers_and_attributes"]),
    (Fault::TrimsBodies, &["publish::keeps_every_byte_of_a_body"]),
    (
        Fault::CutsLargeBodies,
        &["publish::carries_bodies_of_many_sizes", "publish::carries_a_body_as_large_as_allowed"],
    ),
    (Fault::AcceptsTooLarge, &["publish::refuses_a_body_over_the_limit"]),
    (Fault::GivesUpAtTheFirstFailure, &["publish::reports_each_message_of_a_batch"]),
    (Fault::SaysRouted, &["publish::says_when_no_queue_took_it"]),
    (Fault::RefusesUndeclaredQueues, &["publish::sends_to_a_queue_nobody_declared"]),
    (Fault::IgnoresTopics, &["publish::keeps_queues_apart", "subscriptions::matches_patterns"]),
    (Fault::NeverWaits, &["receive::waits_no_shorter_than_asked"]),
    (Fault::AlwaysWaits, &["receive::looks_without_waiting"]),
    (
        Fault::NoticesLate,
        &["receive::wakes_up_for_a_message", "lifecycle::wakes_a_waiting_receiver_when_closed"],
    ),
    (Fault::TakesOneMore, &["receive::takes_no_more_than_asked"]),
    (
        Fault::AcksWhenReceived,
        &[
            "receive::loses_nothing_when_cancelled",
            "settlement::redelivers_after_retry",
            "settlement::survives_many_retries_by_many_consumers",
            "settlement::keeps_a_rejected_message_as_a_dead_letter",
            "leases::redelivers_when_a_lease_ends",
            "dead_letters::redrives_to_its_own_queue_only",
        ],
    ),
    (Fault::IgnoresTheUnsettledMaximum, &["receive::holds_back_beyond_the_unsettled_maximum"]),
    (Fault::ReversesBatches, &["order::keeps_the_order_of_publishing"]),
    (
        Fault::IgnoresKeys,
        &[
            "order::keeps_the_order_of_each_key_among_many_consumers",
            "order::holds_a_key_back_while_one_is_out",
            "order::holds_a_key_back_during_a_retry",
        ],
    ),
    (Fault::AlwaysOrdersByKey, &["order::holds_no_key_back_unasked"]),
    (
        Fault::ForgetsAcks,
        &["settlement::never_redelivers_what_was_acked", "settlement::settles_in_any_order_from_any_task"],
    ),
    (
        Fault::LosesRetries,
        &["settlement::redelivers_after_retry", "settlement::waits_before_a_retry_and_lets_others_pass"],
    ),
    (
        Fault::RetriesAtOnce,
        &["settlement::waits_before_a_retry_and_lets_others_pass", "attempts::releases_after_a_delay"],
    ),
    (
        Fault::StopsDuringRetries,
        &["settlement::waits_before_a_retry_and_lets_others_pass", "admin::counts_what_waits"],
    ),
    (
        Fault::DeletesRejected,
        &[
            "settlement::keeps_a_rejected_message_as_a_dead_letter",
            "settlement::settles_a_mixed_batch",
            "dead_letters::keeps_the_message_and_the_failure",
        ],
    ),
    (
        Fault::AcksDropped,
        &["settlement::returns_a_dropped_delivery", "settlement::returns_the_deliveries_of_a_panicking_task"],
    ),
    (
        Fault::IgnoresFences,
        &[
            "settlement::refuses_a_late_settlement",
            "settlement::leaves_the_new_owner_alone_when_a_lost_delivery_is_dropped",
            "settlement::settles_once_only",
            "leases::refuses_to_extend_a_lost_lease",
        ],
    ),
    (
        Fault::SettlesOnlyTheFirst,
        &["settlement::settles_a_mixed_batch", "settlement::never_redelivers_what_was_acked"],
    ),
    (
        Fault::ForgetsAttempts,
        &["attempts::counts_from_one", "attempts::counts_when_claimed", "attempts::counts_for_each_queue"],
    ),
    (Fault::CountsOnlyRetries, &["attempts::counts_when_claimed"]),
    (Fault::CountsReleases, &["attempts::does_not_count_a_release", "attempts::releases_after_a_delay"]),
    (
        Fault::LeasesForever,
        &["leases::redelivers_when_a_lease_ends", "settlement::refuses_a_late_settlement"],
    ),
    (
        Fault::LeasesTooShort,
        &["leases::redelivers_when_a_lease_ends", "leases::never_redelivers_to_its_own_holder"],
    ),
    (Fault::PretendsToExtend, &["leases::extends_a_lease", "leases::shortens_a_lease"]),
    (
        Fault::FetchesAhead,
        &[
            "leases::keeps_the_leases_of_what_waits_locally",
            "lifecycle::returns_what_a_closed_receiver_held_back",
        ],
    ),
    (
        Fault::SkipsTheSecondQueue,
        &["subscriptions::copies_to_every_queue", "subscriptions::keeps_failures_apart"],
    ),
    (
        Fault::KeepsTemporaryQueues,
        &["subscriptions::forgets_a_temporary_queue", "lifecycle::leaves_nothing_behind"],
    ),
    (Fault::KeepsSubscriptions, &["subscriptions::keeps_what_is_there_when_unsubscribed"]),
    (Fault::ReplacesPatterns, &["subscriptions::adds_patterns_when_declared_again"]),
    (Fault::KeepsDeletedQueues, &["subscriptions::deletes_a_queue_alone"]),
    (
        Fault::IgnoresDelays,
        &["delay_expiry::delays_a_message", "delay_expiry::lets_short_delays_pass_long_ones"],
    ),
    (Fault::QueuesUpDelays, &["delay_expiry::lets_short_delays_pass_long_ones"]),
    (
        Fault::IgnoresExpiry,
        &["delay_expiry::buries_an_expired_message", "delay_expiry::expires_while_waiting_for_a_retry"],
    ),
    (Fault::ForgetsExpired, &["delay_expiry::buries_an_expired_message"]),
    (Fault::PretendsToCancel, &["delay_expiry::cancels_a_delayed_message"]),
    (Fault::ForgetsErrors, &["dead_letters::keeps_the_message_and_the_failure"]),
    (
        Fault::IgnoresQueries,
        &["dead_letters::lists_what_is_asked_for", "dead_letters::purges_what_is_asked_for"],
    ),
    (Fault::RedrivesEverything, &["dead_letters::redrives_one_some_and_all"]),
    (Fault::RedrivesToAll, &["dead_letters::redrives_to_its_own_queue_only"]),
    (Fault::RedrivesKeepingAttempts, &["dead_letters::redrives_from_the_first_attempt"]),
    (Fault::RedrivesInTwoSteps, &["dead_letters::redrives_everything_when_interrupted"]),
    (Fault::SaysNothingIsLeased, &["admin::counts_what_is_there"]),
    (Fault::PurgesDeadLetters, &["admin::purges_no_dead_letters"]),
    (Fault::InventsQueues, &["admin::does_not_find_an_unknown_queue"]),
    (Fault::PromisesNothing, &["admin::refuses_what_it_does_not_promise"]),
    (
        Fault::StaysOpen,
        &["lifecycle::refuses_work_when_closed", "lifecycle::wakes_a_waiting_receiver_when_closed"],
    ),
    (Fault::ClosesOnce, &["lifecycle::closes_twice"]),
];
