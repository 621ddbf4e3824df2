//! Which proxy leads to the primary, if any: by the environment, as curl reads it.

use ureq::Proxy;

use crate::config::SyncUrl;

/// The proxy for an address.
pub fn proxy_for(url: &SyncUrl) -> Option<Proxy> {
    choose(url, |name| {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    })
}

fn choose(url: &SyncUrl, variable: impl Fn(&str) -> Option<String>) -> Option<Proxy> {
    let host = url.host.trim_matches(['[', ']']).to_ascii_lowercase();
    // What is on this machine is reached from this machine.
    if is_loopback(&host) {
        return None;
    }
    let excepted = variable("no_proxy").or_else(|| variable("NO_PROXY"));
    if excepted.is_some_and(|list| list.split(',').any(|entry| is_meant(entry, &host))) {
        return None;
    }
    // Under CGI whoever sends a request sets HTTP_PROXY, with a header "Proxy".
    let cgi = variable("REQUEST_METHOD").is_some();
    let names: &[&str] = match url.base.starts_with("https:") {
        true => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        false if cgi => &["http_proxy", "all_proxy", "ALL_PROXY"],
        false => &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
    };
    names
        .iter()
        .find_map(|name| Proxy::new(&variable(name)?).ok())
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// An entry is a host, and means all below it.
fn is_meant(entry: &str, host: &str) -> bool {
    let entry = entry
        .trim()
        .trim_start_matches("*.")
        .trim_start_matches('.')
        .to_ascii_lowercase();
    let below = host
        .strip_suffix(&entry)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    entry == "*" || (!entry.is_empty() && below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let value = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.to_string())
        };
        choose(&SyncUrl::parse(url).unwrap(), value).map(|proxy| proxy.host().to_string())
    }

    #[test]
    fn by_scheme_and_never_for_this_machine() {
        let all = [
            ("HTTP_PROXY", "http://a:1"),
            ("https_proxy", "http://b:1"),
            ("ALL_PROXY", "http://c:1"),
        ];
        assert_eq!(chosen("http://db.example.org", &all).as_deref(), Some("a"));
        assert_eq!(chosen("https://db.example.org", &all).as_deref(), Some("b"));
        assert_eq!(
            chosen("http://db.example.org", &all[1..]).as_deref(),
            Some("c")
        );
        assert_eq!(chosen("http://db.example.org", &[]), None);
        for here in [
            "http://localhost:1",
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://a.localhost",
        ] {
            assert_eq!(chosen(here, &all), None, "{here}");
        }
    }

    #[test]
    fn a_request_of_cgi_sets_none() {
        let cgi = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil:1")];
        assert_eq!(chosen("http://db.example.org", &cgi), None);
        let own = [cgi[0], cgi[1], ("http_proxy", "http://good:1")];
        assert_eq!(
            chosen("http://db.example.org", &own).as_deref(),
            Some("good")
        );
    }

    #[test]
    fn exceptions() {
        let with = |list| {
            chosen(
                "http://db.example.org",
                &[("http_proxy", "http://a:1"), ("NO_PROXY", list)],
            )
        };
        for list in [
            "*",
            "db.example.org",
            "example.org",
            "x, .example.org",
            "*.example.org",
        ] {
            assert_eq!(with(list), None, "{list}");
        }
        for list in ["", "x", "ample.org", "db.example.org.x", ","] {
            assert_eq!(with(list).as_deref(), Some("a"), "{list}");
        }
    }
}
