//! The SQL surface: arguments in, JSON out. All functions are DIRECTONLY, so
//! that no trigger or view that came with the data can call them.

mod args;
mod calls;
mod databases;
mod exec;
mod report;
mod right;

use std::ffi::CStr;

use libsqlite3_sys as sql;
use sqlite_loadable::define_table_function;

use self::args::Args;
use crate::error::{Error, Result};
use crate::ffi::attention::{self, Connected};
use crate::ffi::function::{self, Call, Function};
use crate::ffi::guard;
use crate::replica::registry;

/// What a function answers.
enum Value {
    Null,
    Integer(i64),
    Text(String),
}

/// How many arguments a function takes.
#[derive(Clone, Copy)]
enum Takes {
    Exactly(usize),
    /// So many, and the name of a schema or not.
    Schema(usize),
    /// One, and any number of bound ones.
    Bound,
}

/// What a connection must be allowed to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// It tells, or brings what the primary has: the choice is not the caller's.
    Nothing,
    /// What an UPDATE of the schema's database needs (of `main`, where none is named).
    Update,
}

type Body = fn(&Args) -> Result<Value>;

/// Every function, and what a connection needs for it; besides these there is
/// `replica_version()`, which needs nothing.
#[rustfmt::skip]
const TABLE: [(&CStr, Takes, Needs, Body); 13] = [
    (c"replica_sync",       Takes::Schema(0),  Needs::Nothing, calls::sync),
    (c"replica_status",     Takes::Schema(0),  Needs::Nothing, calls::status),
    (c"replica_frame_no",   Takes::Schema(0),  Needs::Nothing, calls::frame_no),
    (c"replica_wait",       Takes::Schema(2),  Needs::Nothing, calls::wait),
    (c"replica_last_error", Takes::Exactly(0), Needs::Nothing, calls::last_error),
    (c"replica_version",    Takes::Exactly(1), Needs::Nothing, calls::version_part),
    (c"replica_exec",       Takes::Bound,      Needs::Update,  calls::execute),
    (c"replica_config",     Takes::Schema(2),  Needs::Update,  calls::config),
    (c"replica_rekey",      Takes::Schema(1),  Needs::Update,  calls::rekey),
    (c"replica_resync",     Takes::Schema(0),  Needs::Update,  calls::resync),
    (c"replica_freeze",     Takes::Schema(0),  Needs::Update,  calls::freeze),
    (c"replica_open",       Takes::Exactly(2), Needs::Update,  calls::open),
    (c"replica_adopt",      Takes::Exactly(1), Needs::Update,  calls::adopt),
];

static FUNCTIONS: [Function; TABLE.len()] = functions();

const fn functions() -> [Function; TABLE.len()] {
    let mut all = [const {
        Function {
            name: c"",
            run: call,
            index: 0,
        }
    }; TABLE.len()];
    let mut index = 0;
    while index < TABLE.len() {
        all[index] = Function {
            name: TABLE[index].0,
            run: call,
            index,
        };
        index += 1;
    }
    all
}

/// Defines everything on a connection.
pub fn define(db: *mut sql::sqlite3) -> sqlite_loadable::Result<()> {
    for function in &FUNCTIONS {
        let counts = match TABLE[function.index].1 {
            Takes::Exactly(count) => count as i32..=count as i32,
            Takes::Schema(count) => count as i32..=count as i32 + 1,
            Takes::Bound => -1..=-1,
        };
        for count in counts {
            let code = function::define(db, function, count);
            if code != sql::SQLITE_OK {
                let name = function.name.to_string_lossy();
                let text = format!("defining {name} failed with code {code}");
                return Err(sqlite_loadable::Error::new_message(&text));
            }
        }
    }
    if function::define_version(db) != sql::SQLITE_OK {
        return Err(sqlite_loadable::Error::new_message("out of memory"));
    }
    define_table_function::<databases::Databases>(db, "replica_databases", None)
}

/// Runs a function: no panic leaves it, and an error carries its result code.
fn call(function: &'static Function, call: &Call) {
    let (_, takes, needs, body) = TABLE[function.index];
    let args = Args(call);
    let result = guard::caught(|| {
        if needs == Needs::Update {
            right::check(call.db(), &args.named_schema(takes)?)?;
        }
        let calls = Connected::Calls(call.db());
        answer(call, attention::listening_to(calls, || body(&args))?)
    });
    if let Err(error) = result {
        let text = format!("{}: {error}", function.name.to_string_lossy());
        registry::set_last_error(&text);
        call.answer_error(&text, error.code());
    }
}

fn answer(call: &Call, value: Value) -> Result<()> {
    match value {
        Value::Null => call.answer_null(),
        Value::Integer(n) => call.answer_integer(n),
        Value::Text(text) => {
            if !call.answer_text(text) {
                return Err(Error::Internal("the answer does not fit".into()));
            }
        }
    }
    Ok(())
}
