//! SQL's tokens, as far as definitions need them.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bare word: a name or a keyword.
    Word,
    /// A name in double quotes, backticks or brackets.
    Quoted,
    /// A string literal; SQLite takes it for a name where only a name can stand.
    Text,
    Number,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// Where it begins in the statement.
    pub at: usize,
}

impl Token<'_> {
    /// Whether it is this keyword (given in capitals), unquoted.
    pub fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    pub fn is_punct(&self, punct: &str) -> bool {
        self.kind == Kind::Other && self.text == punct
    }

    /// The name it stands for, if it can stand for one.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_string()),
            Kind::Quoted | Kind::Text => Some(unquoted(self.text)),
            _ => None,
        }
    }
}

fn unquoted(text: &str) -> String {
    let mut chars = text.chars();
    let open = chars.next().unwrap_or_default();
    let close = if open == '[' { ']' } else { open };
    let inner = chars.as_str();
    let inner = inner.strip_suffix(close).unwrap_or(inner);
    if open == '[' {
        return inner.to_string();
    }
    inner.replace(&format!("{close}{close}"), &close.to_string())
}

/// Tokens without white space and comments.
pub fn tokens(sql: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
        let (kind, len) = first(rest);
        if let Some(kind) = kind {
            let text = &rest[..len];
            tokens.push(Token { kind, text, at });
        }
        at += len;
    }
    tokens
}

/// Kind (None: to be skipped) and length of what `rest` begins with.
fn first(rest: &str) -> (Option<Kind>, usize) {
    let bytes = rest.as_bytes();
    let until = |end: &str, from: usize| match rest[from..].find(end) {
        Some(at) => from + at + end.len(),
        None => rest.len(),
    };
    let run = |is: fn(&u8) -> bool| bytes.iter().take_while(|b| is(b)).count();
    match bytes[0] {
        b if b.is_ascii_whitespace() => (None, run(|b| b.is_ascii_whitespace())),
        b'-' if bytes.get(1) == Some(&b'-') => (None, until("\n", 2)),
        b'/' if bytes.get(1) == Some(&b'*') => (None, until("*/", 2)),
        b'\'' => (Some(Kind::Text), quoted(bytes)),
        b'"' | b'`' => (Some(Kind::Quoted), quoted(bytes)),
        b'[' => (Some(Kind::Quoted), until("]", 1)),
        b'x' | b'X' if bytes.get(1) == Some(&b'\'') => (Some(Kind::Other), 1 + quoted(&bytes[1..])),
        b if b.is_ascii_digit() || b == b'.' && bytes.get(1).is_some_and(u8::is_ascii_digit) => {
            (Some(Kind::Number), number(bytes))
        }
        b if in_word(&b) => (Some(Kind::Word), run(in_word)),
        _ => (Some(Kind::Other), 1),
    }
}

fn in_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80
}

/// The length of a quoted token; its quote doubled stands for itself.
fn quoted(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == bytes[0] {
            if bytes.get(at + 1) != Some(&bytes[0]) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    bytes.len()
}

fn number(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let sign = matches!(byte, b'+' | b'-') && matches!(bytes[at.max(1) - 1], b'e' | b'E');
        let hex = bytes.get(1).is_some_and(|b| matches!(b, b'x' | b'X'));
        if !(in_word(byte) || *byte == b'.' || sign && !hex) {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        tokens(sql).iter().map(|t| t.text).collect()
    }

    #[test]
    fn all_kinds() {
        assert_eq!(
            texts("a\"b\"\"c\"-- x\n'it''s'/* y */[q w]`z`1.5e-3+.5 x'00' ünï||0x1e-1"),
            [
                "a",
                "\"b\"\"c\"",
                "'it''s'",
                "[q w]",
                "`z`",
                "1.5e-3",
                "+",
                ".5",
                "x'00'",
                "ünï",
                "|",
                "|",
                "0x1e",
                "-",
                "1"
            ]
        );
        let names: Vec<_> = tokens("a \"b\"\"c\" 'd' [e\"\"] 5")
            .iter()
            .map(Token::name)
            .collect();
        let name = |s: &str| Some(s.to_string());
        assert_eq!(
            names,
            [name("a"), name("b\"c"), name("d"), name("e\"\""), None]
        );
    }

    #[test]
    fn unterminated_tokens_end_with_the_text() {
        for sql in ["'a", "\"", "[a", "/* a", "-- a", "x'", "'", "é'é", "''''"] {
            let tokens = tokens(sql);
            assert!(tokens.len() <= 2, "{sql}: {tokens:?}");
            tokens.iter().for_each(|t| drop(t.name()));
        }
    }
}
