//! A value as SQLite stores it.

/// The database's text encoding (file format, section 1.3.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16le,
    Utf16be,
}

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
    /// Text whose bytes, in the database's encoding, no string can carry:
    /// invalid, or such that SQLite would replace a character on the way in.
    RawText(Vec<u8>),
    Blob(Vec<u8>),
}

impl PartialEq for Value {
    /// Bit for bit: -0.0 is not 0.0, and 1 is not 1.0.
    fn eq(&self, other: &Value) -> bool {
        use Value::*;
        match (self, other) {
            (Null, Null) => true,
            (Int(a), Int(b)) => a == b,
            (Real(a), Real(b)) => a.to_bits() == b.to_bits(),
            (Text(a), Text(b)) => a == b,
            (RawText(a), RawText(b)) | (Blob(a), Blob(b)) => a == b,
            _ => false,
        }
    }
}

impl Value {
    pub fn text(bytes: &[u8], encoding: Encoding) -> Value {
        let decoded = match encoding {
            Encoding::Utf8 => std::str::from_utf8(bytes).ok().map(str::to_string),
            Encoding::Utf16le => utf16(bytes, u16::from_le_bytes),
            Encoding::Utf16be => utf16(bytes, u16::from_be_bytes),
        };
        decoded.map_or_else(|| Value::RawText(bytes.to_vec()), Value::Text)
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Appends bytes that two values have in common only if they are equal.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        let mut bytes = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend((bytes.len() as u64).to_be_bytes());
            out.extend(bytes);
        };
        match self {
            Value::Null => bytes(0, &[]),
            Value::Int(i) => bytes(1, &(i ^ i64::MIN).to_be_bytes()),
            Value::Real(r) => bytes(2, &r.to_bits().to_be_bytes()),
            Value::Text(t) => bytes(3, t.as_bytes()),
            Value::RawText(t) => bytes(4, t),
            Value::Blob(b) => bytes(5, b),
        }
    }
}

/// None for what is no UTF-16, and for the two characters that SQLite turns
/// into U+FFFD when it is given them as UTF-8.
fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
    (!text.contains(['\u{fffe}', '\u{ffff}'])).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_three_encodings() {
        let text = |bytes: &[u8], encoding| Value::text(bytes, encoding);
        assert_eq!(
            text("a\0é".as_bytes(), Encoding::Utf8),
            Value::Text("a\0é".into())
        );
        assert_eq!(
            text(&[0x61, 0, 0x3d, 0xd8, 0, 0xde], Encoding::Utf16le),
            Value::Text("a😀".into())
        );
        assert_eq!(text(&[0, 0x61], Encoding::Utf16be), Value::Text("a".into()));
        for (bytes, encoding) in [
            (&[0xff][..], Encoding::Utf8),
            (&[0xed, 0xa0, 0x80], Encoding::Utf8),
            (&[0x61], Encoding::Utf16le),
            (&[0, 0xd8], Encoding::Utf16le),
            (&[0xff, 0xff], Encoding::Utf16be),
        ] {
            assert_eq!(text(bytes, encoding), Value::RawText(bytes.to_vec()));
        }
    }

    #[test]
    fn equality_is_by_bits() {
        assert_ne!(Value::Real(0.0), Value::Real(-0.0));
        assert_ne!(Value::Int(1), Value::Real(1.0));
        assert_ne!(Value::Text("a".into()), Value::Blob(b"a".to_vec()));
    }
}
