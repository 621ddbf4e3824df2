//! What `progress=1` shows on stderr during a bootstrap: a bar on a terminal,
//! a line for each tenth elsewhere.

use std::io::{IsTerminal, Write};

pub enum Progress {
    Silent,
    Bar(indicatif::ProgressBar),
    Lines { all: u64, tenths: u64 },
}

impl Progress {
    /// `all`: frames to come, as far as the primary has said.
    pub fn new(wanted: bool, all: u64) -> Progress {
        if !wanted {
            return Progress::Silent;
        }
        if !std::io::stderr().is_terminal() {
            return Progress::Lines { all, tenths: 0 };
        }
        let bar = indicatif::ProgressBar::new(all);
        let style = "{bar:40} {percent}% {human_pos}/{human_len} frames, {eta} left";
        if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Progress::Bar(bar)
    }

    pub fn at(&mut self, frames: u64) {
        match self {
            Progress::Silent => {}
            Progress::Bar(bar) => bar.set_position(frames),
            Progress::Lines { all, tenths } => {
                let now = (frames * 10).checked_div(*all).map_or(10, |n| n.min(10));
                if now > *tenths {
                    *tenths = now;
                    // A closed stderr is no reason to fail.
                    let _ = writeln!(
                        std::io::stderr(),
                        "libreplica: {}% of {all} frames",
                        now * 10
                    );
                }
            }
        }
    }

    /// The end; a compacted log has fewer frames than were announced.
    pub fn done(&mut self) {
        match self {
            Progress::Bar(bar) => bar.finish(),
            Progress::Lines { all, .. } => {
                let all = *all;
                self.at(all)
            }
            Progress::Silent => {}
        }
    }
}
