//! Statements that differ only in their values, as one: a primary has less to
//! parse and to answer.

use std::sync::Arc;

use super::{Effect, Statement};
use crate::btree::Value;

const ROWS: usize = 500;
/// Any SQLite takes 999.
const ARGS: usize = 999;
/// A request that is too large for something on the way can be split between statements.
const BYTES: usize = 32 << 10;

/// The same in fewer statements.
pub fn bulk(statements: &[Statement]) -> impl Iterator<Item = Statement> {
    let mut rest = statements;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let count = alike(rest);
        let run;
        (run, rest) = rest.split_at(count);
        let joined = if count > 1 { join(run) } else { None };
        joined.or_else(|| {
            // Not to be joined after all: one by one.
            rest = &statements[statements.len() - rest.len() - count + 1..];
            Some(first.clone())
        })
    })
}

/// How many at the beginning can be one.
fn alike(statements: &[Statement]) -> usize {
    let Some(first) = statements.first() else {
        return 0;
    };
    let most = match first.args.len() {
        0 => 1,
        args => ROWS.min(ARGS / args),
    };
    let mut bytes = 0;
    let same = |statement: &&Statement| {
        bytes += statement.args.iter().map(size).sum::<usize>();
        Arc::ptr_eq(&statement.sql, &first.sql)
            && statement.effect == Effect::Rows(1)
            && bytes < BYTES
    };
    statements.iter().take(most).take_while(same).count().max(1)
}

fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::RawText(bytes) | Value::Blob(bytes) => bytes.len(),
        _ => 8,
    }
}

fn join(run: &[Statement]) -> Option<Statement> {
    let sql = &*run.first()?.sql;
    let sql = if sql.starts_with("INSERT OR ABORT INTO ") {
        // What stands for the values has no such word in it.
        let at = sql.rfind(" VALUES(")? + " VALUES".len();
        let (head, row) = sql.split_at(at);
        format!("{head}{}", vec![row; run.len()].join(","))
    } else if sql.starts_with("DELETE FROM ") && run[0].args.len() == 1 {
        let head = sql.strip_suffix(" = ?")?;
        if head.ends_with(')') {
            return None;
        }
        format!("{head} IN ({})", vec!["?"; run.len()].join(","))
    } else {
        return None;
    };
    let args = run.iter().flat_map(|s| s.args.iter().cloned()).collect();
    Some(Statement::new(sql, args, Effect::Rows(run.len() as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sql: &str, values: std::ops::Range<i64>) -> Vec<Statement> {
        let sql: Arc<str> = Arc::from(sql);
        let one = |n| Statement::new(sql.clone(), vec![Value::Int(n)], Effect::Rows(1));
        values.map(one).collect()
    }

    fn texts(statements: &[Statement]) -> Vec<(String, Effect)> {
        bulk(statements)
            .map(|s| (s.sql.to_string(), s.effect))
            .collect()
    }

    #[test]
    fn values_side_by_side() {
        let mut all = run("DELETE FROM \"t\" WHERE \"a\" = ?", 0..3);
        all.extend(run("UPDATE OR ABORT \"t\" SET b = 1 WHERE \"a\" = ?", 0..2));
        all.extend(run(
            "INSERT OR ABORT INTO \"t VALUES(\"(a, b) VALUES(?, 9e999)",
            0..2,
        ));
        let update = "UPDATE OR ABORT \"t\" SET b = 1 WHERE \"a\" = ?".to_string();
        let expected = [
            (
                "DELETE FROM \"t\" WHERE \"a\" IN (?,?,?)".to_string(),
                Effect::Rows(3),
            ),
            (update.clone(), Effect::Rows(1)),
            (update, Effect::Rows(1)),
            (
                "INSERT OR ABORT INTO \"t VALUES(\"(a, b) VALUES(?, 9e999),(?, 9e999)".to_string(),
                Effect::Rows(2),
            ),
        ];
        assert_eq!(texts(&all), expected);
        let args: Vec<Value> = bulk(&all).flat_map(|s| s.args).collect();
        assert_eq!(
            args,
            all.iter().flat_map(|s| s.args.clone()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn not_more_than_a_statement_takes() {
        let all = run("INSERT OR ABORT INTO t(a) VALUES(?)", 0..1001);
        let counts: Vec<_> = bulk(&all).map(|s| s.effect).collect();
        assert_eq!(counts, [500, 500, 1].map(Effect::Rows));
        // Another text, if only by its address, is another statement.
        let two = [
            run("INSERT OR ABORT INTO t(a) VALUES(?)", 0..1),
            run("DELETE FROM t", 0..1),
        ];
        assert_eq!(texts(&two.concat()).len(), 2);
    }
}
