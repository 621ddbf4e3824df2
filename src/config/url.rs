//! Where the primary is.

use percent_encoding::percent_decode_str;

use super::options::flag;
use super::secret::Secret;
use crate::error::{Error, Result};

/// Checked: `http` or `https`, host, optional port and path.
#[derive(Clone, Debug)]
pub struct SyncUrl {
    /// As the user wrote it, without what stands behind a `?`: fit for a
    /// message, and to be remembered.
    pub text: String,
    /// `http://host:port/path` or `https://…`, without a trailing slash.
    pub base: String,
    pub host: String,
}

impl PartialEq for SyncUrl {
    fn eq(&self, other: &SyncUrl) -> bool {
        self.base == other.base
    }
}

/// What may stand behind the `?`, as in Turso's own strings.
#[derive(Default)]
struct Query {
    token: Option<Secret>,
    tls: Option<bool>,
}

fn bad(why: &str) -> Error {
    Error::Config(format!("sync_url: {why}"))
}

impl SyncUrl {
    /// One that was remembered.
    pub fn parse(text: &str) -> Result<Self> {
        match Self::parse_given(text)? {
            (url, None) => Ok(url),
            (_, Some(_)) => Err(bad("there is a token in it")),
        }
    }

    /// One that the user gave, and the token in it.
    pub fn parse_given(text: &str) -> Result<(Self, Option<Secret>)> {
        let (url, query) = text.trim().split_once('?').unwrap_or((text.trim(), ""));
        if text.contains('#') {
            return Err(bad("a fragment is not part of it"));
        }
        let query = Query::parse(query)?;
        let expected = || bad("expected http://, https://, libsql:// or turso://");
        let (scheme, rest) = url.split_once("://").ok_or_else(expected)?;
        let scheme = scheme.to_ascii_lowercase();
        let (transport, own) = match scheme.as_str() {
            "http" | "https" => (scheme.as_str(), false),
            "libsql" | "turso" => ("https", true),
            _ => return Err(expected()),
        };
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(bad(
                "user names are not part of it; give the token as auth_token",
            ));
        }
        let transport = match query.tls {
            Some(tls) if tls == (transport == "https") => transport,
            Some(false) if own => "http",
            Some(_) => return Err(bad("tls= contradicts its scheme")),
            None => transport,
        };
        let base = format!("{transport}://{}", rest.trim_end_matches('/'));
        let uri: ureq::http::Uri = base.parse().map_err(|_| bad("not a valid URL"))?;
        let host = uri.host().filter(|h| !h.is_empty());
        let host = host.ok_or_else(|| bad("no host"))?.to_string();
        if !authority.ends_with(&host) && uri.port_u16().is_none() {
            return Err(bad("not a valid port"));
        }
        // What is remembered must say by itself what it means.
        let text = match own && transport == "http" {
            true => base.clone(),
            false => format!("{scheme}://{rest}"),
        };
        Ok((SyncUrl { text, base, host }, query.token))
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

impl Query {
    fn parse(text: &str) -> Result<Query> {
        let mut query = Query::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| bad("not UTF-8 behind the ?"))?;
            match name {
                "authToken" if query.token.is_none() => {
                    query.token = Some(Secret::new(value.into_owned()));
                }
                "tls" if query.tls.is_none() => query.tls = Some(flag("sync_url: tls", &value)?),
                "authToken" | "tls" => return Err(bad("something is given twice behind the ?")),
                _ => {
                    return Err(bad("behind the ? only authToken= and tls= are understood"));
                }
            }
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good() {
        for (text, base, kept) in [
            (
                "libsql://db-org.turso.io/",
                "https://db-org.turso.io",
                "libsql://db-org.turso.io/",
            ),
            ("LibSQL://h", "https://h", "libsql://h"),
            ("turso://h", "https://h", "turso://h"),
            (
                "HTTP://127.0.0.1:8080\n",
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080",
            ),
            (
                "libsql://h:1/p?tls=0&authToken=S3CRET",
                "http://h:1/p",
                "http://h:1/p",
            ),
            ("https://h?tls=1", "https://h", "https://h"),
            ("https://h/?authToken=", "https://h", "https://h/"),
        ] {
            let (url, token) = SyncUrl::parse_given(text).unwrap();
            assert_eq!((url.base.as_str(), url.text.as_str()), (base, kept));
            assert_eq!(token.is_some(), text.contains("authToken"));
            assert_eq!(SyncUrl::parse(&url.text).unwrap(), url);
        }
    }

    #[test]
    fn bad() {
        for text in [
            "",
            "x",
            "ftp://h",
            "http://",
            "http://h?auth=S3CRET",
            "http://h?authToken=S3CRET&authToken=S3CRET2",
            "http://h#S3CRET",
            "http://u:S3CRET@h",
            "http://h:99999",
            "http://h:x",
            "http://h?tls=1",
            "https://h?tls=0",
            "libsql://h?tls=yes",
            "libsql://h?tls",
        ] {
            let error = SyncUrl::parse_given(text).expect_err(text).to_string();
            assert!(error.contains("sync_url"), "{error}");
            assert!(!error.contains("S3CRET"), "{error}");
        }
        assert!(SyncUrl::parse("http://h?authToken=S3CRET").is_err());
    }

    #[test]
    fn namespaces() {
        for (text, namespace) in [
            ("libsql://db-org.turso.io", Some("db-org")),
            ("http://127.0.0.1:8080", None),
            ("http://[::1]:8080", None),
            ("http://localhost:8080", None),
        ] {
            assert_eq!(SyncUrl::parse(text).unwrap().host_namespace(), namespace);
        }
    }
}
