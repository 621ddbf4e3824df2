//! What was given, before it is put together: several sources may name the
//! same option, and must then agree.

use std::collections::BTreeMap;

use super::names;
use super::options::Options;
use super::secret::{Secret, resolve};
use super::url::SyncUrl;
use crate::error::{Error, Result};

/// Secrets of what is opened by `replica_adopt`.
const ENVIRONMENT: [(&str, &str); 2] = [
    ("auth_token", "LIBREPLICA_AUTH_TOKEN"),
    ("encryption_key", "LIBREPLICA_ENCRYPTION_KEY"),
];

/// Each value checked, `env:` and `file:` read.
#[derive(Clone, Debug, Default)]
pub struct Given(BTreeMap<&'static str, Secret>);

impl Given {
    /// The parameters of a URI, each with its value. What is SQLite's or a
    /// binding's own is passed over.
    pub fn from_uri(parameters: impl IntoIterator<Item = (String, Secret)>) -> Result<Given> {
        let (mut given, mut seen) = (Given::default(), Vec::new());
        for (name, value) in parameters {
            if names::is_foreign(&name) {
                continue;
            }
            given.add(&name, value.expose())?;
            // SQLite tells the value of the first one only.
            if seen.contains(&name) {
                return Err(Error::Config(format!("{name} is given twice")));
            }
            seen.push(name);
        }
        Ok(given)
    }

    /// A JSON object; null is as good as not given.
    pub fn from_json(text: &str) -> Result<Given> {
        use serde_json::Value;
        let bad = |why: String| Error::Config(format!("the options are {why}"));
        let json: Value = serde_json::from_str(text).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            bad(format!("not JSON (line {line}, column {column})"))
        })?;
        let object = json.as_object();
        let object = object.ok_or_else(|| bad("not a JSON object".into()))?;
        let mut given = Given::default();
        for (name, value) in object {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(on) => on.to_string(),
                Value::Number(number) => number.to_string(),
                Value::Null => continue,
                _ => {
                    let name = names::look_up(name)?;
                    return Err(Error::Config(format!(
                        "{name}: expected a string, a number or a boolean"
                    )));
                }
            };
            given.add(name, Secret::new(text).expose())?;
        }
        Ok(given)
    }

    /// What was not given and has a default in the environment: for opens
    /// that cannot be given anything.
    pub fn complete_from_environment(&mut self) -> Result<()> {
        for (name, variable) in ENVIRONMENT {
            let value = std::env::var(variable).map(Secret::new).unwrap_or_default();
            if !value.expose().is_empty() && !self.has(name) {
                self.add(name, value.expose())?;
            }
        }
        Ok(())
    }

    /// One option, under any of its names.
    pub fn add(&mut self, name: &str, value: &str) -> Result<()> {
        let name = names::look_up(name)?;
        let value = resolve(name, value)?;
        if name != "sync_url" {
            return self.keep(name, &value);
        }
        let (url, token) = SyncUrl::parse_given(&value)?;
        if let Some(token) = token {
            self.keep("auth_token", token.expose())?;
        }
        self.keep(name, &url.text)
    }

    fn keep(&mut self, name: &'static str, value: &str) -> Result<()> {
        let read = |value: &str| {
            let mut options = Options::default();
            options.put(name, value).map(|()| options)
        };
        let new = read(value)?;
        if name == "auth_token" && new.auth_token.is_none() {
            // An empty token is none: the variable of a primary that asks for none.
            return Ok(());
        }
        match self.0.get(name) {
            Some(old) if read(old.expose())? != new => Err(Error::Config(format!(
                "{name} is given twice, with different values; leave one of them out"
            ))),
            Some(_) => Ok(()),
            None => {
                self.0.insert(name, Secret::new(value.to_string()));
                Ok(())
            }
        }
    }

    /// Both together; a contradiction is an error.
    pub fn merge(mut self, other: &Given) -> Result<Given> {
        for (name, value) in &other.0 {
            self.keep(name, value.expose())?;
        }
        Ok(self)
    }

    /// Puts another value in the place of one that was given.
    pub fn replace(&mut self, name: &str, value: &Secret) {
        if let Some(old) = self.0.get_mut(name) {
            *old = value.clone();
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn options(&self) -> Result<Options> {
        let mut options = Options::default();
        for (name, value) in &self.0 {
            options.put(name, value.expose())?;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(pairs: &[(&str, &str)]) -> Result<Given> {
        let pair =
            |(name, value): &(&str, &str)| (name.to_string(), Secret::new(value.to_string()));
        Given::from_uri(pairs.iter().map(pair))
    }

    fn refused(given: Result<Given>, name: &str) {
        let error = given.unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains("S3CRET"), "{error}");
    }

    #[test]
    fn sources_that_agree() {
        let one = uri(&[("syncUrl", "HTTP://h/"), ("mode", "ro"), ("_pragma", "x")]).unwrap();
        let two = Given::from_json(r#"{"sync_url": "http://h", "timeout": 2.5, "live": true}"#);
        let options = one.merge(&two.unwrap()).unwrap().options().unwrap();
        assert_eq!(options.sync_url.unwrap().base, "http://h");
        assert!(options.live && options.timeout.as_millis() == 2500);
    }

    #[test]
    fn contradictions() {
        let a = uri(&[("auth_token", "S3CRET-a")]).unwrap();
        let b = uri(&[("sync_url", "libsql://h?authToken=S3CRET-b")]).unwrap();
        refused(a.merge(&b), "auth_token");
        refused(
            uri(&[("live", "1"), ("timeout", "1"), ("timeout", "1")]),
            "timeout",
        );
        refused(
            uri(&[("syncInterval", "1"), ("sync_interval", "2")]),
            "sync_interval",
        );
        refused(Given::from_json(r#"{"sync_url": "S3CRET"}"#), "sync_url");
        refused(Given::from_json(r#"{"timeout": true}"#), "timeout");
        refused(Given::from_json(r#"{"live": []}"#), "live");
        refused(Given::from_json("S3CRET"), "JSON");
    }

    #[test]
    fn a_token_wherever_it_comes_from() {
        for given in [
            uri(&[("authToken", " t.t \n")]),
            uri(&[("sync_url", "libsql://h?authToken=t.t%0A")]),
            uri(&[
                ("sync_url", "libsql://h?authToken=t.t"),
                ("auth_token", "t.t"),
            ]),
        ] {
            let options = given.unwrap().options().unwrap();
            assert_eq!(options.auth_token.unwrap().expose(), "t.t");
        }
        assert!(!uri(&[("auth_token", "")]).unwrap().has("auth_token"));
    }
}
