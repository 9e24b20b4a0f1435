//! How far publishing is, on a terminal.

use std::{fs::File, io::IsTerminal as _, os::fd::AsFd as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on standard error; nothing when nobody would see it, or when ids go to the same terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn start(quiet: bool) -> Self {
        if !std::io::stderr().is_terminal() || (std::io::stdout().is_terminal() && !quiet) {
            return Self(ProgressBar::hidden());
        }
        let (bar, template) = match input_bytes() {
            Some(bytes) => (
                ProgressBar::new(bytes),
                "{bar:40.cyan/dim} {percent:>3}%  {msg}  {elapsed_precise}  eta {eta}",
            ),
            None => (ProgressBar::new_spinner(), "{spinner:.cyan} {msg}  {elapsed_precise}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(super) fn advance(&self, messages: u64, bytes_read: u64) {
        self.0.set_position(bytes_read);
        let seconds = self.0.elapsed().as_secs_f64().max(0.001);
        self.0.set_message(format!("{messages} messages, {:.0}/s", messages as f64 / seconds));
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// How long standard input is, when it is a file.
fn input_bytes() -> Option<u64> {
    let descriptor = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let metadata = File::from(descriptor).metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}
