//! Groups of real processes: what they say to each other, and how they are kept running.

mod chaos;
mod hostile;
mod languages;
mod messages;
mod programs;
mod stage;
mod supervision;
