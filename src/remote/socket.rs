//! TCP to the primary, with waits that end when the user wants it: name
//! lookup, connect, send, receive.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration as Wait;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, ShutdownHandle,
    Transport,
};
use ureq::{Error, Timeout};

use crate::error;
use crate::ffi::attention;

/// The work was interrupted: how ureq hands that on.
#[derive(Debug)]
struct Interrupted(error::Error);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Interrupted {}

fn interrupted(error: error::Error) -> Error {
    Error::Other(Box::new(Interrupted(error)))
}

/// Why a wait was given up, if it was.
pub fn interruption(error: &Error) -> Option<error::Error> {
    match error {
        Error::Other(other) => other.downcast_ref().map(|Interrupted(error)| error.clone()),
        _ => None,
    }
}

/// Looks names up, each on a thread of its own. An address is no name and needs none.
#[derive(Debug, Default)]
pub struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if is_address {
            let after = Wait::NotHappening;
            let timeout = NextTimeout { after, ..timeout };
            return DefaultResolver::default().resolve(uri, config, timeout);
        }
        let (uri, config) = (uri.clone(), config.clone());
        attention::apart("libreplica-name", move || {
            DefaultResolver::default().resolve(&uri, &config, timeout)
        })
        .map_err(interrupted)?
    }
}

/// Makes TCP connections, unless a proxy's is there already.
#[derive(Debug, Default)]
pub struct Sockets;

impl<In: Transport> Connector<In> for Sockets {
    type Out = Either<In, Socket>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(proxied) = chained {
            return Ok(Some(Either::A(proxied)));
        }
        let addresses: Vec<SocketAddr> = details.addrs.iter().copied().collect();
        let limit = limit(&details.timeout);
        let stream = attention::apart("libreplica-connect", move || reach(&addresses, limit))
            .map_err(interrupted)??;
        stream.set_nodelay(true)?;
        let (input, output) = (
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        let socket = Socket {
            stream: Arc::new(stream),
            buffers: LazyBuffers::new(input, output),
            read_wait: None,
            write_wait: None,
        };
        let handle = Arc::downgrade(&socket.stream) as Weak<dyn ShutdownHandle>;
        (details.register_shutdown)(handle)?;
        Ok(Some(Either::B(socket)))
    }
}

/// What a wait that nobody limits is limited to.
const LONGEST: Duration = Duration::from_secs(86_400);
const SHORTEST: Duration = Duration::from_millis(10);

fn limit(timeout: &NextTimeout) -> Duration {
    match timeout.after {
        Wait::Exact(limit) => limit.clamp(SHORTEST, LONGEST),
        Wait::NotHappening => LONGEST,
    }
}

/// Connects to the first address that answers; each but the last has half of
/// the time that is left.
fn reach(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, Error> {
    let end = Instant::now() + limit;
    let mut failed = Error::Io(ErrorKind::ConnectionRefused.into());
    for (i, address) in addresses.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let share = match i + 1 == addresses.len() {
            true => left,
            false => left / 2,
        };
        match TcpStream::connect_timeout(address, share.max(SHORTEST)) {
            Ok(stream) => return Ok(stream),
            Err(e) if is_timeout(&e) => failed = Error::Timeout(Timeout::Connect),
            Err(e) => failed = Error::Io(e),
        }
    }
    Err(failed)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

pub struct Socket {
    /// Shared with whoever may shut it down.
    stream: Arc<TcpStream>,
    buffers: LazyBuffers,
    /// The waits that the socket is set to.
    read_wait: Option<Duration>,
    write_wait: Option<Duration>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

/// Reads or writes once, in steps that can be interrupted.
fn patiently(
    timeout: NextTimeout,
    end: Instant,
    mut attempt: impl FnMut(Duration) -> io::Result<usize>,
) -> Result<usize, Error> {
    loop {
        attention::check().map_err(interrupted)?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        let step = match attention::is_listening() {
            true => left.min(attention::STEP),
            false => left,
        };
        match attempt(step.max(SHORTEST)) {
            Err(e) if is_timeout(&e) || e.kind() == ErrorKind::Interrupted => {}
            done => return done.map_err(Error::Io),
        }
    }
}

/// Sets a wait of the socket, where it is another one than before.
fn set(
    current: &mut Option<Duration>,
    wait: Duration,
    set: impl FnOnce(Option<Duration>) -> io::Result<()>,
) -> io::Result<()> {
    if *current != Some(wait) {
        set(Some(wait))?;
        *current = Some(wait);
    }
    Ok(())
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let end = Instant::now() + limit(&timeout);
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            let (stream, current) = (&*self.stream, &mut self.write_wait);
            let sent = patiently(timeout, end, |wait| {
                set(current, wait, |wait| stream.set_write_timeout(wait))?;
                let mut stream = stream;
                stream.write(rest)
            })?;
            if sent == 0 {
                return Err(Error::Io(ErrorKind::WriteZero.into()));
            }
            rest = &rest[sent..];
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let end = Instant::now() + limit(&timeout);
        let (stream, current) = (&*self.stream, &mut self.read_wait);
        let buffer = self.buffers.input_append_buf();
        let received = patiently(timeout, end, |wait| {
            set(current, wait, |wait| stream.set_read_timeout(wait))?;
            let mut stream = stream;
            stream.read(buffer)
        })?;
        self.buffers.input_appended(received);
        Ok(received > 0)
    }

    /// An idle connection has nothing to say; what it says is its end.
    fn is_open(&mut self) -> bool {
        let quiet = || -> io::Result<bool> {
            self.stream.set_nonblocking(true)?;
            let quiet = match self.stream.peek(&mut [0]) {
                Err(e) => e.kind() == ErrorKind::WouldBlock,
                Ok(_) => false,
            };
            self.stream.set_nonblocking(false)?;
            Ok(quiet)
        };
        quiet().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_next_address_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let limit = Duration::from_secs(5);
        assert!(reach(&[closed, open], limit).is_ok());
        assert!(matches!(reach(&[closed], limit), Err(Error::Io(_))));
        assert!(matches!(reach(&[], limit), Err(Error::Io(_))));
    }

    #[test]
    fn a_wait_ends_in_time_or_when_it_is_interrupted() {
        let timeout = NextTimeout {
            after: Wait::from_millis(60),
            reason: Timeout::PerRead,
            ..NextTimeout::default()
        };
        let silent = |wait: Duration| {
            std::thread::sleep(wait);
            Err(ErrorKind::WouldBlock.into())
        };
        let error = patiently(timeout, Instant::now() + limit(&timeout), silent).unwrap_err();
        assert!(matches!(error, Error::Timeout(Timeout::PerRead)));
        let timeout = NextTimeout {
            after: Wait::from_secs(60),
            ..timeout
        };
        let begun = Instant::now();
        let error = attention::listening(
            || true,
            || patiently(timeout, Instant::now() + limit(&timeout), silent),
        )
        .unwrap_err();
        assert!(matches!(
            interruption(&error),
            Some(error::Error::Interrupted)
        ));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
