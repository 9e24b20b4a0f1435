//! What others do for the same job, in their own language: shown beside ours where it is installed.

pub mod dropfile;
