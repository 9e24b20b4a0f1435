//! From what a handler did to what becomes of the message.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use estafette_core::{BoxError, Delivery, Failure, Outcome, Reason, Retry, Timestamp};

use crate::Verdict;

/// Decides about an error before the retry policy does; `None` leaves it to the policy.
pub(crate) type ErrorPolicy = Arc<dyn Fn(&BoxError, u32) -> Option<Verdict> + Send + Sync>;

/// The rules by which failures become retries or dead letters.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) retry: Retry,
    pub(crate) by_error: Option<ErrorPolicy>,
}

/// Why a handler did not give a verdict.
pub(crate) enum Fault {
    Error(BoxError),
    Panic(String),
    TimedOut(Duration),
}

impl Rules {
    /// What becomes of a delivery before any handler sees it: nothing, unless it expired or was handed over too often.
    ///
    /// The attempt is counted at the hand-over, so a message that ended its process as often as allowed stops here.
    pub(crate) fn refuse(&self, delivery: &Delivery) -> Option<Outcome> {
        let envelope = delivery.envelope();
        if envelope.expires_at.is_some() && envelope.is_expired(Timestamp::now()) {
            return Some(Outcome::Reject(Failure::expired(envelope)));
        }
        if delivery.attempt() > self.retry.attempts_max.get() {
            let times = delivery.attempt() - 1;
            let sentence =
                format!("handed over {times} times and never settled; its handler may end the process");
            return Some(Outcome::Reject(Failure::new(Reason::AttemptsExhausted, sentence)));
        }
        None
    }

    /// What becomes of a delivery after its handler ran.
    pub(crate) fn decide(&self, attempt: u32, result: Result<Verdict, Fault>) -> Outcome {
        let fault = match result {
            Ok(verdict) => return self.apply(attempt, verdict),
            Err(fault) => fault,
        };
        let error = match fault {
            Fault::Error(error) => {
                match self.by_error.as_ref().map_or(Ok(None), |policy| ask(policy, &error, attempt)) {
                    Ok(Some(verdict)) => return self.apply(attempt, verdict),
                    Ok(None) => chain(&*error),
                    Err(panic) => format!("{}; and the error policy panicked: {panic}", chain(&*error)),
                }
            }
            Fault::Panic(text) => format!("the handler panicked: {text}"),
            Fault::TimedOut(limit) => format!("the handler took longer than {limit:?}"),
        };
        self.apply(attempt, Verdict::Retry { after: None, error })
    }

    fn apply(&self, attempt: u32, verdict: Verdict) -> Outcome {
        match verdict {
            Verdict::Ack => Outcome::Ack,
            Verdict::Snooze(after) => Outcome::Release { after },
            Verdict::Reject(failure) => Outcome::Reject(failure),
            Verdict::Retry { error, .. } if self.retry.is_last(attempt) => {
                Outcome::Reject(Failure::new(Reason::AttemptsExhausted, error))
            }
            Verdict::Retry { after, error } => {
                let after = after.unwrap_or_else(|| self.retry.delay(attempt, fastrand::f64()));
                Outcome::Retry { after, error: Some(Failure::new(Reason::Rejected, error).error) }
            }
        }
    }
}

/// Asks the user's policy; the text of its panic if it panics.
fn ask(policy: &ErrorPolicy, error: &BoxError, attempt: u32) -> Result<Option<Verdict>, String> {
    let call = AssertUnwindSafe(|| policy(error, attempt));
    catch_unwind(call).map_err(|panic| panic_text(&*panic))
}

/// What was given to `panic!`.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// An error and its sources, joined by colons.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(attempts_max: u32) -> Rules {
        let retry = Retry::fixed(Duration::from_secs(3)).attempts_max(attempts_max);
        Rules { retry, by_error: None }
    }

    #[test]
    fn the_last_failed_attempt_is_a_dead_letter() {
        let fail = || Err(Fault::Error("no".into()));
        let retry = Outcome::Retry { after: Duration::from_secs(3), error: Some("no".into()) };
        assert_eq!(rules(2).decide(1, fail()), retry);
        let dead = Outcome::Reject(Failure::new(Reason::AttemptsExhausted, "no"));
        assert_eq!(rules(2).decide(2, fail()), dead);
    }

    #[test]
    fn an_error_policy_overrides_the_retry_policy() {
        let mut rules = rules(5);
        rules.by_error = Some(Arc::new(|error, _| {
            error.downcast_ref::<std::fmt::Error>().map(|_| Verdict::reject("a bug"))
        }));
        let outcome = rules.decide(1, Err(Fault::Error(Box::new(std::fmt::Error))));
        assert_eq!(outcome, Outcome::Reject(Failure::new(Reason::Rejected, "a bug")));
        assert!(matches!(rules.decide(1, Err(Fault::Error("x".into()))), Outcome::Retry { .. }));
    }

    #[test]
    fn a_snooze_does_not_count_even_at_the_last_attempt() {
        let after = Duration::from_secs(1);
        assert_eq!(rules(1).decide(1, Ok(Verdict::Snooze(after))), Outcome::Release { after });
    }
}
