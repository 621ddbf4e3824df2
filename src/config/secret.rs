//! Secrets, and where they may come from.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};

/// A value that must not show up in any text.
#[derive(Clone, Default, PartialEq, Eq)]
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

/// What may be `env:NAME` or `file:PATH`, to stay out of URIs and process
/// lists. Nothing else may: plain SQL could send any file to any host.
const SECRETS: [&str; 3] = ["auth_token", "encryption_key", "ca_file"];

/// The value that a text stands for.
pub fn resolve(name: &str, text: &str) -> Result<Zeroizing<String>> {
    let (variable, path) = (text.strip_prefix("env:"), text.strip_prefix("file:"));
    if (variable.is_some() || path.is_some()) && !SECRETS.contains(&name) {
        return Err(Error::Config(format!(
            "{name}: env: and file: are for secrets alone ({})",
            SECRETS.join(", ")
        )));
    }
    if let Some(variable) = variable {
        let value = std::env::var(variable).map_err(|_| {
            Error::Config(format!(
                "{name}: the environment variable that it names is not set"
            ))
        });
        return value.map(Zeroizing::new);
    }
    // A certificate file is named, not contained.
    let Some(path) = path.filter(|_| name != "ca_file") else {
        return Ok(Zeroizing::new(path.unwrap_or(text).to_string()));
    };
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|e| {
        Error::Config(format!(
            "{name}: the file that it names cannot be read: {}",
            e.kind()
        ))
    })?;
    Ok(Zeroizing::new(
        text.trim_end_matches(['\r', '\n']).to_string(),
    ))
}
