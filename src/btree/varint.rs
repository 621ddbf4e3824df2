//! Variable-length integers (file format, section 1.6): seven bits a byte,
//! most significant first, the ninth byte whole.

/// The integer that `bytes` begin with and its length; None if they end too soon.
pub fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(8).enumerate() {
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value, i + 1));
        }
    }
    let last = *bytes.get(8)?;
    Some((value << 8 | u64::from(last), 9))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn lengths_and_ends() {
        assert_eq!(read(&[0x7f]), Some((127, 1)));
        assert_eq!(read(&[0x81, 0x00, 9]), Some((128, 2)));
        assert_eq!(read(&[0xff; 9]), Some((u64::MAX, 9)));
        let mut minus_two = [0xff; 9];
        minus_two[8] = 0xfe;
        assert_eq!(read(&minus_two), Some((-2i64 as u64, 9)));
        for short in [&[][..], &[0x80], &[0xff; 8]] {
            assert_eq!(read(short), None);
        }
    }
}
