//! What the library tells whoever runs the program. Warnings and errors go to
//! SQLite's own error log, which is the host's choice; everything from a level
//! on to where the environment asks:
//!
//! ```text
//! LIBREPLICA_LOG=stderr            info and above
//! LIBREPLICA_LOG=debug:/var/log/x  appended to the file
//! ```
//! Secrets are no part of any text here: tokens and keys are `config::Secret`,
//! which does not print.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ffi::{api, fork};

const VARIABLE: &str = "LIBREPLICA_LOG";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    const ALL: [(Level, &str); 4] = [
        (Level::Error, "error"),
        (Level::Warn, "warn"),
        (Level::Info, "info"),
        (Level::Debug, "debug"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

enum Target {
    Stderr,
    File(File),
}

struct Sink {
    level: Level,
    target: Target,
}

/// Something failed: for SQLite's log, with a result code, and ours.
pub fn error(code: i32, text: &str) {
    api::log(code, text);
    write(Level::Error, || text.to_string());
}

/// Something that the user should know of.
pub fn warn(text: &str) {
    api::log(libsqlite3_sys::SQLITE_WARNING, text);
    write(Level::Warn, || text.to_string());
}

pub fn info(text: impl FnOnce() -> String) {
    write(Level::Info, text);
}

pub fn debug(text: impl FnOnce() -> String) {
    write(Level::Debug, text);
}

fn write(level: Level, text: impl FnOnce() -> String) {
    let Some(sink) = sink().filter(|sink| level <= sink.level) else {
        return;
    };
    let line = line(SystemTime::now(), level, &text());
    // stderr has a lock that a forked child must not inherit.
    let _inside = fork::inside();
    // In one write, so that lines of several processes do not mix. A log that
    // cannot be written to is no reason to fail.
    let _ = match &sink.target {
        Target::Stderr => std::io::stderr().write_all(line.as_bytes()),
        Target::File(file) => (&*file).write_all(line.as_bytes()),
    };
}

/// Where lines go, None for nowhere. Read once in a process.
fn sink() -> Option<&'static Sink> {
    static SINK: OnceLock<Option<Sink>> = OnceLock::new();
    SINK.get_or_init(|| {
        let value = std::env::var(VARIABLE).ok().filter(|v| !v.is_empty())?;
        let (level, target) = parse(&value);
        let target = match target {
            "stderr" => Target::Stderr,
            path => match OpenOptions::new().create(true).append(true).open(path) {
                Ok(file) => Target::File(file),
                Err(e) => {
                    let text = format!("{VARIABLE}: cannot open '{path}': {e}");
                    api::log(libsqlite3_sys::SQLITE_WARNING, &text);
                    return None;
                }
            },
        };
        Some(Sink { level, target })
    })
    .as_ref()
}

/// Level and target; a prefix that is no level is part of a path.
fn parse(value: &str) -> (Level, &str) {
    if let Some((prefix, target)) = value.split_once(':') {
        for (level, name) in Level::ALL {
            if prefix.eq_ignore_ascii_case(name) {
                return (level, target);
            }
        }
    }
    (Level::Info, value)
}

fn line(time: SystemTime, level: Level, text: &str) -> String {
    let text = text.replace(['\r', '\n', '\0'], " ");
    format!(
        "{} libreplica[{}] {:5} {text}\n",
        utc(time),
        fork::process(),
        level.name()
    )
}

/// `2026-11-24T08:00:00.000Z`
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Days to a date: counted in eras of 400 years that begin on a 1 March
    // (howardhinnant.github.io/date_algorithms.html).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn targets() {
        assert_eq!(parse("stderr"), (Level::Info, "stderr"));
        assert_eq!(parse("DEBUG:stderr"), (Level::Debug, "stderr"));
        assert_eq!(parse("warn:/var/log/x"), (Level::Warn, "/var/log/x"));
        assert_eq!(parse("C:\\log"), (Level::Info, "C:\\log"));
    }

    #[test]
    fn times() {
        let at = |s| utc(UNIX_EPOCH + Duration::from_millis(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_795_509_171_162), "2026-11-24T08:32:51.162Z");
    }

    #[test]
    fn one_line_each() {
        let line = line(UNIX_EPOCH, Level::Warn, "a\nb");
        assert!(line.ends_with("warn  a b\n"), "{line}");
    }
}
