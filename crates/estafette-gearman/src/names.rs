//! The functions a queue consists of, and the ids of its jobs.

use estafette_core::{Envelope, QueueName};

use crate::{payload::REDRIVEN, protocol::UNIQUE_BYTES_MAX};

/// The ends of the functions beside a queue's own.
const RETRY: &str = ".retry";
const DELAY: &str = ".delay";
const DEAD: &str = ".dead";

/// Messages that wait for a retry.
pub(crate) fn retry(queue: &QueueName) -> String {
    format!("{queue}{RETRY}")
}

/// Messages that were published with a delay.
pub(crate) fn delay(queue: &QueueName) -> String {
    format!("{queue}{DELAY}")
}

/// Dead letters.
pub(crate) fn dead(queue: &QueueName) -> String {
    format!("{queue}{DEAD}")
}

/// The functions a consumer takes jobs from: what has waited for its time comes before what has not.
pub(crate) fn taken(queue: &QueueName) -> [String; 3] {
    [retry(queue), delay(queue), queue.to_string()]
}

/// Every function of a queue.
pub(crate) fn all(queue: &QueueName) -> [String; 4] {
    [queue.to_string(), retry(queue), delay(queue), dead(queue)]
}

/// The queue a function belongs to, which may be another function's name with nothing after it.
pub(crate) fn queue_of(function: &str) -> &str {
    [RETRY, DELAY, DEAD].iter().find_map(|end| function.strip_suffix(end)).unwrap_or(function)
}

/// Which copy of a message a job is. A server takes two jobs of one id for one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// As published or, after so many attempts, put back.
    After(u32),
    /// Given back without spending an attempt: different each time, since the one before still runs.
    Released,
    /// Among the dead letters.
    Dead,
}

/// The unique id of a job. The same message in the same state has the same, so that submitting it twice stores it once.
pub(crate) fn unique(envelope: &Envelope, copy: Copy) -> String {
    let id = envelope.id.to_string();
    let redriven = envelope.headers.get(REDRIVEN).filter(|text| text.len() <= 4).unwrap_or("");
    let end = match copy {
        Copy::After(0) if redriven.is_empty() => String::new(),
        Copy::After(attempts) => format!(":{redriven}:{attempts}"),
        Copy::Released => format!(":{redriven}:r{:08x}", fastrand::u32(..)),
        Copy::Dead => format!(":{redriven}:dead"),
    };
    let room = UNIQUE_BYTES_MAX - end.len();
    // A zero byte would end it, and a server cuts off what is too long.
    if id.len() <= room {
        return id + &end;
    }
    let kept = id.floor_char_boundary(room - 17);
    format!("{}~{:016x}{end}", id.get(..kept).unwrap_or_default(), sum(&id))
}

/// The sum that stands for the end of a name that is too long (FNV-1a).
pub(crate) fn sum(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use estafette_core::Topic;

    use super::*;

    #[test]
    fn ids_fit_and_differ() {
        let mut envelope = Envelope::new(Topic::from_static("a"), "x".into());
        let copies = [Copy::After(0), Copy::After(1), Copy::After(u32::MAX), Copy::Released, Copy::Dead];
        for id in ["x".to_owned(), "ä".repeat(120), envelope.id.to_string()] {
            envelope.id = id.parse().unwrap();
            let ids: std::collections::HashSet<_> = copies.map(|copy| unique(&envelope, copy)).into();
            assert_eq!(ids.len(), copies.len());
            assert!(ids.iter().all(|id| id.len() <= UNIQUE_BYTES_MAX), "{ids:?}");
        }
        let mut other = envelope.clone();
        envelope.id = format!("{}1", "x".repeat(200)).parse().unwrap();
        other.id = format!("{}2", "x".repeat(200)).parse().unwrap();
        assert_ne!(unique(&envelope, Copy::After(0)), unique(&other, Copy::After(0)));
    }
}
