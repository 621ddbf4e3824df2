//! The names of options: ours, those of the libSQL clients, and what belongs
//! to SQLite or to a binding and is none of ours.

use crate::error::{Error, Result};

/// Every option, in the order of the documentation, and how the libSQL clients
/// spell it.
pub const OPTIONS: [(&str, Option<&str>); 13] = [
    ("sync_url", Some("syncUrl")),
    ("auth_token", Some("authToken")),
    ("encryption_key", Some("encryptionKey")),
    ("sync_interval", Some("syncInterval")),
    ("live", None),
    ("read_your_writes", Some("readYourWrites")),
    ("write_lock", None),
    ("write_path", None),
    ("namespace", None),
    ("timeout", None),
    ("ca_file", None),
    ("progress", None),
    ("foreign_keys", None),
];

/// URI parameters that SQLite itself reads, on one system or another, and
/// those of the VFSs in its source tree that can stand above ours.
const SQLITE: [&str; 13] = [
    "vfs",
    "mode",
    "cache",
    "psow",
    "nolock",
    "immutable",
    "modeof",
    "8_3_names",
    "readonly_shm",
    "exclusive",
    "reserve",
    "chunksize",
    "truncate",
];

/// Whether a URI parameter is another's: SQLite's own, or one that a binding
/// has read and left in the URI, as Go's do (`_pragma`, `_busy_timeout`).
pub fn is_foreign(name: &str) -> bool {
    name.starts_with('_') || SQLITE.contains(&name)
}

/// The option that a name stands for.
pub fn look_up(name: &str) -> Result<&'static str> {
    let spelt = |(ours, libsql): &&(&'static str, Option<&str>)| {
        *ours == name || libsql.is_some_and(|libsql| libsql == name)
    };
    match OPTIONS.iter().find(spelt) {
        Some((ours, _)) => Ok(ours),
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    // What looks like no name at all may be a value that went astray.
    let fit = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let shown = match name.len() <= 24 && name.chars().all(fit) {
        true => format!("no option '{name}'"),
        false => "an option that there is none of".to_string(),
    };
    Error::Config(match nearest(name) {
        Some(nearest) => format!("{shown}; did you mean {nearest}?"),
        None => {
            let ours: Vec<_> = OPTIONS.iter().map(|(ours, _)| *ours).collect();
            format!("{shown}; the options are {}", ours.join(", "))
        }
    })
}

/// The right name that was most likely meant.
fn nearest(name: &str) -> Option<&'static str> {
    let plain = plain(name);
    let ours = OPTIONS.iter().map(|(ours, _)| *ours);
    let scored = ours
        .chain(SQLITE)
        .map(|right| (score(&plain, right), right));
    let (score, right) = scored.min_by_key(|(score, _)| *score)?;
    (score <= (plain.len() * 2 / 3).max(3)).then_some(right)
}

/// How far a name, plain, is from a right one: twice the letters that differ.
fn score(name: &str, right: &str) -> usize {
    // `key`, `hexkey`, `token`, `url`: a part of it says nearly as much as one wrong letter.
    let is_part = right
        .split('_')
        .any(|part| right.contains('_') && part.len() >= 3 && name.ends_with(part));
    let distance = 2 * distance(name.as_bytes(), plain(right).as_bytes());
    if is_part { distance.min(3) } else { distance }
}

/// Without case and without what joins words; no longer than any name is.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric).take(32);
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

/// The least number of letters to insert, delete or replace.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_names() {
        for (name, ours) in [
            ("sync_url", "sync_url"),
            ("syncUrl", "sync_url"),
            ("readYourWrites", "read_your_writes"),
            ("foreign_keys", "foreign_keys"),
        ] {
            assert_eq!(look_up(name).unwrap(), ours);
        }
        for name in ["mode", "vfs", "8_3_names", "_pragma", "_txlock"] {
            assert!(is_foreign(name), "{name}");
        }
        assert!(!is_foreign("sync_url") && !is_foreign("Mode"));
    }

    #[test]
    fn wrong_names() {
        for (name, right) in [
            ("sync_uri", "sync_url"),
            ("syncurl", "sync_url"),
            ("SYNC_URL", "sync_url"),
            ("sync-url", "sync_url"),
            ("url", "sync_url"),
            ("Authtoken", "auth_token"),
            ("token", "auth_token"),
            ("key", "encryption_key"),
            ("hexkey", "encryption_key"),
            ("lives", "live"),
            ("writepath", "write_path"),
            ("foreign_key", "foreign_keys"),
            ("time_out", "timeout"),
            ("mod", "mode"),
        ] {
            let error = look_up(name).unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean {right}?")), "{error}");
            assert!(error.contains(&format!("'{name}'")), "{error}");
        }
    }

    #[test]
    fn names_like_nothing() {
        for name in ["", "bogus", "ä", "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.e30"] {
            let error = look_up(name).unwrap_err().to_string();
            assert!(error.contains("sync_url, auth_token"), "{error}");
            assert!(!error.contains("eyJ"), "{error}");
        }
    }
}
