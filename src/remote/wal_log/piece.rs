//! A part of a Frames message as it has arrived: whole fields, and perhaps the
//! beginning of one more. message Frames { repeated Frame frames = 1; }, looked
//! into field by field: a transaction may be larger than memory.

use std::borrow::Cow;

use parking_lot::Mutex;
use prost::Message;

use super::super::grpc_web::Stream;
use super::super::wire::{FRAME_SIZE, RpcFrame};
use super::MAX_RPC_FRAME;
use crate::error::{Error, Result};

/// Bytes of a piece at most; more than a frame.
const PIECE: usize = 1 << 20;

/// Frames.frames and RpcFrame.data: field 1, length-delimited.
const FRAME_FIELD: u64 = 0x0a;

#[derive(Default)]
pub struct Piece {
    bytes: Vec<u8>,
    /// How many of them have arrived.
    filled: usize,
}

impl Piece {
    /// Reads on in the current message, as far as there is room; false if it
    /// is not wanted any more.
    pub fn fill(&mut self, stream: &mut Stream, is_wanted: &dyn Fn() -> bool) -> Result<bool> {
        let end = PIECE.min(self.filled.saturating_add(stream.left() as usize));
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        while self.filled < end {
            if !is_wanted() {
                return Ok(false);
            }
            self.filled += stream.some(&mut self.bytes[self.filled..end])?;
        }
        Ok(true)
    }

    /// Shows every whole Frame among the fields: an RpcFrame message. How many
    /// bytes are whole fields.
    pub fn frames(&self, mut frame: impl FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let mut rest = &self.bytes[..self.filled];
        while let Some((field, behind)) = next_field(rest)? {
            rest = behind;
            if let Field::Frame(bytes) = field {
                frame(bytes)?;
            }
        }
        Ok(self.filled - rest.len())
    }

    /// What stands behind the whole fields, as the beginning of a spare one.
    pub fn beginning(&self, whole: usize, mut spare: Piece) -> Piece {
        let rest = &self.bytes[whole..self.filled];
        spare.bytes.resize(spare.bytes.len().max(rest.len()), 0);
        spare.bytes[..rest.len()].copy_from_slice(rest);
        spare.filled = rest.len();
        spare
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }
}

/// Memory of pieces, to be used again.
#[derive(Default)]
pub struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    pub fn take(&self) -> Piece {
        Piece {
            bytes: self.0.lock().pop().unwrap_or_default(),
            ..Piece::default()
        }
    }

    pub fn give_back(&self, piece: Piece) {
        self.0.lock().push(piece.bytes);
    }
}

enum Field<'a> {
    Frame(&'a [u8]),
    Other,
}

/// The first field and what follows it; None if it is not all there.
fn next_field(bytes: &[u8]) -> Result<Option<(Field<'_>, &[u8])>> {
    let Some((tag, rest)) = varint(bytes)? else {
        return Ok(None);
    };
    let (len, rest) = match tag & 7 {
        0 => match varint(rest)? {
            Some((_, rest)) => (0, rest),
            None => return Ok(None),
        },
        1 => (8, rest),
        2 => match varint(rest)? {
            Some(prefix) => prefix,
            None => return Ok(None),
        },
        5 => (4, rest),
        kind => return Err(Error::Protocol(format!("protobuf wire type {kind}"))),
    };
    if len > MAX_RPC_FRAME {
        return Err(Error::Protocol(format!(
            "a field of {len} bytes where a frame is due"
        )));
    }
    let split = rest.split_at_checked(len as usize);
    Ok(split.map(|(field, rest)| match tag {
        FRAME_FIELD => (Field::Frame(field), rest),
        _ => (Field::Other, rest),
    }))
}

/// A protobuf varint and what follows it; None if it is not all there.
fn varint(bytes: &[u8]) -> Result<Option<(u64, &[u8])>> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            return Ok(Some((value, &bytes[i + 1..])));
        }
    }
    match bytes.len() < 10 {
        true => Ok(None),
        false => Err(Error::Protocol("a varint of more than ten bytes".into())),
    }
}

/// The log frame in an RpcFrame message, without a copy where it stands first,
/// as every primary puts it; and a message with the fields that follow.
pub fn frame_data(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8])> {
    let mut rest = bytes;
    if prost::decode_length_delimiter(&mut rest).is_ok_and(|tag| tag as u64 == FRAME_FIELD)
        && let Ok(len) = prost::decode_length_delimiter(&mut rest)
        && len == FRAME_SIZE
        && let Some((data, rest)) = rest.split_at_checked(len)
    {
        return Ok((Cow::Borrowed(data), rest));
    }
    let frame = RpcFrame::decode(bytes).map_err(|e| Error::Protocol(e.to_string()))?;
    Ok((Cow::Owned(frame.data), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &[u8]) -> Piece {
        Piece {
            bytes: bytes.to_vec(),
            filled: bytes.len(),
        }
    }

    /// Appends the piece's frames; its whole bytes.
    fn collect(piece: &Piece, frames: &mut Vec<Vec<u8>>) -> Result<usize> {
        piece.frames(|bytes| {
            frames.push(bytes.to_vec());
            Ok(())
        })
    }

    #[test]
    fn a_message_may_be_cut_anywhere() {
        // A frame, four fields that are none, a long frame.
        let mut message = vec![0x0a, 3, 1, 2, 3];
        message.extend([0x10, 0x96, 0x01, 0x19, 1, 2, 3, 4, 5, 6, 7, 8]);
        message.extend([0x25, 1, 2, 3, 4, 0x1a, 2, 9, 9]);
        message.extend([0x0a, 0xc8, 0x01]);
        message.extend([7; 200]);
        for cut in 0..=message.len() {
            let (first, mut seen) = (piece(&message[..cut]), Vec::new());
            let whole = collect(&first, &mut seen).unwrap();
            let mut second = first.beginning(whole, piece(&[5; 9]));
            second.bytes.truncate(second.filled);
            second.bytes.extend(&message[cut..]);
            second.filled = second.bytes.len();
            let whole = collect(&second, &mut seen).unwrap();
            assert_eq!(seen, [vec![1, 2, 3], vec![7; 200]], "{cut}");
            assert!(second.beginning(whole, Piece::default()).is_empty());
        }
    }

    #[test]
    fn fields_that_cannot_be() {
        let too_long = [[0x0a].as_slice(), &[0xff; 9], &[1]].concat();
        for bytes in [
            &[0xff; 10][..],
            &[0x0b],
            &[0x0a, 0xff, 0xff, 0x03],
            &too_long,
        ] {
            assert!(
                collect(&piece(bytes), &mut Vec::new()).is_err(),
                "{bytes:?}"
            );
        }
    }
}
