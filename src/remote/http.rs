//! HTTP to the primary: one agent, its limits, its trust, and every failure in words.

use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::Traffic;
use crate::config::{Options, SyncUrl};
use crate::error::{Error, Result};

pub struct Http {
    line: Line,
    timeout: Duration,
    url: SyncUrl,
    roots: Option<RootCerts>,
    pub traffic: Arc<Traffic>,
}

/// The connections of an [`Http`], for another thread to cut.
#[derive(Clone)]
pub struct Line(Arc<Mutex<Connections>>);

struct Connections {
    agent: Agent,
    cut: bool,
}

impl Line {
    fn new(agent: Agent) -> Line {
        Line(Arc::new(Mutex::new(Connections { agent, cut: false })))
    }

    fn agent(&self) -> Agent {
        self.0.lock().agent.clone()
    }

    fn set(&self, agent: Agent) {
        let mut connections = self.0.lock();
        if !connections.cut {
            connections.agent = agent;
        }
    }

    /// Ends every wait at once, and for ever: each later request fails. Only
    /// name resolution and a connect that is under way still take their time.
    pub fn cut(&self) {
        let mut connections = self.0.lock();
        connections.cut = true;
        connections.agent.clone().shutdown();
    }
}

impl Http {
    pub fn new(url: SyncUrl, options: &Options, traffic: Arc<Traffic>) -> Result<Http> {
        // Checked also where it is not needed: a bad value never passes silently.
        let extra = options.ca_file.as_deref().map(certificates).transpose()?;
        let roots = url
            .base
            .starts_with("https:")
            .then(|| roots(extra.unwrap_or_default()));
        Ok(Http {
            line: Line::new(agent(options.timeout, roots.clone())),
            timeout: options.timeout,
            url,
            roots,
            traffic,
        })
    }

    pub fn set_timeout(&mut self, timeout: Duration) {
        if self.timeout != timeout {
            self.timeout = timeout;
            self.line.set(agent(timeout, self.roots.clone()));
        }
    }

    pub fn line(&self) -> Line {
        self.line.clone()
    }

    pub fn url(&self) -> &SyncUrl {
        &self.url
    }

    /// Posts a body; answers once the response's head is there, whatever its status.
    pub fn post(
        &self,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Response<Body>> {
        let mut request = self.line.agent().post(format!("{}{path}", self.url.base));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send(body).map_err(|e| self.explain(&e))?;
        self.traffic
            .sent
            .fetch_add(body.len() as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(response)
    }

    /// What went wrong on the way, in words.
    pub fn explain(&self, error: &ureq::Error) -> Error {
        let host = &self.url.host;
        let why = match error {
            ureq::Error::HostNotFound => format!("no such host '{host}'"),
            ureq::Error::Timeout(phase) => format!("timed out ({phase})"),
            ureq::Error::Io(e) => return self.explain_io(e),
            ureq::Error::Protocol(e) => return Error::Protocol(format!("not HTTP: {e}")),
            ureq::Error::Tls(e) => format!("TLS: {e}"),
            ureq::Error::Rustls(e) => format!("TLS: {e}{}", self.tls_hint()),
            other => other.to_string(),
        };
        Error::Unreachable(format!("{}: {why}", self.url.text))
    }

    pub fn explain_io(&self, error: &std::io::Error) -> Error {
        // A failure while a body is read comes wrapped.
        if let Some(inner) = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<ureq::Error>())
        {
            return self.explain(inner);
        }
        let hint = if error.to_string().contains("certificate") {
            self.tls_hint()
        } else {
            ""
        };
        Error::Unreachable(format!("{}: {error}{hint}", self.url.text))
    }

    fn tls_hint(&self) -> &'static str {
        "; a certificate authority of your own is given as ca_file"
    }
}

/// Whether a read of a body ended because nothing came in time; the body can
/// be read on.
pub fn is_timeout(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref());
    matches!(inner, Some(ureq::Error::Timeout(_)))
}

fn agent(timeout: Duration, roots: Option<RootCerts>) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        // A redirect would carry the token to another host.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("libreplica/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_per_read(Some(timeout))
        .timeout_per_write(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .max_idle_age(Duration::from_secs(60));
    if let Some(roots) = roots {
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    config.build().new_agent()
}

/// The system's certificate authorities and these.
fn roots(extra: Vec<Certificate<'static>>) -> RootCerts {
    // Once in a process: each of several replicas has several agents.
    static SYSTEM: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    let system = SYSTEM.get_or_init(|| {
        let certs = rustls_native_certs::load_native_certs().certs;
        let owned = certs
            .iter()
            .map(|der| Certificate::from_der(der).to_owned());
        owned.collect()
    });
    RootCerts::Specific(Arc::new(system.iter().cloned().chain(extra).collect()))
}

/// The certificates in a PEM file.
fn certificates(path: &str) -> Result<Vec<Certificate<'static>>> {
    let bad = |why: String| Error::Config(format!("ca_file: '{path}' {why}"));
    let pem = std::fs::read(path).map_err(|e| bad(format!("cannot be read: {e}")))?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(e) => return Err(bad(format!("is not PEM: {e}"))),
        }
    }
    if certificates.is_empty() {
        return Err(bad("holds no certificate".into()));
    }
    Ok(certificates)
}

/// A header's value if it is there and text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The beginning of an answer's body, fit for a message.
pub fn excerpt(body: &mut Body) -> String {
    let mut bytes = Vec::new();
    let _ = body.as_reader().take(400).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
