//! Two states of a database as the SQL that leads from one to the other.
//!
//! `rows A B [C ...]` prints, for each pair of neighbours, a JSON line for each
//! statement, then `{"done":n}` or `{"refused":why}` or `{"error":why}`. What is
//! known of a state is carried on to the next, and has to be what a fresh look
//! at it finds. `= A B C D` prints `{"same":b}`: whether C to D does what A to B
//! does. Without arguments, such lists are read from standard input, one a line.
//! For the differential test (`tests/test_rows_random.py`).

use std::borrow::Cow;
use std::io::{BufRead, Write};

use replica::internal::{
    Effect, Error, Known, Pages, Result, Statement, Value, decode, is_same, plan,
};
use serde_json::{Value as Json, json};

struct Files {
    base: Vec<u8>,
    new: Vec<u8>,
    page_size: usize,
    changed: Vec<u32>,
}

impl Files {
    fn new(base: Vec<u8>, new: Vec<u8>) -> Files {
        let page_size = match new.get(16..18).unwrap_or(&[0, 0]) {
            [0, 1] => 65536,
            size => usize::from(size[0]) << 8 | usize::from(size[1]),
        };
        let (a, b) = (
            base.chunks(page_size.max(512)),
            new.chunks(page_size.max(512)),
        );
        let differs =
            |(at, page): (usize, &[u8])| (a.clone().nth(at) != Some(page)).then_some(at as u32 + 1);
        let changed = b.enumerate().filter_map(differs).collect();
        Files {
            base,
            new,
            page_size: page_size.max(512),
            changed,
        }
    }

    fn page<'a>(&self, file: &'a [u8], pgno: u32) -> Result<Cow<'a, [u8]>> {
        let page = file.chunks(self.page_size).nth(pgno as usize - 1);
        page.map(Cow::Borrowed)
            .ok_or_else(|| Error::Corrupt(format!("the file has no page {pgno}")))
    }
}

impl Pages for Files {
    fn before(&self, pgno: u32) -> Result<Cow<'_, [u8]>> {
        self.page(&self.base, pgno)
    }
    fn after(&self, pgno: u32) -> Result<Cow<'_, [u8]>> {
        self.page(&self.new, pgno)
    }
    fn changed(&self) -> &[u32] {
        &self.changed
    }
    fn size_before(&self) -> u32 {
        (self.base.len() / self.page_size) as u32
    }
    fn size_after(&self) -> u32 {
        (self.new.len() / self.page_size) as u32
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn argument(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Int(i) => json!({ "int": i.to_string() }),
        Value::Real(r) => json!({ "real": format!("{:016x}", r.to_bits()) }),
        Value::Text(t) => json!({ "text": t }),
        Value::RawText(_) => unreachable!("a planner binds no such text"),
        Value::Blob(b) => json!({ "blob": hex(b) }),
    }
}

fn line(statement: &Statement) -> Json {
    let args: Vec<Json> = statement.args.iter().map(argument).collect();
    let affected = match statement.effect {
        Effect::Rows(affected) => Some(affected),
        _ => None,
    };
    json!({ "sql": &*statement.sql, "args": args, "affected": affected })
}

fn step(files: &Files, known: &mut Known) -> Result<Vec<Json>> {
    let started = std::time::Instant::now();
    let decoded = decode(known, files)?;
    let statements = plan(&decoded);
    let micros = started.elapsed().as_micros() as u64;
    known.advance(decoded.step)?;
    let fresh = Known::load(&Files::new(files.new.clone(), files.new.clone()))?;
    if !known.agrees(&fresh) {
        return Err(Error::Internal(
            "what is known is not what is there".to_string(),
        ));
    }
    let mut lines: Vec<Json> = statements?.iter().map(line).collect();
    lines.push(json!({ "done": lines.len(), "micros": micros, "changed": files.changed.len() }));
    Ok(lines)
}

fn same(ours: &Files, theirs: &Files) -> Result<bool> {
    let decoded = decode(&Known::load(ours)?, ours)?;
    is_same(&decoded, &plan(&decoded)?, theirs)
}

fn run(paths: &[String], out: &mut impl Write) {
    let read = |path: &String| std::fs::read(path).expect("a readable file");
    if let [mark, a, b, c, d] = paths
        && mark == "="
    {
        let files = |base, new| Files::new(read(base), read(new));
        let same = same(&files(a, b), &files(c, d)).expect("sound databases");
        writeln!(out, "{}", json!({ "same": same })).expect("a pipe");
        return out.flush().expect("a pipe");
    }
    let mut known: Option<Known> = None;
    for pair in paths.windows(2) {
        let files = Files::new(read(&pair[0]), read(&pair[1]));
        let ready = match known.take() {
            Some(known) => Ok(known),
            None => Known::load(&files),
        };
        let lines = ready.and_then(|mut ready| {
            // What was refused has not been followed.
            let lines = step(&files, &mut ready)?;
            known = Some(ready);
            Ok(lines)
        });
        let lines = lines.unwrap_or_else(|e| match e {
            Error::ReadOnly(why) => vec![json!({ "refused": why })],
            e => vec![json!({ "error": e.to_string() })],
        });
        for line in lines {
            writeln!(out, "{line}").expect("a pipe");
        }
    }
    out.flush().expect("a pipe");
}

fn main() {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let mut out = std::io::BufWriter::new(std::io::stdout());
    if !paths.is_empty() {
        return run(&paths, &mut out);
    }
    for line in std::io::stdin().lock().lines() {
        let paths: Vec<String> = line
            .expect("text")
            .split('\t')
            .map(str::to_string)
            .collect();
        run(&paths, &mut out);
    }
}
