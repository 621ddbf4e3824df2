//! What a request may have.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Steps of a request at most: an answer may have 10 MB.
pub const REQUEST_STEPS: u32 = 20_000;
/// Bytes of a request, about, as long as nothing on the way refuses that.
const REQUEST_BYTES: usize = 8 << 20;
/// What is tried after a refusal: most proxies take a megabyte (nginx does by default).
const USUAL_BYTES: usize = 960 << 10;
/// Proxies are configured anew.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How large a request may be, as refusals have shown.
#[derive(Default)]
pub struct RequestLimit(Mutex<Option<(usize, Instant)>>);

impl RequestLimit {
    pub fn bytes(&self) -> usize {
        match *self.0.lock() {
            Some((bytes, since)) if since.elapsed() < REMEMBERED => bytes,
            _ => REQUEST_BYTES,
        }
    }

    /// A request of so many bytes was too large (HTTP 413).
    pub fn refused(&self, bytes: usize) {
        let less = match bytes {
            much if much > 2 * USUAL_BYTES => USUAL_BYTES,
            little => little / 2,
        };
        let less = less.min(self.bytes());
        *self.0.lock() = Some((less, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_not_tried_again() {
        let limit = RequestLimit::default();
        assert_eq!(limit.bytes(), REQUEST_BYTES);
        limit.refused(5 << 20);
        assert_eq!(limit.bytes(), USUAL_BYTES);
        limit.refused(900 << 10);
        assert_eq!(limit.bytes(), 450 << 10);
    }
}
