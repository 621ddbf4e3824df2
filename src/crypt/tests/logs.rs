//! Logs and journals as SQLite writes them, and altered.

use super::super::journal::{Begin, Journal};
use super::super::wal::Wal;
use super::*;

const PAGE: usize = 1024;
const FRAME: usize = 24 + PAGE;

fn log_header(salt: u8) -> [u8; 32] {
    let mut header = [0; 32];
    header[..4].copy_from_slice(&0x377f_0682u32.to_be_bytes());
    header[8..12].copy_from_slice(&(PAGE as u32).to_be_bytes());
    header[16..24].fill(salt);
    header
}

fn frame_header(page: u32, size: u32, salt: u8) -> [u8; 24] {
    let mut header = [salt; 24];
    header[..4].copy_from_slice(&page.to_be_bytes());
    header[4..8].copy_from_slice(&size.to_be_bytes());
    header
}

/// Writes frames as SQLite does: header, then page.
fn write_frames(wal: &mut Wal, raw: &Memory, salt: u8, frames: std::ops::Range<u64>) {
    for frame in frames.clone() {
        let size = if frame + 1 == frames.end { 9 } else { 0 };
        let at = 32 + frame * FRAME as u64;
        let header = frame_header(frame as u32 + 1, size, salt);
        wal.write(&sealer(), raw, &header, at, false).unwrap();
        wal.write(&sealer(), raw, &[frame as u8; PAGE], at + 24, false)
            .unwrap();
    }
}

fn read_frame(wal: &mut Wal, raw: &Memory, frame: u64) -> Result<Vec<u8>> {
    let mut buf = vec![0xaa; FRAME];
    wal.read(&sealer(), raw, &mut buf, 32 + frame * FRAME as u64, &|_| {
        None
    })?;
    Ok(buf)
}

fn read_page(wal: &mut Wal, raw: &Memory, frame: u64) -> Result<Vec<u8>> {
    let mut buf = vec![0xaa; PAGE];
    wal.read(
        &sealer(),
        raw,
        &mut buf,
        32 + frame * FRAME as u64 + 24,
        &|_| None,
    )?;
    Ok(buf)
}

#[test]
fn logs() {
    let (raw, mut wal) = (Memory::default(), Wal::new());
    assert_eq!(wal.size(&sealer(), &raw).unwrap(), 0);
    wal.write(&sealer(), &raw, &log_header(1), 0, false)
        .unwrap();
    write_frames(&mut wal, &raw, 1, 0..3);
    assert_eq!(wal.size(&sealer(), &raw).unwrap(), 32 + 3 * FRAME as u64);
    let mut reader = Wal::new();
    for frame in 0..3 {
        let whole = read_frame(&mut reader, &raw, frame).unwrap();
        assert_eq!(whole[24..], [frame as u8; PAGE]);
        assert_eq!(whole[..4], (frame as u32 + 1).to_be_bytes());
        assert_eq!(
            read_page(&mut reader, &raw, frame).unwrap(),
            [frame as u8; PAGE]
        );
    }
    let mut header = [0; 32];
    assert_eq!(
        reader
            .read(&sealer(), &raw, &mut header, 0, &|_| None)
            .unwrap(),
        32
    );
    assert_eq!(header, log_header(1));
    // Begun anew by another handle: old frames are none, and this handle sees it.
    let mut other = Wal::new();
    other
        .write(&sealer(), &raw, &log_header(2), 0, false)
        .unwrap();
    write_frames(&mut other, &raw, 2, 0..1);
    assert_eq!(read_page(&mut reader, &raw, 0).unwrap(), [0; PAGE]);
    assert_eq!(read_frame(&mut reader, &raw, 1).unwrap(), [0; FRAME]);
    corrupt(read_page(&mut reader, &raw, 1));
    // And writes to it under the new salts.
    write_frames(&mut wal, &raw, 2, 1..2);
    assert_eq!(read_page(&mut other, &raw, 1).unwrap(), [1; PAGE]);
    // Rewritten in place, and its header after it; split at any byte.
    wal.write(&sealer(), &raw, &[7; PAGE], 32 + FRAME as u64 + 24, false)
        .unwrap();
    wal.write(&sealer(), &raw, &[8; 100], 32 + FRAME as u64 + 24, false)
        .unwrap();
    let page = read_page(&mut other, &raw, 1).unwrap();
    assert_eq!(
        (&page[..100], &page[100..]),
        (&[8; 100][..], &[7; PAGE - 100][..])
    );
    wal.write(
        &sealer(),
        &raw,
        &frame_header(5, 0, 2)[..9],
        32 + FRAME as u64,
        false,
    )
    .unwrap();
    // A page is bound to the number in its header.
    assert_eq!(read_frame(&mut other, &raw, 1).unwrap(), [0; FRAME]);
    corrupt(read_page(&mut other, &raw, 1));
    wal.write(&sealer(), &raw, &[7; PAGE], 32 + FRAME as u64 + 24, false)
        .unwrap();
    assert_eq!(read_frame(&mut other, &raw, 1).unwrap()[3], 5);
    // Many frames in one call.
    let frames: Vec<u8> = (2..200u32)
        .flat_map(|f| [&frame_header(f + 1, 0, 2)[..], &[f as u8; PAGE]].concat())
        .collect();
    wal.write(&sealer(), &raw, &frames, 32 + 2 * FRAME as u64, false)
        .unwrap();
    let mut back = vec![0; frames.len()];
    other
        .read(&sealer(), &raw, &mut back, 32 + 2 * FRAME as u64, &|_| None)
        .unwrap();
    assert!(back == frames);
    wal.truncate(&sealer(), &raw, 0).unwrap();
    assert_eq!(raw.size().unwrap(), 0);
}

#[test]
fn whatever_is_altered_in_a_log_is_found_where_it_can_be() {
    let raw = Memory::default();
    let stride = 56 + PAGE + 28;
    let (head, page) = (92 + stride, 92 + stride + 56); // of the second frame
    for synced in [false, true] {
        raw.truncate(0).unwrap();
        let mut wal = Wal::new();
        wal.write(&sealer(), &raw, &log_header(1), 0, false)
            .unwrap();
        write_frames(&mut wal, &raw, 1, 0..3);
        if synced {
            wal.synced();
        }
        write_frames(&mut wal, &raw, 1, 3..5);
        let original = raw.0.borrow().clone();
        for byte in [
            head,
            head + 12,
            head + 30,
            head + 40,
            head + 55,
            page,
            page + 12,
            page + 700,
            page + PAGE + 27,
        ] {
            raw.0.borrow_mut()[byte] ^= 4;
            let mut reader = Wal::new();
            if byte >= page {
                // A reader that the wal-index sends there.
                read_frame(&mut reader, &raw, 0).unwrap();
                corrupt(read_page(&mut reader, &raw, 1));
            }
            // Recovery: the end of the log, unless it was synced for certain.
            let read = read_frame(&mut reader, &raw, 1);
            if synced {
                corrupt(read);
            } else {
                let bad = read.unwrap();
                assert!(
                    bad[..24] == [0; 24] || bad[24..] == [0; PAGE],
                    "byte {byte}"
                );
            }
            *raw.0.borrow_mut() = original.clone();
        }
        // The header of the log may be anything after a crash: then there is no log.
        for byte in [32, 50, 91] {
            raw.0.borrow_mut()[byte] ^= 4;
            let mut header = [9; 32];
            let got = Wal::new().read(&sealer(), &raw, &mut header, 0, &|_| None);
            assert_eq!((got.unwrap(), header), (0, [0; 32]));
            assert_eq!(Wal::new().size(&sealer(), &raw).unwrap(), 0);
            *raw.0.borrow_mut() = original.clone();
        }
        // The frame of another place.
        raw.0
            .borrow_mut()
            .copy_within(page + stride..page + 2 * stride - 56, page);
        let mut reader = Wal::new();
        read_frame(&mut reader, &raw, 0).unwrap();
        corrupt(read_page(&mut reader, &raw, 1));
        *raw.0.borrow_mut() = original;
    }
}

/// Uncommitted frames that are written over claim nothing of those after them.
#[test]
fn frames_of_a_rolled_back_transaction_prove_nothing() {
    let (raw, mut wal) = (Memory::default(), Wal::new());
    wal.write(&sealer(), &raw, &log_header(1), 0, false)
        .unwrap();
    write_frames(&mut wal, &raw, 1, 0..8);
    wal.synced();
    // Another transaction from frame 4 on, torn in frame 5.
    for frame in 4..6u64 {
        let at = 32 + frame * FRAME as u64;
        wal.write(&sealer(), &raw, &frame_header(9, 0, 1), at, false)
            .unwrap();
        wal.write(&sealer(), &raw, &[9; PAGE], at + 24, false)
            .unwrap();
    }
    let at = 92 + 5 * (56 + PAGE + 28) + 200;
    raw.0.borrow_mut()[at] ^= 1;
    assert_eq!(
        read_frame(&mut Wal::new(), &raw, 5).unwrap()[24..],
        [0; PAGE]
    );
}

/// Not even if its page was one of zeros, whose checksum the header has.
#[test]
fn a_frame_with_a_torn_page_is_none() {
    let (raw, mut wal) = (Memory::default(), Wal::new());
    wal.write(&sealer(), &raw, &log_header(1), 0, false)
        .unwrap();
    write_frames(&mut wal, &raw, 1, 0..1);
    raw.0.borrow_mut()[92 + 56 + 300] ^= 1;
    assert_eq!(
        read_frame(&mut Wal::new(), &raw, 0).unwrap(),
        vec![0; FRAME]
    );
}

/// A journal as SQLite writes it, with `records` in its header.
fn journal(raw: &Memory, records: u32) -> Journal {
    let mut journal = Journal::new();
    let mut header = [0; 512];
    header[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    header[8..12].copy_from_slice(&records.to_be_bytes());
    header[20..24].copy_from_slice(&512u32.to_be_bytes());
    header[24..28].copy_from_slice(&(PAGE as u32).to_be_bytes());
    let s = sealer();
    journal
        .write(&s, raw, &header, 0, Begin::default())
        .unwrap();
    for record in 0..3u64 {
        let at = 512 + record * (PAGE as u64 + 8);
        journal
            .write(&s, raw, &[0, 0, 0, 1], at, Begin::default())
            .unwrap();
        journal
            .write(&s, raw, &[record as u8 + 1; PAGE], at + 4, Begin::default())
            .unwrap();
        journal
            .write(&s, raw, &[5; 4], at + 4 + PAGE as u64, Begin::default())
            .unwrap();
    }
    journal
}

#[test]
fn whatever_is_altered_in_a_synced_journal_is_found() {
    let raw = Memory::default();
    for records in [2, u32::MAX] {
        raw.truncate(0).unwrap();
        journal(&raw, records);
        let original = raw.0.borrow().clone();
        for cell in 1..7 {
            raw.0.borrow_mut()[16 + cell * 542 + 300] ^= 1;
            let mut reader = Journal::new();
            let mut magic = [0; 8];
            reader.read(&sealer(), &raw, &mut magic, 0).unwrap();
            let mut part = [1; 4];
            // Cells 1 to 5 hold the two records that were synced.
            let read = reader.read(&sealer(), &raw, &mut part, cell as u64 * 512);
            match records {
                2 if cell < 6 => corrupt(read),
                _ => assert_eq!((read.unwrap(), part), (4, [0; 4]), "cell {cell}"),
            }
            *raw.0.borrow_mut() = original.clone();
        }
        // A stock SQLite takes it for no journal at all.
        assert_eq!(original[0], 0);
        // And so do we where the first block is not what was written.
        raw.0.borrow_mut()[..558].fill(0x5a);
        let mut magic = [1; 8];
        Journal::new().read(&sealer(), &raw, &mut magic, 0).unwrap();
        assert_eq!(magic, [0; 8]);
    }
}

/// A later part of a journal begins in a cell of its own: what was synced
/// before is not written again.
#[test]
fn a_new_part_of_a_journal_leaves_the_old_one_alone() {
    let raw = Memory::default();
    let mut journal = journal(&raw, 3);
    let before = raw.0.borrow().clone();
    let end = (512 + 3 * (PAGE as u64 + 8)).next_multiple_of(512);
    journal
        .write(&sealer(), &raw, &[1; 512], end, Begin::default())
        .unwrap();
    journal
        .write(&sealer(), &raw, &[2; 4], end + 512, Begin::default())
        .unwrap();
    assert_eq!(raw.0.borrow()[..before.len()], before[..]);
}
