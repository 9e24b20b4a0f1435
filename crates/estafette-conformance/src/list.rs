//! The list of all behaviours: the name of each, what it says, and what it needs.
//!
//! One list, read twice: [`BEHAVIOURS`](crate::BEHAVIOURS) is made from it, and so are the tests that
//! [`suite!`](crate::suite) generates. A behaviour is a function of the same name in the module of its group.

/// Hands the list to `__behaviours_as!`, with what was given first.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_behaviour {
    ($($context:tt)*) => { $crate::__behaviours_as! { $($context)*

publish {
    carries_what_was_published_before_anybody_listened []
        "100 messages published before anybody listens all arrive, with equal ids, attributes, headers and bodies",
    keeps_headers_and_attributes []
        "Headers with empty, long and non-ASCII values and every attribute arrive as they were",
    keeps_every_byte_of_a_body []
        "Bodies arrive byte for byte: every byte value, line breaks, spaces around JSON, nothing at all",
    carries_bodies_of_many_sizes []
        "Bodies of 0 bytes to 1 MiB arrive whole",
    carries_a_body_as_large_as_allowed [BodyLimit]
        "A body of exactly the limit arrives whole",
    refuses_a_body_over_the_limit [BodyLimit]
        "A body one byte over the limit is refused as `too large`, nothing of it is delivered, and the rest of its batch is",
    reports_each_message_of_a_batch [Topics BodyLimit]
        "A batch's results name each message that failed, in order, and a failure hides no success",
    stores_a_large_batch_whole []
        "A batch of 3,000 messages is stored whole, and an empty one is none",
    loses_nothing_among_many_publishers_and_consumers []
        "2,500 messages of 50 publishers reach 50 consumers of one queue: none is missing, none comes twice",
    keeps_queues_apart [Topics]
        "20 topics in parallel: each queue gets all of its own and nothing of another",
    says_when_no_queue_took_it [Topics]
        "The receipt says when no queue is subscribed, and it is an error when a queue was required",
    sends_to_a_queue_nobody_declared []
        "Sending to a queue that does not exist creates it, and it keeps the message",
    makes_no_queue_that_was_required []
        "Sending to a queue that does not exist, when it was required to, is an error and makes no queue",
    outlives_its_handle [Persistent]
        "What publish returned Ok for is there after closing and connecting again",
}
receive {
    looks_without_waiting []
        "Receiving with a wait of zero returns at once when there is nothing",
    waits_no_shorter_than_asked []
        "Receiving from an empty queue returns nothing, and not before the time is up",
    wakes_up_for_a_message []
        "A waiting receiver gets a message when it is published, not when its time is up",
    wakes_up_for_a_message_of_another_handle [Shared]
        "A waiting receiver gets a message published through another handle",
    takes_no_more_than_asked []
        "One call returns at most as many deliveries as asked for",
    loses_nothing_when_cancelled []
        "Receiving that is cancelled again and again loses no message",
    holds_back_beyond_the_unsettled_maximum []
        "With as many unsettled deliveries as allowed no more come, and settling one lets one through",
}
order {
    keeps_the_order_of_publishing [QueueOrder]
        "One consumer gets 1,000 messages in the order they were published",
    keeps_the_order_of_each_key_among_many_consumers [KeyOrder]
        "Four consumers that ask for it get each partition key's messages in order, never two of a key at once",
    holds_a_key_back_while_one_is_out [KeyOrder]
        "Nothing else of a key is delivered until its first message is settled; other keys pass",
    holds_a_key_back_during_a_retry [KeyOrder Delay]
        "A key waits for the retry of its first message; other keys pass",
    frees_a_key_however_it_is_settled [KeyOrder]
        "Acknowledging, rejecting and dropping each let the key's next message through",
    holds_no_key_back_unasked []
        "A consumer that does not ask for order by key gets a key's messages at the same time",
}
settlement {
    never_redelivers_what_was_acked []
        "An acknowledged message never comes again, also after its lease would have ended and everybody reconnected",
    redelivers_after_retry []
        "The first 2 of 100 are retried: all 100 arrive",
    waits_before_a_retry_and_lets_others_pass [Delay]
        "A message retried with a delay does not come before it, and other messages do meanwhile",
    survives_many_retries_by_many_consumers []
        "50 messages that three consumers retried again and again all reach the fourth",
    keeps_a_rejected_message_as_a_dead_letter [DeadLetters]
        "A rejected message is not delivered again and is among the dead letters",
    returns_a_dropped_delivery []
        "A delivery dropped unsettled comes again; it is not acknowledged",
    returns_the_deliveries_of_a_panicking_task []
        "A task that panics while it holds a delivery does not take the message with it",
    settles_in_any_order_from_any_task []
        "Deliveries can be settled in any order and from other tasks and threads",
    settles_a_mixed_batch [DeadLetters]
        "Deliveries settled in one batch get an outcome each",
    refuses_a_late_settlement [Fencing]
        "Settling after the lease was lost is `lease lost`, whatever the outcome, and the new owner's message stays",
    leaves_the_new_owner_alone_when_a_lost_delivery_is_dropped []
        "Dropping a delivery whose lease was lost does not take the message from its new owner",
    settles_once_only [Fencing]
        "A second settlement of the same hand-over has no effect on the next one",
}
attempts {
    counts_from_one [Attempts]
        "The first delivery is attempt 1, each retry adds 1; id, headers, time and body stay",
    does_not_count_a_release [Attempts]
        "Releasing a delivery puts it back without spending the attempt",
    releases_after_a_delay [Attempts Delay]
        "A release with a delay waits, and does not spend the attempt either",
    counts_when_claimed [Attempts]
        "A lease that ends unsettled and a delivery that is dropped each spend an attempt",
    survives_reconnecting [Attempts Persistent]
        "The attempt is kept with the message: it goes on counting after closing and connecting again",
    counts_for_each_queue [Attempts Topics]
        "Failing in one queue does not count in another",
}
leases {
    redelivers_when_a_lease_ends []
        "An unsettled message comes again when its lease ends, and not before",
    never_redelivers_to_its_own_holder []
        "A consumer does not get again what it holds itself while its lease runs; afterwards it does",
    extends_a_lease [LeaseExtend]
        "An extended lease keeps the message beyond the first one's end, and acknowledging it works",
    shortens_a_lease [LeaseExtend]
        "Extending counts from now: a shorter lease ends sooner",
    refuses_to_extend_a_lost_lease [LeaseExtend Fencing]
        "Extending a lease that was lost is `lease lost`",
    keeps_the_leases_of_what_waits_locally [Attempts]
        "A slow consumer that takes one message at a time can acknowledge each: none lost its lease before it was handed over",
}
subscriptions {
    copies_to_every_queue [Topics]
        "Two queues each get all 50 messages",
    shares_a_queue_among_its_consumers []
        "Two consumers of one queue share its messages without overlap",
    matches_patterns [Topics]
        "`*` is one word, `#` any number, anything else is itself",
    copies_once_to_a_queue_with_overlapping_patterns [Topics]
        "A queue with two patterns that match gets one copy",
    keeps_messages_while_nobody_consumes [Topics]
        "A queue whose consumer is away gets what was published meanwhile",
    forgets_a_temporary_queue [Topics TemporaryQueues]
        "A temporary queue gets messages while its receiver is open, and is gone when it is closed",
    forgets_the_temporary_queue_of_a_killed_process [Shared Agent TemporaryQueues]
        "A temporary queue goes away when the process that consumes it is killed",
    takes_every_legal_name [Topics]
        "Queues and topics with the longest and oddest legal names work, and similar names stay apart",
    adds_patterns_when_declared_again [Topics]
        "Declaring again adds patterns and keeps messages",
    refuses_another_lifetime [TemporaryQueues]
        "Declaring a durable queue as temporary is `exists with other settings`",
    keeps_what_is_there_when_unsubscribed [Topics]
        "Ending a subscription stops new messages and keeps those in the queue",
    routes_to_queues_declared_elsewhere [Topics Shared]
        "A queue declared through another handle gets the very next message, also of a topic published before",
    deletes_a_queue_alone [Topics]
        "Deleting a queue takes its messages only; publishing goes on, and a new queue of that name is empty",
    keeps_failures_apart [Topics]
        "A message that fails in one queue is not delivered again in another",
}
delay_expiry {
    delays_a_message [Delay]
        "A delayed message does not come before its time, and then does",
    lets_short_delays_pass_long_ones [Delay]
        "200 messages with mixed delays come each after its own; none waits for one due later",
    keeps_a_delay_while_closed [Delay Persistent]
        "A delay is kept through closing and connecting again",
    cancels_a_delayed_message [Cancel Delay]
        "A delayed message can be cancelled by its id, once, and does not come",
    buries_an_expired_message [Expiry DeadLetters]
        "An expired message is not delivered and becomes a dead letter with the reason `expired`",
    expires_while_waiting_for_a_retry [Expiry DeadLetters Delay]
        "An expiry is kept through a retry",
    delivers_what_has_not_expired [Expiry]
        "A message whose expiry is far away is delivered, and still says when it expires",
}
dead_letters {
    keeps_the_message_and_the_failure [DeadLetters]
        "A dead letter holds the message byte for byte, the queue, reason, error text, attempts, first and last failure",
    lists_what_is_asked_for [DeadLetters]
        "Dead letters can be listed by id, reason and topic, a page at a time, oldest first",
    buries_once [DeadLetters Fencing]
        "A message that is rejected twice, as when the first answer was lost, is one dead letter",
    redrives_one_some_and_all [DeadLetters]
        "Redriven dead letters come again in their queue, and the count is that of the messages",
    redrives_from_the_first_attempt [DeadLetters Attempts]
        "A redriven message is at attempt 1, and its header `redriven` counts how often that was done",
    redrives_to_its_own_queue_only [DeadLetters Topics]
        "A redriven message reaches the queue it died in, not the others that had a copy",
    redrives_everything_when_interrupted [DeadLetters]
        "A redrive that is cancelled half way loses nothing: each message is in one of the two places",
    purges_what_is_asked_for [DeadLetters]
        "Purging dead letters deletes those asked for and says how many",
    outlive_their_handle [DeadLetters Persistent]
        "A dead letter is there after closing and connecting again",
}
admin {
    counts_what_is_there []
        "A queue's status counts what is ready and what is leased",
    counts_what_waits [Delay]
        "A queue's status counts what is delayed, and which of that waits for a retry",
    lists_queues_by_name [Topics]
        "Every queue is listed, by name, with its patterns sorted",
    purges_what_nobody_holds []
        "Purging deletes what nobody holds and says how many; what is held can still be settled",
    purges_no_dead_letters [DeadLetters]
        "Purging a queue leaves its dead letters",
    does_not_find_an_unknown_queue []
        "Asking for a queue that does not exist is `not found`",
    refuses_what_it_does_not_promise []
        "What the guarantees do not promise is `not supported`, never silently ignored",
}
lifecycle {
    closes_twice []
        "Closing again, also at the same time, does nothing",
    refuses_work_when_closed []
        "After closing, publishing and receiving are `closed`",
    wakes_a_waiting_receiver_when_closed []
        "Closing ends a receive that is waiting",
    returns_what_a_closed_receiver_held_back []
        "Closing a receiver returns at once what it had fetched and not handed over",
    settles_after_its_receiver_closed []
        "A delivery can still be settled when its receiver is closed",
    returns_unsettled_messages_of_a_closed_handle [Shared]
        "What a closed handle left unsettled reaches the consumers of another",
    serves_many_handles_at_once [Topics Shared]
        "16 handles that connect, declare the same queue, publish and consume at the same time do not get in each other's way",
    leaves_nothing_behind []
        "100 receivers that start and stop leave no queue and no task behind, and the messages go on",
}
processes {
    carries_messages_between_processes [Shared Agent]
        "What four processes publish, four others consume: nothing is missing",
    lets_one_of_eight_processes_claim [Shared Agent]
        "Eight processes that consume one queue get each message exactly once",
    counts_the_attempt_of_a_killed_consumer [Shared Agent Attempts]
        "A message whose consumer was killed (kill -9) comes again, at attempt 2",
    takes_over_from_a_frozen_consumer [Shared Agent Fencing]
        "A frozen consumer (SIGSTOP) loses its lease to another, and when it thaws its acknowledgement is `lease lost`",
    keeps_what_a_killed_publisher_stored [Shared Agent]
        "Everything for which a publisher had its Ok before it was killed is there, whole",
}

    } };
}

/// Turns the list into the suite's data, or into a transport's tests.
#[doc(hidden)]
#[macro_export]
macro_rules! __behaviours_as {
    (data $( $group:ident { $( $name:ident [$($need:ident)*] $sentence:literal, )* } )*) => {
        /// Every behaviour, by group.
        pub static BEHAVIOURS: &[Behaviour] = &[$($(
            Behaviour {
                group: stringify!($group),
                name: stringify!($name),
                sentence: $sentence,
                needs: &[$(Need::$need),*],
                check: |stage| Box::pin(behaviours::$group::$name(stage)),
            },
        )*)*];
    };
    (tests ($connect:expr) ($url:expr)
        $( $group:ident { $( $name:ident [$($need:ident)*] $sentence:literal, )* } )*
    ) => {
        fn __conformance_test(group: &str, name: &str) {
            $crate::testing::test($connect, $url, module_path!(), (group, name));
        }

        $(
            mod $group {
                $(
                    #[test]
                    fn $name() {
                        super::__conformance_test(stringify!($group), stringify!($name));
                    }
                )*
            }
        )*

        // Started by the behaviours of group `processes` as another process; does nothing by itself.
        #[test]
        #[ignore = "started by the tests in `processes`"]
        fn conformance_agent() {
            $crate::testing::agent($connect);
        }
    };
}
