//! The tables that a virtual table keeps its content in. They come and go
//! with it, and are plain tables otherwise.

use super::objects::{Kind, Object, Schema};

/// The virtual table of `schema` that this table belongs to.
pub fn owner<'a>(schema: &'a Schema, table: &Object) -> Option<&'a Object> {
    let virtuals = schema.of(Kind::Table).filter(|o| o.is_virtual());
    let owners = virtuals.filter(|v| is_shadow(v, table));
    owners.map(|o| &**o).max_by_key(|v| v.name.len())
}

fn is_shadow(of: &Object, table: &Object) -> bool {
    let Some(suffix) = suffix(&table.name, &of.name) else {
        return false;
    };
    let module = of.module().unwrap_or_default();
    let known: &[&str] = match &module[..] {
        "fts5" => &["data", "idx", "content", "docsize", "config"],
        "fts3" | "fts4" => &["content", "segments", "segdir", "docsize", "stat"],
        "rtree" | "rtree_i32" | "geopoly" => &["node", "rowid", "parent"],
        // Any table of that name may be its own.
        _ => return true,
    };
    known.iter().any(|name| suffix.eq_ignore_ascii_case(name))
}

/// What follows `name_`, if that is what it begins with.
pub fn suffix<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    let (head, tail) = table.split_at_checked(name.len())?;
    let tail = tail.strip_prefix('_')?;
    head.eq_ignore_ascii_case(name).then_some(tail)
}
