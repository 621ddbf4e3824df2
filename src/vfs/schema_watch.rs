//! Another history of the primary is taken into the same file, under the eyes
//! of connections that know where tables lie. If its schema cookie happens to
//! be the one they know, SQLite would not look again: it would read other
//! tables' pages, and write to them. So whoever has the file open across such
//! a change is shown another cookie from then on.
//!
//! The file itself stays what the primary has. A page 1 that such a connection
//! writes carries the cookie that it was shown: to everybody else a new one.

/// The beginning of page 1 (file format, section 1.3), and of no other page: a
/// b-tree page begins with its type, an overflow or trunk page with the number
/// of another page, which no database has as many of.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The schema cookie.
const COOKIE: std::ops::Range<usize> = 40..44;

/// Which history a connection has seen.
#[derive(Default)]
pub struct SchemaWatch {
    history: Option<u64>,
    /// How much later its cookies are than the file's: their order stays, and
    /// with it what follows from it.
    later: u32,
}

/// Whether these bytes, as read from the database or its log, are page 1 with its cookie.
pub fn is_page1(bytes: &[u8]) -> bool {
    bytes.len() >= COOKIE.end && bytes.starts_with(MAGIC)
}

impl SchemaWatch {
    /// How much later than the file's the cookies are that the connection sees.
    pub fn later(&self) -> u32 {
        self.later
    }

    /// The connection has read page 1 of the file, which is in this history now.
    pub fn read(&mut self, page1: &mut [u8], history: u64) {
        match self.history.replace(history) {
            Some(before) if before != history => self.later = later(history),
            _ => {}
        }
        let cookie = &mut page1[COOKIE];
        let true_one = u32::from_be_bytes([cookie[0], cookie[1], cookie[2], cookie[3]]);
        cookie.copy_from_slice(&true_one.wrapping_add(self.later).to_be_bytes());
    }
}

/// Another one for each history, and far from what schema changes lead to.
fn later(history: u64) -> u32 {
    (history as u32).wrapping_mul(0x9e37_79b9) | 0x4000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(cookie: u32) -> Vec<u8> {
        let mut page = [&MAGIC[..], &[0; 84]].concat();
        page[COOKIE].copy_from_slice(&cookie.to_be_bytes());
        page
    }

    fn shown(watch: &mut SchemaWatch, cookie: u32, history: u64) -> u32 {
        let mut page = page(cookie);
        assert!(is_page1(&page));
        watch.read(&mut page, history);
        u32::from_be_bytes(page[COOKIE].try_into().unwrap())
    }

    #[test]
    fn the_cookie_is_another_one_after_a_change_of_history() {
        let mut watch = SchemaWatch::default();
        assert_eq!(shown(&mut watch, 5, 1), 5);
        assert_eq!(shown(&mut watch, 6, 1), 6);
        let second = shown(&mut watch, 5, 2);
        assert_ne!(second, 5);
        // The same for as long as the history is.
        assert_eq!(shown(&mut watch, 5, 2), second);
        let third = shown(&mut watch, 5, 3);
        assert!(third != 5 && third != second);
        // A connection that comes later sees the file's own.
        assert_eq!(shown(&mut SchemaWatch::default(), 5, 3), 5);
    }

    #[test]
    fn other_pages_are_not_page_1() {
        assert!(!is_page1(&[13; 4096]));
        assert!(!is_page1(&MAGIC[..]));
    }
}
