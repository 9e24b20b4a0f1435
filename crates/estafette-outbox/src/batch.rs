//! One batch of rows on its way to the transport, in the order its subjects need.

use std::collections::{HashMap, HashSet};

use estafette_core::{Error, ErrorKind, Outgoing, Timestamp};

use crate::{claim::Claim, row::Claimed};

/// A claimed batch, and what became of its rows so far.
pub(crate) struct Batch {
    pub(crate) token: i64,
    /// Rows to be published after one another: no two of a lane in one wave.
    pub(crate) waves: Vec<Vec<Claimed>>,
    /// Lanes in which something was not sent: what follows there goes back.
    stopped: HashSet<String>,
    pub(crate) sent: Vec<i64>,
    /// When the rows sent were written.
    pub(crate) written: Vec<Timestamp>,
    /// To be given back as they are.
    pub(crate) back: Vec<i64>,
    /// Not sent because the transport was not there.
    pub(crate) interrupted: Vec<i64>,
    /// Refused, with how often they were tried before.
    pub(crate) refused: Vec<(i64, i64, Error)>,
    /// Why the transport was not there.
    pub(crate) down: Option<Error>,
}

impl Batch {
    pub(crate) fn new(claim: Claim) -> Self {
        let mut batch = Self {
            token: claim.token,
            waves: Vec::new(),
            stopped: HashSet::new(),
            sent: Vec::new(),
            written: Vec::new(),
            back: Vec::new(),
            interrupted: Vec::new(),
            refused: Vec::new(),
            down: None,
        };
        let mut held = HashSet::new();
        let mut depth: HashMap<String, usize> = HashMap::new();
        for row in claim.rows {
            // Another relay took the row before this one while this one was claimed.
            if row.previous.is_some_and(|previous| !held.contains(&previous)) {
                batch.back.push(row.seq);
                continue;
            }
            held.insert(row.seq);
            let wave = match &row.lane {
                Some(lane) => {
                    let next = depth.entry(lane.clone()).or_default();
                    *next += 1;
                    *next - 1
                }
                None => 0,
            };
            if batch.waves.len() <= wave {
                batch.waves.resize_with(wave + 1, Vec::new);
            }
            if let Some(rows) = batch.waves.get_mut(wave) {
                rows.push(row);
            }
        }
        batch
    }

    /// The messages of a wave, and the rows they are from. Rows of stopped lanes go back; one that cannot be read is refused.
    pub(crate) fn outgoing(
        &mut self,
        wave: Vec<Claimed>,
        require_queue: bool,
    ) -> (Vec<Claimed>, Vec<Outgoing>) {
        let (mut rows, mut messages) = (Vec::with_capacity(wave.len()), Vec::with_capacity(wave.len()));
        for mut row in wave {
            if self.down.is_some() || row.lane.as_ref().is_some_and(|lane| self.stopped.contains(lane)) {
                self.give_back(&row);
                continue;
            }
            match row.outgoing(require_queue) {
                Ok(message) => {
                    messages.push(message);
                    rows.push(row);
                }
                Err(error) => self.refuse(&row, error),
            }
        }
        (rows, messages)
    }

    /// Notes what became of a row.
    pub(crate) fn settle(&mut self, row: &Claimed, result: Result<(), Error>) {
        match result {
            Ok(()) => {
                self.sent.push(row.seq);
                self.written.push(row.created_at);
            }
            Err(error) if is_down(&error) => {
                self.interrupted.push(row.seq);
                self.stop(row);
                self.down.get_or_insert(error);
            }
            Err(error) => self.refuse(row, error),
        }
    }

    /// Gives a row back as it is, and with it what follows it.
    pub(crate) fn give_back(&mut self, row: &Claimed) {
        self.back.push(row.seq);
        self.stop(row);
    }

    fn refuse(&mut self, row: &Claimed, error: Error) {
        self.refused.push((row.seq, row.attempts, error));
        self.stop(row);
    }

    fn stop(&mut self, row: &Claimed) {
        self.stopped.extend(row.lane.clone());
    }
}

/// Whether an error says that the transport is not there, and nothing about the message.
fn is_down(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::TimedOut
            | ErrorKind::Full
            | ErrorKind::Closed
            | ErrorKind::Denied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: i64, lane: Option<&str>, previous: Option<i64>) -> Claimed {
        Claimed {
            seq,
            lane: lane.map(str::to_owned),
            previous,
            attempts: 0,
            created_at: Timestamp::default(),
            queue: None,
            exchange: None,
            attributes: String::new(),
            payload: Vec::new(),
        }
    }

    fn waves(batch: &Batch) -> Vec<Vec<i64>> {
        batch.waves.iter().map(|wave| wave.iter().map(|row| row.seq).collect()).collect()
    }

    #[test]
    fn rows_of_a_lane_go_one_after_the_other_and_others_together() {
        let rows = vec![
            row(1, Some("a"), None),
            row(2, None, None),
            row(3, Some("a"), Some(1)),
            row(4, Some("b"), None),
            row(5, Some("a"), Some(3)),
        ];
        let batch = Batch::new(Claim { token: 1, rows });
        assert_eq!(waves(&batch), [vec![1, 2, 4], vec![3], vec![5]]);
    }

    #[test]
    fn a_row_whose_forerunner_is_held_elsewhere_goes_back_with_all_behind_it() {
        let rows = vec![row(2, Some("a"), Some(1)), row(3, Some("a"), Some(2)), row(4, Some("b"), None)];
        let batch = Batch::new(Claim { token: 1, rows });
        assert_eq!(waves(&batch), [vec![4]]);
        assert_eq!(batch.back, [2, 3]);
    }

    #[test]
    fn what_follows_a_refused_row_goes_back() {
        let mut batch = Batch::new(Claim { token: 1, rows: vec![row(1, Some("a"), None)] });
        batch.settle(&row(1, Some("a"), None), Err(ErrorKind::TooLarge.into()));
        let (rows, _) = batch.outgoing(vec![row(2, Some("a"), Some(1))], false);
        assert!(rows.is_empty());
        assert_eq!(batch.back, [2]);
        assert_eq!(batch.refused.len(), 1);
    }
}
