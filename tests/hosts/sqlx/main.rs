//! sqlx, features `sqlite` and `sqlite-load-extension`. Its own `sqlite:` URLs refuse parameters that it does not know:
//! `filename("file:…")` takes them. `.extension()` is loaded by every connection; once in a process is enough.
//! `.journal_mode()` and `.create_if_missing()` can stay as they are.
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::Result;
use std::time::Duration;
use std::{env, io};

fn step(name: &str, value: i64) {
    println!("{name} {value}");
    io::stdin().read_line(&mut String::new()).unwrap();
}

/// `options` with the library to load.
fn loading(options: SqliteConnectOptions) -> SqliteConnectOptions {
    // SAFETY: the library is trusted to keep to SQLite's rules.
    unsafe { options.extension(env::var("LIBREPLICA").unwrap()) }
}

fn replica(name: &str, options: &str) -> SqliteConnectOptions {
    let url = env::var("PRIMARY").unwrap();
    SqliteConnectOptions::new().filename(format!("file:{name}?vfs=replica&sync_url={url}{options}"))
}

async fn connect(options: SqliteConnectOptions) -> Result<SqlitePool> {
    SqlitePoolOptions::new()
        .max_connections(8)
        .connect_with(options)
        .await
}

async fn count(db: &SqlitePool) -> Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(db)
        .await
}

async fn write(db: &SqlitePool, text: &str) -> Result<()> {
    sqlx::query("INSERT INTO notes(text) VALUES(?)")
        .bind(text)
        .execute(db)
        .await
        .map(|_| ())
}

async fn work(db: SqlitePool, number: i64) -> Result<()> {
    for row in 0..5 {
        write(&db, &format!("thread {number} row {row}")).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    connect(loading(SqliteConnectOptions::new().in_memory(true)))
        .await?
        .close()
        .await;
    let app = connect(replica("app.db", "")).await?;
    step("open", count(&app).await?);

    sqlx::query("SELECT replica_sync()").execute(&app).await?;
    step("sync", count(&app).await?);

    write(&app, "written here").await?;
    step("write", count(&app).await?);

    let secret = connect(replica("secret.db", "&encryption_key=env:KEY")).await?;
    write(&secret, "sealed here").await?;
    step("encrypted", count(&secret).await?);
    secret.close().await;

    let live = connect(replica("live.db", "&live=1")).await?;
    let before = count(&live).await?;
    step("live", before);
    for _ in 0..1000 {
        if count(&live).await? != before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    step("seen", count(&live).await?);

    let second = connect(replica("app.db", "")).await?;
    write(&second, "a second connection").await?;
    step("second", count(&app).await?);

    let tasks: Vec<_> = (0..8)
        .map(|number| tokio::spawn(work(app.clone(), number)))
        .collect();
    for task in tasks {
        task.await.expect("a task panicked")?;
    }
    step("threads", count(&app).await?);

    let again = connect(loading(replica("app.db", ""))).await?; // loads once more, which is harmless
    step("again", count(&again).await?);
    Ok(())
}
