//! The WAL file: a 32-byte header, then frames of a 24-byte header and a page
//! (file format, sections 4.1 and 4.2). Bytes in, bytes out.

use super::PAGE_SIZE;

pub const HEADER_SIZE: usize = 32;
pub const FRAME_HEADER_SIZE: usize = 24;
pub type FrameHeader = [u8; FRAME_HEADER_SIZE];
pub const FRAME_SIZE: usize = FRAME_HEADER_SIZE + PAGE_SIZE;

const MAGIC: u32 = 0x377f_0682;
/// File format version of the log, and of the wal-index.
pub const VERSION: u32 = 3_007_000;

/// The running checksum (file format, section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(pub u32, pub u32);

impl Checksum {
    /// Continues over `bytes`, a multiple of 8, read as words of this byte order.
    pub fn extend(self, big_endian: bool, bytes: &[u8]) -> Checksum {
        let Checksum(mut s0, mut s1) = self;
        let mut run = |word: fn([u8; 4]) -> u32| {
            for pair in bytes.chunks_exact(8) {
                let first = word([pair[0], pair[1], pair[2], pair[3]]);
                let second = word([pair[4], pair[5], pair[6], pair[7]]);
                s0 = s0.wrapping_add(first).wrapping_add(s1);
                s1 = s1.wrapping_add(second).wrapping_add(s0);
            }
        };
        if big_endian {
            run(u32::from_be_bytes)
        } else {
            run(u32::from_le_bytes)
        }
        Checksum(s0, s1)
    }
}

/// Both salts as they stand in the file.
pub type Salt = [u8; 8];

/// The salts of a log that is begun anew: the first counts, the second is random.
pub fn next_salt(old: Salt, random: [u8; 4]) -> Salt {
    let first = u32_be(&old[..4]).wrapping_add(1).to_be_bytes();
    let mut salt = [0; 8];
    salt[..4].copy_from_slice(&first);
    salt[4..].copy_from_slice(&random);
    salt
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub big_endian_checksum: bool,
    pub page_size: u32,
    /// Counts how often the log was begun anew.
    pub sequence: u32,
    pub salt: Salt,
}

impl Header {
    /// The header's bytes and the checksum its first frame continues.
    pub fn encode(&self) -> ([u8; HEADER_SIZE], Checksum) {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..4].copy_from_slice(&(MAGIC | self.big_endian_checksum as u32).to_be_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.salt);
        let sum = Checksum::default().extend(self.big_endian_checksum, &bytes[..24]);
        bytes[24..28].copy_from_slice(&sum.0.to_be_bytes());
        bytes[28..32].copy_from_slice(&sum.1.to_be_bytes());
        (bytes, sum)
    }

    /// None for bytes that are no valid WAL header.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Option<(Header, Checksum)> {
        let magic = u32_be(&bytes[0..4]);
        if magic & !1 != MAGIC || u32_be(&bytes[4..8]) != VERSION {
            return None;
        }
        let header = Header {
            big_endian_checksum: magic & 1 == 1,
            page_size: u32_be(&bytes[8..12]),
            sequence: u32_be(&bytes[12..16]),
            salt: bytes[16..24].try_into().ok()?,
        };
        let (expected, sum) = header.encode();
        (expected == *bytes).then_some((header, sum))
    }
}

/// Where frame `frame` (the first is 1) begins in the file.
pub fn frame_offset(frame: u32) -> u64 {
    HEADER_SIZE as u64 + u64::from(frame - 1) * FRAME_SIZE as u64
}

/// Writes a frame's header in front of its page, both in `frame`, and answers
/// the checksum that the next frame continues. `size_after` is the database
/// size in pages for a commit frame, else 0.
pub fn seal_frame(
    frame: &mut [u8],
    pgno: u32,
    size_after: u32,
    salt: Salt,
    big_endian: bool,
    previous: Checksum,
) -> Checksum {
    frame[0..4].copy_from_slice(&pgno.to_be_bytes());
    frame[4..8].copy_from_slice(&size_after.to_be_bytes());
    frame[8..16].copy_from_slice(&salt);
    let sum = previous
        .extend(big_endian, &frame[..8])
        .extend(big_endian, &frame[FRAME_HEADER_SIZE..FRAME_SIZE]);
    frame[16..20].copy_from_slice(&sum.0.to_be_bytes());
    frame[20..24].copy_from_slice(&sum.1.to_be_bytes());
    sum
}

/// The checksum in a frame's header.
pub fn frame_checksum(header: &FrameHeader) -> Checksum {
    Checksum(u32_be(&header[16..20]), u32_be(&header[20..24]))
}

fn u32_be(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by SQLite 3.40: six transactions, two of them schema changes.
    const WAL: &[u8] = include_bytes!("../../tests/data/sqlite.db-wal");

    #[test]
    fn a_log_of_sqlite_is_what_we_would_have_written() {
        let (header, mut checksum) =
            Header::decode(WAL[..HEADER_SIZE].try_into().unwrap()).unwrap();
        assert_eq!(header.page_size as usize, PAGE_SIZE);
        assert!(!header.big_endian_checksum);
        assert_eq!(header.encode().0, WAL[..HEADER_SIZE]);
        let frames: Vec<_> = WAL[HEADER_SIZE..].chunks_exact(FRAME_SIZE).collect();
        assert!(frames.len() > 3);
        for frame in frames {
            let (pgno, size_after) = (u32_be(&frame[..4]), u32_be(&frame[4..8]));
            let mut ours = vec![0; FRAME_SIZE];
            ours[FRAME_HEADER_SIZE..].copy_from_slice(&frame[FRAME_HEADER_SIZE..]);
            checksum = seal_frame(&mut ours, pgno, size_after, header.salt, false, checksum);
            assert!(ours == frame, "frame of page {pgno}");
            assert_eq!(
                frame_checksum(frame[..FRAME_HEADER_SIZE].try_into().unwrap()),
                checksum
            );
        }
    }

    #[test]
    fn a_damaged_header_is_none() {
        for at in 0..HEADER_SIZE {
            let mut bytes: [u8; HEADER_SIZE] = WAL[..HEADER_SIZE].try_into().unwrap();
            bytes[at] ^= 0x10;
            assert_eq!(Header::decode(&bytes), None, "byte {at}");
        }
        assert_eq!(Header::decode(&[0; HEADER_SIZE]), None);
    }

    #[test]
    fn big_endian_logs_too() {
        let header = Header {
            big_endian_checksum: true,
            page_size: 4096,
            sequence: 3,
            salt: [7; 8],
        };
        let (bytes, _) = header.encode();
        assert_eq!(bytes[3], 0x83);
        assert_eq!(Header::decode(&bytes).unwrap().0, header);
        let words = [0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(Checksum::default().extend(true, &words), Checksum(1, 3));
    }

    #[test]
    fn salts_count() {
        assert_eq!(
            next_salt([0, 0, 0, 255, 9, 9, 9, 9], [1, 2, 3, 4]),
            [0, 0, 1, 0, 1, 2, 3, 4]
        );
        assert_eq!(next_salt([255; 8], [0; 4]), [0; 8]);
    }
}
