//! How long to wait before the primary is asked again.

use std::time::Duration;

use crate::error::Error;

const FIRST: Duration = Duration::from_millis(25);
/// With its jitter below a second: so soon a primary that comes back is found.
const AWAY: Duration = Duration::from_millis(700);
/// What an answer says will not change so soon: a refused token, another history.
const REFUSED: Duration = Duration::from_secs(5);
/// In a network that swallows everything a wait for an answer may be one for
/// ever, so most attempts are short; some are not, for one that is only slow.
const SHORT_ATTEMPT: Duration = Duration::from_secs(1);
const LONGER_ATTEMPT: Duration = Duration::from_secs(3);
const LONGER_EVERY: u32 = 4;
const LONGEST_EVERY: u32 = 16;

/// Doubling pauses, spread at random so that many replicas do not all ask at once.
#[derive(Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// The pause after a failure; `random` is spread evenly over its range.
    pub fn failed(&mut self, error: &Error, random: u8) -> Duration {
        let transient = matches!(error, Error::Unreachable(_) | Error::Busy(_));
        let most = if transient { AWAY } else { REFUSED };
        let pause = FIRST * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        // 70 % to 130 %
        pause
            .min(most)
            .mul_f64(0.7 + 0.6 * f64::from(random) / 255.0)
    }

    /// How long the next attempt may take, given the `timeout` option.
    pub fn patience(&self, timeout: Duration) -> Duration {
        if self.failures.is_multiple_of(LONGEST_EVERY) {
            timeout
        } else if self.failures.is_multiple_of(LONGER_EVERY) {
            timeout.min(LONGER_ATTEMPT)
        } else {
            timeout.min(SHORT_ATTEMPT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let away = Error::Unreachable(String::new());
        let mut backoff = Backoff::default();
        assert!(backoff.failed(&away, 255) < Duration::from_millis(35));
        for _ in 0..100 {
            assert!(backoff.failed(&away, 255) < Duration::from_secs(1));
        }
        assert!(backoff.failed(&away, 0) > Duration::from_millis(400));
        assert!(backoff.failed(&Error::Auth(String::new()), 128) > Duration::from_secs(4));
        backoff.reset();
        assert!(backoff.failed(&away, 0) < FIRST);
    }

    #[test]
    fn attempts() {
        let (away, timeout) = (Error::Unreachable(String::new()), Duration::from_secs(10));
        let mut backoff = Backoff::default();
        let attempts: Vec<_> = (0..18)
            .map(|_| {
                let patience = backoff.patience(timeout);
                backoff.failed(&away, 0);
                patience.as_secs()
            })
            .collect();
        let expected = [10, 1, 1, 1, 3, 1, 1, 1, 3, 1, 1, 1, 3, 1, 1, 1, 10, 1];
        assert_eq!(attempts, expected);
    }
}
