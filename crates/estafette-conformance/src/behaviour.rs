//! A behaviour: one thing every transport must show.

use std::pin::Pin;

use estafette_core::Guarantees;

use crate::{behaviours, needs::Need, stage::Stage, subject::Subject, violation::Check};

pub(crate) type Checking<'a> = Pin<Box<dyn Future<Output = Check> + Send + 'a>>;

/// One thing every transport must show, unless it does not promise what that needs.
#[derive(Debug)]
pub struct Behaviour {
    /// What it is about; the module its check is in.
    pub group: &'static str,
    /// Its name, unique within its group.
    pub name: &'static str,
    /// What it says.
    pub sentence: &'static str,
    /// Without these it cannot be asked for.
    pub needs: &'static [Need],
    pub(crate) check: for<'a> fn(&'a Stage) -> Checking<'a>,
}

impl Behaviour {
    /// The behaviour `group::name`.
    #[must_use]
    pub fn find(group: &str, name: &str) -> Option<&'static Self> {
        BEHAVIOURS.iter().find(|behaviour| behaviour.group == group && behaviour.name == name)
    }

    /// What keeps it from being asked of this subject: a promise not made, or a missing agent.
    pub(crate) fn missing(&self, subject: &Subject, guarantees: &Guarantees) -> Option<Need> {
        let is_met = |need: &Need| match need {
            Need::Agent => subject.agent().is_some(),
            promise => promise.is_promised(guarantees),
        };
        self.needs.iter().copied().find(|need| !is_met(need))
    }
}

crate::__each_behaviour!(data);
