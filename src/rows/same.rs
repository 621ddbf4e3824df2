//! Whether two transactions do the same, each upon its own pages.

use super::plan::plan;
use super::statement::{Effect, Statement};
use crate::btree::{Decoded, Known, Pages, decode_as};
use crate::error::{Error, Result};

/// Whether `theirs`, upon pages with the same content, does what `ours` does,
/// whose statements these are.
pub fn is_same(ours: &Decoded, statements: &[Statement], theirs: &dyn Pages) -> Result<bool> {
    let known = Known::load(theirs)?;
    let decoded = decode_as(&ours.schema, &known, theirs);
    match decoded.and_then(|found| found.as_ref().map(plan).transpose()) {
        Ok(Some(found)) => Ok(sorted(&found) == sorted(statements)),
        // What no statement makes, none of ours has made.
        Ok(None) | Err(Error::ReadOnly(_)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// What is done, in an order that does not depend on the layout of pages.
/// Without what only checks: it depends on the order of the schema's rows,
/// which is another where triggers were made anew.
fn sorted(statements: &[Statement]) -> Vec<String> {
    let text = |s: &Statement| format!("{} {:?}", s.sql, s.args);
    let acts = |s: &&Statement| s.effect != Effect::Guard;
    let mut texts: Vec<String> = statements.iter().filter(acts).map(text).collect();
    texts.sort_unstable();
    texts
}
