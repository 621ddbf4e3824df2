//! The options of a replica: names, defaults, checking. Where they come from
//! (URI parameters, `replica_open`'s JSON) is the caller's affair.

use std::fmt;
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};

/// Every option name, in the order of the documentation.
pub const NAMES: [&str; 12] = [
    "sync_url",
    "auth_token",
    "encryption_key",
    "sync_interval",
    "live",
    "read_your_writes",
    "write_lock",
    "write_path",
    "namespace",
    "timeout",
    "ca_file",
    "progress",
];

/// A value that must not show up in any text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Secret(value)
    }
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the primary is, checked: `http` or `https`, host, optional port and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncUrl {
    /// As the user wrote it.
    pub text: String,
    /// `http://host:port/path` or `https://…`, without a trailing slash.
    pub base: String,
    pub host: String,
}

impl SyncUrl {
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::Config(format!("sync_url '{}': {why}", redact(text)));
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("expected http://, https:// or libsql://"))?;
        let scheme = match scheme {
            "http" | "https" => scheme,
            "libsql" => "https",
            _ => return Err(bad("expected http://, https:// or libsql://")),
        };
        if rest.contains(['?', '#']) {
            return Err(bad(
                "a query or fragment is not part of it; give the token as auth_token",
            ));
        }
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(bad(
                "user names are not part of it; give the token as auth_token",
            ));
        }
        let base = format!("{scheme}://{}", rest.trim_end_matches('/'));
        let uri: ureq::http::Uri = base.parse().map_err(|_| bad("not a valid URL"))?;
        let host = uri
            .host()
            .filter(|h| !h.is_empty())
            .ok_or_else(|| bad("no host"))?
            .to_string();
        if !authority.ends_with(&host) && uri.port_u16().is_none() {
            return Err(bad("not a valid port"));
        }
        Ok(SyncUrl {
            text: text.to_string(),
            base,
            host,
        })
    }

    /// The namespace a libSQL client derives from the host: its first label,
    /// unless the host is an address or has one label only.
    pub fn host_namespace(&self) -> Option<&str> {
        let address = self.host.starts_with('[') || self.host.parse::<std::net::IpAddr>().is_ok();
        match self.host.split_once('.') {
            Some((label, _)) if !address && !label.is_empty() => Some(label),
            _ => None,
        }
    }
}

/// A URL fit for a message: no user info, no query.
fn redact(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match (text.split_once("://"), text.rfind('@')) {
        (Some((scheme, _)), Some(at)) => format!("{scheme}://***@{}", &text[at + 1..]),
        _ => text.to_string(),
    }
}

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

#[derive(Clone, Debug)]
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
        }
    }
}

impl Options {
    /// Reads every known option through `lookup`.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut options = Options::default();
        for name in NAMES {
            if let Some(value) = lookup(name).map(Zeroizing::new) {
                options.set(name, &value)?;
            }
        }
        Ok(options)
    }

    /// Sets one option; an empty value is the default.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let value = resolve(name, value)?;
        let given = (!value.is_empty()).then_some(value.as_str());
        let defaults = Options::default();
        match name {
            "sync_url" => self.sync_url = given.map(SyncUrl::parse).transpose()?,
            "auth_token" => self.auth_token = given.map(token).transpose()?,
            "encryption_key" => {
                if given.is_none() {
                    return Err(Error::Config("encryption_key: the key is empty".into()));
                }
                self.encryption_key = Some(Secret::new(value));
            }
            "sync_interval" => {
                self.sync_interval =
                    given.map_or(Ok(defaults.sync_interval), |v| seconds(name, v))?
            }
            "live" => self.live = given.map_or(Ok(defaults.live), |v| flag(name, v))?,
            "read_your_writes" => {
                self.read_your_writes =
                    given.map_or(Ok(defaults.read_your_writes), |v| flag(name, v))?
            }
            "write_lock" => {
                self.write_lock = match given.unwrap_or("eager") {
                    "eager" => WriteLock::Eager,
                    "optimistic" => WriteLock::Optimistic,
                    other => return Err(expected(name, other, "eager or optimistic")),
                }
            }
            "write_path" => {
                self.write_path = match given.unwrap_or("auto") {
                    "auto" => WritePath::Auto,
                    "pages" => WritePath::Pages,
                    "rows" => WritePath::Rows,
                    other => return Err(expected(name, other, "auto, pages or rows")),
                }
            }
            "namespace" => self.namespace = given.map(str::to_string),
            "timeout" => {
                let timeout = given.map_or(Ok(defaults.timeout), |v| seconds(name, v))?;
                if timeout.is_zero() {
                    return Err(expected(name, &value, "more than 0 seconds"));
                }
                self.timeout = timeout;
            }
            "ca_file" => self.ca_file = given.map(str::to_string),
            "progress" => self.progress = given.map_or(Ok(defaults.progress), |v| flag(name, v))?,
            _ => {
                return Err(Error::Config(format!(
                    "no option '{name}'; the options are {}",
                    NAMES.join(", ")
                )));
            }
        }
        Ok(())
    }
}

/// `env:NAME` and `file:PATH` keep a value out of URIs and process lists.
fn resolve(name: &str, value: &str) -> Result<String> {
    if let Some(variable) = value.strip_prefix("env:") {
        return std::env::var(variable).map_err(|_| {
            Error::Config(format!(
                "{name}: the environment variable '{variable}' is not set"
            ))
        });
    }
    // A certificate file is named, not contained.
    if let Some(path) = value.strip_prefix("file:").filter(|_| name != "ca_file") {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::Config(format!("{name}: cannot read the file '{path}': {e}")))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_string());
    }
    Ok(value.strip_prefix("file:").unwrap_or(value).to_string())
}

fn expected(name: &str, value: &str, what: &str) -> Error {
    Error::Config(format!("{name}: expected {what}, got '{value}'"))
}

fn token(value: &str) -> Result<Secret> {
    let printable = value.bytes().all(|b| (0x21..0x7f).contains(&b));
    if printable {
        Ok(Secret::new(value.to_string()))
    } else {
        Err(Error::Config(
            "auth_token: it holds characters no token has".into(),
        ))
    }
}

fn seconds(name: &str, value: &str) -> Result<Duration> {
    // A year is beyond every use, and keeps deadlines from overflowing.
    const YEAR: f64 = 366.0 * 86_400.0;
    match value.parse::<f64>() {
        Ok(n) if (0.0..=YEAR).contains(&n) => Ok(Duration::from_secs_f64(n)),
        _ => Err(expected(name, value, "a number of seconds, 0 or more")),
    }
}

fn flag(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "true" | "yes" => Ok(true),
        "0" | "off" | "false" | "no" => Ok(false),
        _ => Err(expected(name, value, "0 or 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = SyncUrl::parse("libsql://db-org.turso.io/").unwrap();
        assert_eq!(url.base, "https://db-org.turso.io");
        assert_eq!(url.host_namespace(), Some("db-org"));
        assert_eq!(
            SyncUrl::parse("http://127.0.0.1:8080")
                .unwrap()
                .host_namespace(),
            None
        );
        assert_eq!(
            SyncUrl::parse("http://[::1]:8080")
                .unwrap()
                .host_namespace(),
            None
        );
        assert_eq!(
            SyncUrl::parse("http://localhost:8080")
                .unwrap()
                .host_namespace(),
            None
        );
        for bad in [
            "",
            "x",
            "ftp://h",
            "http://",
            "http://h?authToken=S3CRET",
            "http://u:S3CRET@h",
            "http://h:99999",
            "http://h:x",
        ] {
            let error = SyncUrl::parse(bad).expect_err(bad).to_string();
            assert!(error.contains("sync_url"), "{error}");
            assert!(!error.contains("S3CRET"), "{error}");
        }
    }

    #[test]
    fn values() {
        let mut o = Options::default();
        o.set("sync_interval", "0.25").unwrap();
        assert_eq!(o.sync_interval, Duration::from_millis(250));
        o.set("live", "on").unwrap();
        assert!(o.live);
        o.set("live", "").unwrap();
        assert!(!o.live);
        for (name, value) in [
            ("sync_interval", "-1"),
            ("sync_interval", "NaN"),
            ("sync_interval", "1e300"),
            ("timeout", "0"),
            ("timeout", "x"),
            ("live", "2"),
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
