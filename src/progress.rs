//! Progress of long work: a bar on a terminal, nothing in a pipe.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What one count of a [`Progress`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Files,
    Nodes,
}

/// A bar on standard error, drawn only if that is a terminal. Clones move the same bar.
#[derive(Clone, Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for `what`; `total` counts of `unit`, or `None` for a length yet unknown.
    pub fn start(what: &str, total: Option<u64>, unit: Unit) -> Self {
        let counts = match (unit, total) {
            (Unit::Bytes, Some(_)) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            (Unit::Bytes, None) => "{spinner} {bytes} {bytes_per_sec}",
            (Unit::Files | Unit::Nodes, Some(_)) => "{wide_bar} {pos}/{len} {eta}",
            (Unit::Files | Unit::Nodes, None) => "{spinner} {pos}",
        };
        let style = ProgressStyle::with_template(&format!("{{msg}} {counts}"))
            .expect("the templates above are valid");
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(total, target).with_style(style);
        bar.set_message(what.to_owned());
        if total.is_none() {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self(bar)
    }

    /// A bar for `what`, whose end nobody knows: it shows how long it takes, and what was
    /// [told](Self::tell) last.
    pub fn waiting(what: &str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed_precise} {wide_msg}");
        let style = style.expect("the template above is valid");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let bar = bar.with_style(style).with_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Shows `text` beside a bar that is [waiting](Self::waiting).
    pub fn tell(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    /// A progress that shows nothing.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    pub fn advance(&self, counts: u64) {
        self.0.inc(counts);
    }

    /// Moves the bar to `counts` from its beginning.
    pub fn reach(&self, counts: u64) {
        self.0.set_position(counts);
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
