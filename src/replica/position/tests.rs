use super::super::identity::History;
use super::super::record::tests::record;
use super::*;

#[test]
fn a_state_that_did_not_come_to_be_is_not_found() {
    let path = temp("retract");
    let mut store = PositionFile::create(&path, identity()).unwrap();
    let base = store.append(record(Some(1))).unwrap();
    let mut never = record(Some(2));
    never.digest.add(77);
    let never = store.append(never).unwrap();
    let mut other = PositionFile::open(&path).unwrap().unwrap();
    store.retract(&never, &base).unwrap();
    for store in [&store, &PositionFile::open(&path).unwrap().unwrap()] {
        assert!(store.find_content(never.digest, never.page_count).is_none());
        assert!(store.find_content(base.digest, base.page_count).is_some());
    }
    // One that had seen it goes on from there.
    let next = store.append(record(Some(3))).unwrap();
    other.refresh().unwrap();
    assert_eq!(other.last(), Some(&next));
}

#[test]
fn a_file_of_the_first_version_is_given_a_key() {
    let path = temp("first-version");
    let mut store = PositionFile::create(&path, identity()).unwrap();
    store.key = FileKey::None;
    store.set_identity(identity()).unwrap();
    let old = store.append(record(Some(4))).unwrap();
    let mut reader = PositionFile::open_to_read(&path).unwrap().unwrap();
    let mut writer = PositionFile::open(&path).unwrap().unwrap();
    assert!(reader.has_no_key() && writer.has_no_key());
    assert_eq!(writer.last(), Some(&old));
    let current = Record {
        digest: Digest(77),
        ..old.clone()
    };
    writer.give_key([7; 32], current).unwrap();
    reader.refresh().unwrap();
    for store in [
        &writer,
        &reader,
        &PositionFile::open(&path).unwrap().unwrap(),
    ] {
        assert!(!store.has_no_key() && store.page_hash() == PageHash::new(&[7; 32]));
        assert_eq!(store.records.len(), 1);
        assert_eq!(store.last().map(|r| r.digest), Some(Digest(77)));
        assert_eq!(store.identity(), &identity());
    }
}

fn identity() -> Identity {
    Identity {
        sync_url: "http://h".into(),
        namespace: Some("n".into()),
    }
}

fn temp(name: &str) -> String {
    let dir = std::env::temp_dir().join(format!("libreplica-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir.join("a.db").to_str().unwrap().to_string()
}

#[test]
fn remembers_across_opens_and_wraps() {
    let db = temp("wrap");
    assert!(PositionFile::open(&db).unwrap().is_none());
    let mut file = PositionFile::create(&db, identity()).unwrap();
    let mut other = PositionFile::open(&db).unwrap().unwrap();
    for n in 0..RECORDS + 5 {
        file.append(record(Some(n))).unwrap();
        if n == 3 {
            other.refresh().unwrap();
            assert_eq!(other.last(), file.last());
        }
    }
    other.refresh().unwrap();
    assert_eq!(other.last(), file.last());
    let reopened = PositionFile::open(&db).unwrap().unwrap();
    assert_eq!(reopened.identity(), &identity());
    assert_eq!(reopened.records.len() as u64, RECORDS);
    assert_eq!(reopened.last(), file.last());
    let wanted = record(Some(100));
    assert_eq!(
        reopened
            .find(wanted.end, &wanted.stamp.unwrap())
            .unwrap()
            .position,
        wanted.position
    );
    assert_eq!(
        reopened.find(
            wanted.end,
            &Stamp {
                ctime: 6,
                ..wanted.stamp.unwrap()
            }
        ),
        None
    );
    assert_eq!(
        reopened.find_content(wanted.digest, 7).unwrap().position,
        wanted.position
    );
    assert!(reopened.find_content(wanted.digest, 8).is_none());
}

#[test]
fn a_torn_identity_leaves_the_other() {
    let db = temp("identity");
    let mut file = PositionFile::create(
        &db,
        Identity {
            sync_url: "http://a".into(),
            namespace: None,
        },
    )
    .unwrap();
    file.set_identity(Identity {
        sync_url: "http://b".into(),
        namespace: None,
    })
    .unwrap();
    file.write(&[0xff; 100], 0).unwrap(); // generation 2 lies in copy A
    assert_eq!(
        PositionFile::open(&db)
            .unwrap()
            .unwrap()
            .identity()
            .sync_url,
        "http://a"
    );
    file.write(&[0xff; 100], IDENTITY_SIZE as u64).unwrap();
    assert!(PositionFile::open(&db).is_err());
}

#[test]
fn a_frozen_database_s_is_none_and_one_that_is_gone_is_not_frozen() {
    let db = temp("frozen");
    let mut file = PositionFile::create(&db, identity()).unwrap();
    let history = History::of(&db);
    assert!(history.now().is_some());
    std::fs::rename(path_of(&db), format!("{db}-away")).unwrap();
    assert!(file.was_frozen().is_err() && history.was_frozen().is_err());
    std::fs::rename(format!("{db}-away"), path_of(&db)).unwrap();
    assert!(!file.was_frozen().unwrap());
    file.mark_frozen().unwrap();
    assert!(PositionFile::open(&db).unwrap().is_none());
    std::fs::remove_file(path_of(&db)).unwrap();
    assert!(file.was_frozen().unwrap() && history.was_frozen().unwrap());
}

#[test]
fn the_log_is_synced_before_its_records_are_gone() {
    let db = temp("sync");
    let mut file = PositionFile::create(&db, identity()).unwrap();
    let mut other = PositionFile::open(&db).unwrap().unwrap();
    let mut due = Vec::new();
    for n in 0..RECORDS {
        let store = if n % 2 == 0 { &mut file } else { &mut other };
        store.append(record(Some(n))).unwrap();
        due.extend(store.is_sync_due().then_some(n));
    }
    due.dedup_by_key(|n| *n / UNSYNCED);
    assert!(due.len() as u64 >= RECORDS / UNSYNCED - 1, "{due:?}");
}
