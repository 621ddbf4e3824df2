//! Databases that are altered, torn, interrupted.

use super::*;

#[test]
fn whatever_is_altered_in_a_database_is_found() {
    let vault = vault("altered", RAW_KEY);
    let (raw, mut rng) = (Memory::default(), Rng(3));
    let mut db = DbFile::new(vault.clone());
    let pages = rng.bytes(8 * 4096);
    db.write(&raw, &pages, 0).unwrap();
    let original = raw.0.borrow().clone();
    assert_eq!(original.len(), header::SIZE + 8 * 4124);
    let read = |page: u64| {
        let mut buf = vec![0; 4096];
        DbFile::new(vault.clone()).read(&raw, &mut buf, page * 4096)
    };
    for page in 0..8u64 {
        let begin = header::SIZE + page as usize * 4124;
        for byte in (0..NONCE)
            .chain([NONCE, NONCE + 2000, NONCE + 4095])
            .chain(4108..4124)
        {
            raw.0.borrow_mut()[begin + byte] ^= 1 << rng.below(8);
            corrupt(read(page));
            *raw.0.borrow_mut() = original.clone();
        }
    }
    // Swapped.
    let cell = |page: usize| header::SIZE + page * 4124..header::SIZE + (page + 1) * 4124;
    raw.0.borrow_mut().copy_within(cell(2), cell(5).start);
    corrupt(read(5));
    assert_eq!(read(2).unwrap(), 4096);
    *raw.0.borrow_mut() = original.clone();
    // Of another file with the same user key.
    let other = Memory::default();
    DbFile::new(super::vault("altered-2", RAW_KEY))
        .write(&other, &pages, 0)
        .unwrap();
    raw.0.borrow_mut()[cell(3)].copy_from_slice(&other.0.borrow()[cell(3)]);
    corrupt(read(3));
    *raw.0.borrow_mut() = original.clone();
    // Zeros are no page.
    raw.0.borrow_mut()[cell(4)].fill(0);
    corrupt(read(4));
    *raw.0.borrow_mut() = original.clone();
    // Cut off: inside a cell it is found here, between cells the size shows it.
    raw.truncate(cell(6).start as u64 + 100).unwrap();
    corrupt(read(6));
    raw.truncate(cell(6).start as u64).unwrap();
    assert_eq!(DbFile::new(vault.clone()).size(&raw).unwrap(), 6 * 4096);
    for cut in [header::SIZE as u64, 4096, 600, 100] {
        raw.truncate(cut).unwrap();
        corrupt(DbFile::new(vault.clone()).size(&raw));
    }
}

#[test]
fn an_interrupted_creation_is_an_empty_file() {
    let vault = vault("interrupted", RAW_KEY);
    let raw = Memory::default();
    DbFile::new(vault.clone())
        .write(&raw, &[1; 4096], 0)
        .unwrap();
    let whole = raw.0.borrow().clone();
    for cut in [100, 4096, header::SIZE] {
        *raw.0.borrow_mut() = whole[..cut].to_vec();
        let mut db = Db::new(vault.clone(), Box::new(|| true));
        assert_eq!(db.size(&raw).unwrap(), 0);
        db.sweep(&raw).unwrap();
        assert_eq!(raw.size().unwrap(), 0);
        db.write(&raw, &[2; 4096], 0).unwrap();
        let mut page = [0; 4096];
        assert_eq!(db.read(&raw, &mut page, 0).unwrap(), 4096);
        assert_eq!(page, [2; 4096]);
    }
}

/// A page 1 that a crash tore is for the journal or the log to repair.
#[test]
fn a_torn_first_page_does_not_keep_sqlite_from_looking() {
    let vault = vault("torn", RAW_KEY);
    let raw = Memory::default();
    let mut db = DbFile::new(vault);
    db.write(&raw, &[1; 8192], 0).unwrap();
    raw.0.borrow_mut()[header::SIZE + 3000] ^= 1;
    let (mut head, mut counter, mut page) = ([9; 100], [9; 16], [9; 4096]);
    assert_eq!(db.read(&raw, &mut head, 0).unwrap(), 0);
    assert_eq!(
        (db.read(&raw, &mut counter, 24).unwrap(), counter),
        (0, [0; 16])
    );
    assert_eq!(head, [0; 100]);
    corrupt(db.read(&raw, &mut page, 0));
    db.write(&raw, &[3; 4096], 0).unwrap();
    assert_eq!(db.read(&raw, &mut page, 0).unwrap(), 4096);
}
