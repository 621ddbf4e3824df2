//! What a row has in a column that is younger than it: the column's default, as
//! far as that is a plain constant (lang_altertable, "ALTER TABLE ADD COLUMN").
//!
//! SQLite takes such a value from the text of the definition (vdbemem.c,
//! `valueFromExpr`), not as an INSERT would: 1.0 without a type is 1 there.
//! Only what every version takes alike is told.

use super::token::{Kind, Token};
use crate::btree::value::Value;

/// Column affinity (datatype3, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    pub fn of(declared: &str) -> Affinity {
        let upper = declared.to_ascii_uppercase();
        let any = |parts: &[&str]| parts.iter().any(|part| upper.contains(part));
        if any(&["INT"]) {
            Affinity::Integer
        } else if any(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if any(&["BLOB"]) || declared.is_empty() {
            Affinity::Blob
        } else if any(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }
}

/// The value of a DEFAULT clause, of none if there are no tokens; None if it
/// is not plain.
pub fn constant(tokens: &[Token], affinity: Affinity) -> Option<Value> {
    let (tokens, bare) = match tokens {
        [open, inner @ .., close] if open.is_punct("(") && close.is_punct(")") => (inner, false),
        tokens => (tokens, true),
    };
    match tokens {
        [] => Some(Value::Null),
        [sign, token] if sign.is_punct("-") => number(token, "-", affinity),
        [sign, token] if sign.is_punct("+") => number(token, "", affinity),
        [token] => match token.kind {
            Kind::Number => number(token, "", affinity),
            Kind::Text => text(token.name()?, affinity),
            Kind::Other => blob(token.text),
            Kind::Word if token.is("NULL") => Some(Value::Null),
            Kind::Word if token.is("TRUE") => truth(1, affinity),
            Kind::Word if token.is("FALSE") => truth(0, affinity),
            // Within parentheses a name is a column's.
            _ if bare => text(token.name().filter(|_| !is_clock(token))?, affinity),
            _ => None,
        },
        _ => None,
    }
}

fn is_clock(token: &Token) -> bool {
    let clocks = ["CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP"];
    clocks.iter().any(|clock| token.is(clock))
}

fn number(token: &Token, sign: &str, affinity: Affinity) -> Option<Value> {
    let text = format!("{sign}{}", token.text);
    if let Ok(n) = text.parse::<i64>() {
        return Some(match affinity {
            // A longer one stays as it is spelled.
            Affinity::Text if i32::try_from(n).is_err() => Value::Text(text),
            Affinity::Text => Value::Text(n.to_string()),
            Affinity::Real => Value::Real(n as f64),
            _ => Value::Int(n),
        });
    }
    let value = float(&text)?;
    Some(match affinity {
        Affinity::Text => Value::Text(text),
        Affinity::Real => Value::Real(value),
        _ if value.fract() == 0.0 => Value::Int(value as i64),
        _ => Value::Real(value),
    })
}

/// A float that every version rounds alike.
fn float(text: &str) -> Option<f64> {
    let decimal = |b: u8| b.is_ascii_digit() || b".eE+-".contains(&b);
    let significand = text.split(['e', 'E']).next()?;
    let digits = significand.bytes().filter(u8::is_ascii_digit).count();
    let value: f64 = text.parse().ok().filter(|_| text.bytes().all(decimal))?;
    let is_usual = (1e-12..1e15).contains(&value.abs()) || value.to_bits() == 0;
    (is_usual && digits <= 15).then_some(value)
}

fn truth(n: i64, affinity: Affinity) -> Option<Value> {
    let is_number = !matches!(affinity, Affinity::Text | Affinity::Real);
    is_number.then_some(Value::Int(n))
}

fn text(text: String, affinity: Affinity) -> Option<Value> {
    let may_be_number = |c: char| c.is_ascii_digit() || c.is_whitespace() || "+-.".contains(c);
    let stays = match affinity {
        Affinity::Text | Affinity::Blob => true,
        _ => !text.starts_with(may_be_number),
    };
    // The two that are no text in UTF-16.
    (stays && !text.contains(['\u{fffe}', '\u{ffff}'])).then_some(Value::Text(text))
}

/// `x'00ff'`
fn blob(text: &str) -> Option<Value> {
    let hex = text.strip_prefix(['x', 'X'])?;
    let hex = hex.strip_prefix('\'')?.strip_suffix('\'')?;
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let byte = |pair: &[u8; 2]| {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)
    };
    pairs
        .iter()
        .map(byte)
        .collect::<Option<_>>()
        .map(Value::Blob)
}

#[cfg(test)]
mod tests {
    use super::super::token::tokens;
    use super::*;

    fn value(sql: &str, declared: &str) -> Option<Value> {
        constant(&tokens(sql), Affinity::of(declared))
    }

    #[test]
    fn affinities() {
        use Affinity::*;
        for (declared, affinity) in [
            ("FLOATING POINT", Integer),
            ("charint", Integer),
            ("VARCHAR ( 9 )", Text),
            ("", Blob),
            ("blob real", Blob),
            ("DOUBLE PRECISION", Real),
            ("BOOLEAN", Numeric),
            ("ANY", Numeric),
        ] {
            assert_eq!(Affinity::of(declared), affinity, "{declared}");
        }
    }

    // Against SQLite itself: tests/test_rows.py.
    #[test]
    fn plain_constants() {
        use Value::*;
        let text = |s: &str| Some(Text(s.into()));
        assert_eq!(value("", "INT"), Some(Null));
        assert_eq!(value("(NULL)", "INT"), Some(Null));
        assert_eq!(value("-5", ""), Some(Int(-5)));
        assert_eq!(value("(+5)", "REAL"), Some(Real(5.0)));
        assert_eq!(value("-007", "TEXT"), text("-7"));
        assert_eq!(value("-5000000000", "TEXT"), text("-5000000000"));
        assert_eq!(value("-1.50", "TEXT"), text("-1.50"));
        assert_eq!(value("1.25", ""), Some(Real(1.25)));
        assert_eq!(value("0.1", "REAL"), Some(Real(0.1)));
        assert_eq!(value("0.0", "REAL"), Some(Real(0.0)));
        assert_eq!(value("1.0", "REAL"), Some(Real(1.0)));
        assert_eq!(value("1e3", ""), Some(Int(1000)));
        assert_eq!(value("word", "INT"), text("word"));
        assert_eq!(value("\"two words\"", "TEXT"), text("two words"));
        assert_eq!(value("-.5", "REAL"), Some(Real(-0.5)));
        assert_eq!(value("'it''s'", "TEXT"), text("it's"));
        assert_eq!(value("''", "INT"), text(""));
        assert_eq!(value("X'0aF0'", "INT"), Some(Blob(vec![10, 240])));
        assert_eq!(value("true", "BOOLEAN"), Some(Int(1)));
    }

    #[test]
    fn what_is_not_plain() {
        for (sql, declared) in [
            ("0x10", "INT"),
            ("-0.0", "REAL"),
            ("1e300", "REAL"),
            ("0.1234567890123456", "REAL"),
            ("(word)", "TEXT"),
            ("current_time", "TEXT"),
            ("9223372036854775808", "INT"),
            ("' 5'", "INT"),
            ("true", "TEXT"),
            ("(1 + 1)", "INT"),
            ("((1))", "INT"),
            ("- '5'", "INT"),
            ("x'0'", ""),
            ("x'zz'", ""),
        ] {
            assert_eq!(value(sql, declared), None, "{sql} {declared}");
        }
    }
}
