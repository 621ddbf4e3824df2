//! rusqlite, features `bundled` (or the system's SQLite) and `load_extension`. `file:` URIs count by themselves.
//! Load once; the library stays in the process. A transaction that reads first: TransactionBehavior::Immediate.
use rusqlite::{Connection, Result};
use std::time::Duration;
use std::{env, io, thread};

fn step(name: &str, value: i64) {
    println!("{name} {value}");
    io::stdin().read_line(&mut String::new()).unwrap();
}

fn load(db: &Connection) -> Result<()> {
    // SAFETY: the library is trusted to keep to SQLite's rules.
    unsafe {
        let _guard = rusqlite::LoadExtensionGuard::new(db)?;
        db.load_extension(env::var("LIBREPLICA").unwrap(), None::<&str>)
    }
}

fn connect(name: &str, options: &str) -> Result<Connection> {
    let url = env::var("PRIMARY").unwrap();
    Connection::open(format!("file:{name}?vfs=replica&sync_url={url}{options}"))
}

fn count(db: &Connection) -> Result<i64> {
    db.query_row("SELECT count(*) FROM notes", [], |row| row.get(0))
}

fn write(db: &Connection, text: &str) -> Result<()> {
    db.execute("INSERT INTO notes(text) VALUES(?)", [text])
        .map(|_| ())
}

fn work(number: i64) -> Result<()> {
    let db = connect("app.db", "")?;
    (0..5).try_for_each(|row| write(&db, &format!("thread {number} row {row}")))
}

fn main() -> Result<()> {
    load(&Connection::open_in_memory()?)?;
    let app = connect("app.db", "")?;
    step("open", count(&app)?);

    app.query_row("SELECT replica_sync()", [], |_| Ok(()))?;
    step("sync", count(&app)?);

    write(&app, "written here")?;
    step("write", count(&app)?);

    let secret = connect("secret.db", "&encryption_key=env:KEY")?;
    write(&secret, "sealed here")?;
    step("encrypted", count(&secret)?);
    drop(secret);

    let live = connect("live.db", "&live=1")?;
    let before = count(&live)?;
    step("live", before);
    for _ in 0..1000 {
        if count(&live)? != before {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    step("seen", count(&live)?);

    let second = connect("app.db", "")?;
    write(&second, "a second connection")?;
    step("second", count(&app)?);

    let threads: Vec<_> = (0..8)
        .map(|number| thread::spawn(move || work(number)))
        .collect();
    for thread in threads {
        thread.join().expect("a thread panicked")?;
    }
    step("threads", count(&app)?);

    load(&second)?; // once more is harmless
    step("again", count(&second)?);
    Ok(())
}
