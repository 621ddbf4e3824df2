//! What others say, made fit for an error, a log or a terminal.

/// Characters of a sentence of somebody else's.
const MOST: usize = 1000;
/// What is shorter is no secret, and may be any word.
const SECRET: usize = 8;

/// The text on one line, without what would act on a terminal, hide or turn
/// text, and without the secret.
pub fn heard(text: &str, secret: Option<&str>) -> String {
    let text = match secret
        .map(str::trim)
        .filter(|secret| secret.len() >= SECRET)
    {
        Some(secret) => text.replace(secret, "***"),
        None => text.to_string(),
    };
    let mut said = String::new();
    for c in text.chars().take(MOST) {
        match c {
            c if c.is_control() || c.is_whitespace() => {
                if !said.ends_with(' ') {
                    said.push(' ');
                }
            }
            c if acts(c) => said.push('\u{fffd}'),
            c => said.push(c),
        }
    }
    if text.chars().nth(MOST).is_some() {
        said.push('…');
    }
    said.trim().to_string()
}

/// Directions, and characters without width.
fn acts(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{061c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_and_nothing_is_told() {
        let token = Some("eyJhbGciOi.secret");
        assert_eq!(
            heard("bad token Bearer eyJhbGciOi.secret!", token),
            "bad token Bearer ***!"
        );
        assert_eq!(heard("a\r\nb\x1b[2J\u{9b}31m\0\t c", None), "a b [2J 31m c");
        assert_eq!(heard("x\u{202e}y\u{200b}", None), "x\u{fffd}y\u{fffd}");
        assert_eq!(heard("no", Some("")), "no");
        assert_eq!(heard(&"é".repeat(5000), None).chars().count(), MOST + 1);
    }
}
