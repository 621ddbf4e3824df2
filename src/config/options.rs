//! The values of a replica's options.

use std::time::Duration;

use super::names;
use super::secret::{Secret, resolve};
use super::url::SyncUrl;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteLock {
    Eager,
    Optimistic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePath {
    Auto,
    Pages,
    Rows,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub sync_url: Option<SyncUrl>,
    pub auth_token: Option<Secret>,
    pub encryption_key: Option<Secret>,
    /// Zero: off.
    pub sync_interval: Duration,
    pub live: bool,
    pub read_your_writes: bool,
    pub write_lock: WriteLock,
    pub write_path: WritePath,
    pub namespace: Option<String>,
    pub timeout: Duration,
    pub ca_file: Option<String>,
    pub progress: bool,
    /// None: as the host has it.
    pub foreign_keys: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            sync_url: None,
            auth_token: None,
            encryption_key: None,
            sync_interval: Duration::ZERO,
            live: false,
            read_your_writes: true,
            write_lock: WriteLock::Eager,
            write_path: WritePath::Auto,
            namespace: None,
            timeout: Duration::from_secs(10),
            ca_file: None,
            progress: false,
            foreign_keys: None,
        }
    }
}

impl Options {
    /// Sets one option, as the user gives it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let name = names::look_up(name)?;
        let value = resolve(name, value)?;
        self.put(name, &value)
    }

    /// Sets one option; `env:` and `file:` are read, `name` is ours.
    pub fn put(&mut self, name: &str, value: &str) -> Result<()> {
        if value.is_empty() && name != "auth_token" {
            return Err(Error::Config(format!("{name}: it is empty")));
        }
        match name {
            "sync_url" => self.sync_url = Some(SyncUrl::parse(value)?),
            "auth_token" => self.auth_token = token(value)?,
            "encryption_key" => self.encryption_key = Some(Secret::new(value.to_string())),
            "sync_interval" => self.sync_interval = seconds(name, value)?,
            "live" => self.live = flag(name, value)?,
            "read_your_writes" => self.read_your_writes = flag(name, value)?,
            "write_lock" => {
                self.write_lock = match value {
                    "eager" => WriteLock::Eager,
                    "optimistic" => WriteLock::Optimistic,
                    _ => return Err(expected(name, "eager or optimistic")),
                }
            }
            "write_path" => {
                self.write_path = match value {
                    "auto" => WritePath::Auto,
                    "pages" => WritePath::Pages,
                    "rows" => WritePath::Rows,
                    _ => return Err(expected(name, "auto, pages or rows")),
                }
            }
            "namespace" => self.namespace = Some(value.to_string()),
            "timeout" => {
                self.timeout = seconds(name, value)?;
                if self.timeout.is_zero() {
                    return Err(expected(name, "more than 0 seconds"));
                }
            }
            "ca_file" => self.ca_file = Some(value.to_string()),
            "progress" => self.progress = flag(name, value)?,
            "foreign_keys" => self.foreign_keys = Some(flag(name, value)?),
            _ => return Err(Error::Internal(format!("'{name}' is not set anywhere"))),
        }
        Ok(())
    }
}

fn expected(name: &str, what: &str) -> Error {
    Error::Config(format!("{name}: expected {what}"))
}

/// Files and shells put white space around one; an empty one is none.
fn token(value: &str) -> Result<Option<Secret>> {
    let value = value.trim();
    if !value.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        return Err(Error::Config(
            "auth_token: it holds characters no token has".into(),
        ));
    }
    Ok((!value.is_empty()).then(|| Secret::new(value.to_string())))
}

fn seconds(name: &str, value: &str) -> Result<Duration> {
    // A year is beyond every use, and keeps deadlines from overflowing.
    const YEAR: f64 = 366.0 * 86_400.0;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let number = value.parse::<f64>().ok();
    number
        .filter(|n| digits(whole) && digits(fraction) && *n <= YEAR)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| expected(name, "a number of seconds, 0 or more, as 2 or 0.25"))
}

pub(super) fn flag(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" => Ok(true),
        "0" | "false" | "off" => Ok(false),
        _ => Err(expected(name, "0 or 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_can_be_set() {
        for (name, libsql) in names::OPTIONS {
            let value = match name {
                "sync_url" => "http://h",
                "write_lock" => "eager",
                "write_path" => "rows",
                _ => "1",
            };
            let mut set = Options::default();
            set.set(libsql.unwrap_or(name), value).unwrap();
            assert!(value == "eager" || name == "read_your_writes" || set != Options::default());
            let refused = Options::default().set(name, "");
            assert_eq!(refused.is_ok(), name == "auth_token");
        }
    }

    #[test]
    fn values() {
        let mut o = Options::default();
        o.set("sync_interval", "0.25").unwrap();
        assert_eq!(o.sync_interval, Duration::from_millis(250));
        o.set("live", "on").unwrap();
        assert!(o.live);
        o.set("live", "0").unwrap();
        assert!(!o.live);
        o.set("auth_token", "\tt.t\r\n").unwrap();
        assert_eq!(o.auth_token.as_ref().unwrap().expose(), "t.t");
        o.set("auth_token", "").unwrap();
        assert!(o.auth_token.is_none());
        for (name, value) in [
            ("sync_interval", "-1"),
            ("sync_interval", "+1"),
            ("sync_interval", ".5"),
            ("sync_interval", "1e3"),
            ("sync_interval", "NaN"),
            ("sync_interval", "99999999999"),
            ("timeout", "0"),
            ("timeout", "x"),
            ("live", "2"),
            ("live", "yes"),
            ("live", ""),
            ("live", "file:/x"),
            ("namespace", "env:PATH"),
            ("sync_url", "file:/x"),
            ("write_lock", "lazy"),
            ("write_path", "sql"),
            ("auth_token", "a\nb"),
            ("encryption_key", ""),
            ("sync_uri", "x"),
            ("auth_token", "env:LIBREPLICA_NO_SUCH_VARIABLE"),
            ("auth_token", "file:/no/such/file"),
        ] {
            let error = o.set(name, value).expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
            assert!(
                value.len() < 4 || !error.contains(value.trim_start_matches("file:")),
                "{error}"
            );
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let mut o = Options::default();
        o.set("auth_token", "S3CRET").unwrap();
        o.set("encryption_key", "S3CRET").unwrap();
        assert!(!format!("{o:?}").contains("S3CRET"));
    }
}
