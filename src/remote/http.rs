//! HTTP to the primary: one agent, its limits, its trust, and every failure in words.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use parking_lot::Mutex;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, RustlsConnector, Transport,
};
use ureq::{Agent, Body};

use super::answer::NoAnswer;
use super::budget::{RequestLimit, sending};
use super::heard::heard;
use super::proxies::proxy_for;
use super::socket::{Names, Sockets, interruption};
use super::{SharedOptions, Traffic};
use crate::config::SyncUrl;
use crate::error::{Error, Result};

pub struct Http {
    line: Line,
    options: SharedOptions,
    /// No wait is longer, whatever the options say.
    limit: Mutex<Duration>,
    url: SyncUrl,
    roots: Option<RootCerts>,
    pub traffic: Arc<Traffic>,
    pub requests: RequestLimit,
    connects: Connects,
    /// Microseconds.
    round_trip: AtomicU64,
    confirmed: Mutex<Option<Confirmed>>,
}

/// Which log the process at the other end has, as a Hello told.
struct Confirmed {
    log_id: String,
    connects: u64,
    at: Instant,
}

/// No Hello counts for longer than this: connections may end at a reverse
/// proxy, and then they outlive the process that told it.
const CONFIRMED: Duration = Duration::from_secs(1);

/// The connections of an [`Http`], for another thread to cut.
#[derive(Clone)]
pub struct Line(Arc<Mutex<Connections>>);

struct Connections {
    /// Made anew when the `timeout` option changes.
    agent: Agent,
    timeout: Duration,
    cut: bool,
}

impl Line {
    fn new(timeout: Duration, agent: Agent) -> Line {
        Line(Arc::new(Mutex::new(Connections {
            agent,
            timeout,
            cut: false,
        })))
    }

    fn agent(&self, timeout: Duration, make: impl FnOnce() -> Agent) -> Agent {
        let mut connections = self.0.lock();
        if connections.timeout != timeout && !connections.cut {
            (connections.agent, connections.timeout) = (make(), timeout);
        }
        connections.agent.clone()
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
    pub fn new(url: SyncUrl, options: SharedOptions, traffic: Arc<Traffic>) -> Result<Http> {
        let (timeout, ca_file) = {
            let options = options.lock();
            (options.timeout, options.ca_file.clone())
        };
        // Checked also where it is not needed: a bad value never passes silently.
        let extra = ca_file.as_deref().map(certificates).transpose()?;
        let roots = url
            .base
            .starts_with("https:")
            .then(|| roots(extra.unwrap_or_default()));
        let connects = Connects::default();
        Ok(Http {
            line: Line::new(
                timeout,
                agent(timeout, &url, roots.clone(), connects.clone()),
            ),
            options,
            limit: Mutex::new(Duration::MAX),
            url,
            roots,
            traffic,
            requests: RequestLimit::default(),
            connects,
            round_trip: AtomicU64::new(0),
            confirmed: Mutex::new(None),
        })
    }

    pub fn limit_waits(&self, limit: Duration) {
        *self.limit.lock() = limit;
    }

    /// No single network wait is longer now.
    pub fn longest_wait(&self) -> Duration {
        self.options.lock().timeout.min(*self.limit.lock())
    }

    /// Whether somebody has ended all waits for ever.
    pub fn is_cut(&self) -> bool {
        self.line.0.lock().cut
    }

    /// An agent with the time limit that holds now.
    fn agent(&self) -> Agent {
        let timeout = self.longest_wait();
        self.line.agent(timeout, || {
            agent(
                timeout,
                &self.url,
                self.roots.clone(),
                self.connects.clone(),
            )
        })
    }

    /// A Hello has just told the log's identity.
    pub fn confirm(&self, log_id: &str, round_trip: Duration) {
        let micros = round_trip.as_micros().min(60_000_000) as u64;
        self.round_trip.store(micros, Ordering::Relaxed);
        *self.confirmed.lock() = Some(Confirmed {
            log_id: log_id.to_string(),
            connects: self.connects(),
            at: Instant::now(),
        });
    }

    /// The identity that still holds: every connection of ours was there when
    /// it was told, so at their other ends is the process that told it. (It
    /// changes only with the process.)
    pub fn confirmed(&self) -> Option<String> {
        let confirmed = self.confirmed.lock();
        let confirmed = confirmed.as_ref()?;
        (confirmed.connects == self.connects() && confirmed.at.elapsed() < CONFIRMED)
            .then(|| confirmed.log_id.clone())
    }

    /// The process at the other end may be another one by now.
    pub fn doubt(&self) {
        *self.confirmed.lock() = None;
    }

    /// What the last Hello took.
    pub fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.load(Ordering::Relaxed))
    }

    /// How many connections have been made.
    pub fn connects(&self) -> u64 {
        self.connects.0.load(Ordering::SeqCst)
    }

    /// The namespace and the token, as every request carries them.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let options = self.options.lock();
        let namespace = options.namespace.as_deref();
        let namespace = namespace.or(self.url.host_namespace()).unwrap_or("default");
        // Binary metadata: base64, and sqld accepts no padding.
        let mut headers = vec![("x-namespace-bin", STANDARD_NO_PAD.encode(namespace))];
        if let Some(token) = &options.auth_token {
            let bearer = format!("Bearer {}", token.expose());
            headers.push(("authorization", bearer.clone()));
            headers.push(("x-authorization", bearer));
        }
        headers
    }

    /// What somebody at the other end said, fit for an error.
    pub fn heard(&self, text: &str) -> String {
        let options = self.options.lock();
        heard(
            text,
            options.auth_token.as_ref().map(|token| token.expose()),
        )
    }

    pub fn line(&self) -> Line {
        self.line.clone()
    }

    pub fn url(&self) -> &SyncUrl {
        &self.url
    }

    /// Posts a body to an address of the primary; the answer once its head is
    /// there, if it is of this content-type.
    pub fn post(
        &self,
        base: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
        kind: &str,
    ) -> std::result::Result<Response<Body>, NoAnswer> {
        let limit = sending(body.len(), self.longest_wait());
        let mut request = self.agent().post(format!("{base}{path}"));
        request = request.config().timeout_send_body(Some(limit)).build();
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send(body).map_err(|e| NoAnswer::new(self, &e))?;
        let sent = &self.traffic.sent;
        sent.fetch_add(body.len() as u64, Ordering::Relaxed);
        self.check(response, kind)
    }

    /// What went wrong on the way, in words.
    pub fn explain(&self, error: &ureq::Error) -> Error {
        if let Some(interrupted) = interruption(error) {
            return interrupted;
        }
        let host = &self.url.host;
        let why = match error {
            ureq::Error::HostNotFound => format!("no such host '{host}'"),
            ureq::Error::Timeout(phase) => format!("timed out ({phase})"),
            ureq::Error::Io(e) => return self.explain_io(e),
            ureq::Error::Protocol(e) => {
                return Error::Protocol(format!("not HTTP: {}", self.heard(&e.to_string())));
            }
            ureq::Error::Tls(e) => format!("TLS: {e}"),
            ureq::Error::Rustls(e) => format!("TLS: {e}{}", self.tls_hint()),
            other => self.heard(&other.to_string()),
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
        let error = self.heard(&error.to_string());
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

/// Frames come by the megabyte.
const INPUT_BUFFER: usize = 512 << 10;

/// Counts connections as they are made.
#[derive(Clone, Debug, Default)]
struct Connects(Arc<AtomicU64>);

impl<In: Transport> Connector<In> for Connects {
    type Out = In;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> std::result::Result<Option<In>, ureq::Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(chained)
    }
}

fn agent(timeout: Duration, url: &SyncUrl, roots: Option<RootCerts>, connects: Connects) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        // A redirect would carry the token to another host.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(proxy_for(url))
        .user_agent(concat!("libreplica/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_per_read(Some(timeout))
        .timeout_per_write(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .input_buffer_size(INPUT_BUFFER)
        .max_idle_age(Duration::from_secs(60));
    if let Some(roots) = roots {
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(Sockets)
            .chain(RustlsConnector::default())
            .chain(connects);
    Agent::with_parts(config.build(), connector, Names)
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
    let bad = |why: String| Error::Config(format!("ca_file: the file {why}"));
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
