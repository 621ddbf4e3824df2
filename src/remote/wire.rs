//! Messages of the `wal_log` service (libsql-replication/proto/replication_log.proto)
//! and the log frame they carry. Encoding and decoding only.

use crate::wal::{PAGE_SIZE, Page};

#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloRequest {
    #[prost(uint64, optional, tag = "1")]
    pub handshake_version: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloResponse {
    #[prost(string, tag = "3")]
    pub log_id: String,
    #[prost(bytes = "vec", tag = "4")]
    pub session_token: Vec<u8>,
    #[prost(uint64, optional, tag = "5")]
    pub current_replication_index: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LogOffset {
    #[prost(uint64, tag = "1")]
    pub next_offset: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcFrame {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
    /// When it was committed, in ms since 1970: told of commit frames, the newest 100.
    #[prost(int64, optional, tag = "2")]
    pub timestamp: Option<i64>,
}

/// Header and page (libsql-replication/src/frame.rs): little-endian, unlike a WAL frame.
pub const FRAME_HEADER_SIZE: usize = 24;
pub const FRAME_SIZE: usize = FRAME_HEADER_SIZE + PAGE_SIZE;

/// A frame of the primary's replication log.
#[derive(Clone, Copy)]
pub struct LogFrame<'a> {
    pub frame_no: u64,
    pub checksum: u64,
    pub pgno: u32,
    /// Database size in pages on a commit frame, else 0.
    pub size_after: u32,
    pub page: &'a Page,
}

impl<'a> LogFrame<'a> {
    /// None for bytes of any other length than a frame's.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, page) = bytes.split_first_chunk::<FRAME_HEADER_SIZE>()?;
        let [a @ .., b0, b1, b2, b3, c0, c1, c2, c3] = *header;
        let [n0, n1, n2, n3, n4, n5, n6, n7, s @ ..] = a;
        Some(LogFrame {
            frame_no: u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
            checksum: u64::from_le_bytes(s),
            pgno: u32::from_le_bytes([b0, b1, b2, b3]),
            size_after: u32::from_le_bytes([c0, c1, c2, c3]),
            page: page.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain;
    use super::*;

    /// The first frames of a log that sqld 0.24.32 wrote.
    const FRAMES: &[u8] = include_bytes!("../../tests/data/sqld.frames");

    #[test]
    fn frames_of_sqld_decode_and_chain() {
        let frames: Vec<_> = FRAMES
            .chunks_exact(FRAME_SIZE)
            .map(|f| LogFrame::decode(f).unwrap())
            .collect();
        assert_eq!(frames.len(), 4);
        let mut checksum = 0;
        for (n, frame) in frames.iter().enumerate() {
            assert_eq!(frame.frame_no, n as u64);
            checksum = chain::next(checksum, frame.page);
            assert_eq!(frame.checksum, checksum);
        }
        assert_eq!((frames[0].pgno, frames[0].size_after), (1, 0));
        assert_eq!((frames[1].pgno, frames[1].size_after), (2, 2));
        assert_eq!(&frames[0].page[..16], b"SQLite format 3\0");
    }

    #[test]
    fn other_lengths_are_no_frame() {
        for len in [0, 23, 24, FRAME_SIZE - 1, FRAME_SIZE + 1] {
            assert!(LogFrame::decode(&vec![0; len]).is_none(), "{len}");
        }
    }
}
