//! Records (file format, section 2.1): a header of serial types, then the body.

use super::value::{Encoding, Value};
use super::{corrupt, varint};
use crate::error::Result;

/// The values of a record, as many as it has: rows that are older than an
/// added column have fewer than their table has columns.
pub fn decode(payload: &[u8], encoding: Encoding) -> Result<Vec<Value>> {
    let broken = || corrupt("a record that is none");
    let (header_len, at) = varint::read(payload).ok_or_else(broken)?;
    let header_len = usize::try_from(header_len).map_err(|_| broken())?;
    let mut types = payload.get(at..header_len).ok_or_else(broken)?;
    let mut body = &payload[header_len..];
    let mut values = Vec::new();
    while !types.is_empty() {
        let (serial_type, len) = varint::read(types).ok_or_else(broken)?;
        types = &types[len..];
        let size = body_size(serial_type).ok_or_else(broken)?;
        let (bytes, rest) = body.split_at_checked(size).ok_or_else(broken)?;
        body = rest;
        values.push(value(serial_type, bytes, encoding));
    }
    match body {
        [] => Ok(values),
        _ => Err(broken()),
    }
}

/// None for the two serial types that no file may hold.
fn body_size(serial_type: u64) -> Option<usize> {
    Some(match serial_type {
        0 | 8 | 9 => 0,
        1..=4 => serial_type as usize,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return None,
        n => usize::try_from((n - 12) / 2).ok()?,
    })
}

fn value(serial_type: u64, bytes: &[u8], encoding: Encoding) -> Value {
    match serial_type {
        0 => Value::Null,
        1..=6 => Value::Int(integer(bytes)),
        7 => {
            let real = f64::from_bits(integer(bytes) as u64);
            // SQLite reads a stored NaN as NULL.
            if real.is_nan() {
                Value::Null
            } else {
                Value::Real(real)
            }
        }
        8 => Value::Int(0),
        9 => Value::Int(1),
        n if n % 2 == 0 => Value::Blob(bytes.to_vec()),
        _ => Value::text(bytes, encoding),
    }
}

/// A big-endian two's complement integer of up to eight bytes.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    bytes
        .iter()
        .fold(-i64::from(negative), |n, &b| n << 8 | i64::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Option<Vec<Value>> {
        decode(bytes, Encoding::Utf8).ok()
    }

    #[test]
    fn every_serial_type() {
        let mut bytes = vec![12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15];
        bytes.extend([0xff]);
        bytes.extend([0x80, 0]);
        bytes.extend([0, 1, 0]);
        bytes.extend([0xff, 0xff, 0xff, 0xfe]);
        bytes.extend([0x80, 0, 0, 0, 0, 0]);
        bytes.extend(i64::MIN.to_be_bytes());
        bytes.extend((-0.5f64).to_be_bytes());
        bytes.extend(b"a");
        use Value::*;
        assert_eq!(
            decoded(&bytes).unwrap(),
            vec![
                Null,
                Int(-1),
                Int(-32768),
                Int(256),
                Int(-2),
                Int(-(1 << 47)),
                Int(i64::MIN),
                Real(-0.5),
                Int(0),
                Int(1),
                Text("a".into()),
            ]
        );
        let mut nan = vec![2, 7];
        nan.extend(f64::NAN.to_be_bytes());
        assert_eq!(decoded(&nan).unwrap(), vec![Null]);
        assert_eq!(decoded(&[2, 16, 1, 2]).unwrap(), vec![Blob(vec![1, 2])]);
        assert_eq!(decoded(&[1]).unwrap(), vec![]);
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        for bytes in [
            &[][..],
            &[2],
            &[0x80],
            &[2, 1],
            &[2, 10],
            &[2, 11],
            &[2, 0, 0],
            &[2, 0x81],
            &[0],
            &[10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(decoded(bytes), None, "{bytes:?}");
        }
    }
}
