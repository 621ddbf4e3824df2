//! The rows of `sqlite_schema` (file format, section 2.6) as objects.

use std::sync::Arc;

use super::create::TableDef;
use super::token::{Token, tokens};
use crate::btree::corrupt;
use crate::btree::value::Value;
use crate::error::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Table,
    Index,
    View,
    Trigger,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Table => "table",
            Kind::Index => "index",
            Kind::View => "view",
            Kind::Trigger => "trigger",
        }
    }
}

#[derive(Debug)]
pub struct Object {
    pub kind: Kind,
    pub name: String,
    /// The table that an index or trigger belongs to; else the name.
    pub table: String,
    /// 0 for what has no b-tree.
    pub root: u32,
    /// Empty for the indexes that come with a constraint.
    pub sql: String,
    /// None for what is no table, for virtual ones, and for what an unknown
    /// SQLite dialect may have made.
    pub def: Option<TableDef>,
}

impl Object {
    pub fn is_virtual(&self) -> bool {
        self.kind == Kind::Table && self.root == 0
    }

    pub fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The module of a virtual table, in lower case.
    pub fn module(&self) -> Option<String> {
        let words = tokens(&self.sql);
        let using = words.iter().position(|t| t.is("USING"))?;
        let name = words.get(using + 1).and_then(Token::name)?;
        Some(name.to_ascii_lowercase())
    }

    /// Tables of SQLite's own, which no statement can create.
    pub fn is_reserved(&self) -> bool {
        let prefix = self.name.get(..7).unwrap_or_default();
        prefix.eq_ignore_ascii_case("sqlite_")
    }

    /// What ANALYZE makes, and knows of the rows: it changes none of them.
    pub fn is_statistics(&self) -> bool {
        let prefix = self.name.get(..11).unwrap_or_default();
        prefix.eq_ignore_ascii_case("sqlite_stat")
    }
}

/// All objects in the order of their making.
#[derive(Debug, Default)]
pub struct Schema {
    pub objects: Vec<Arc<Object>>,
}

impl Schema {
    pub fn read(rows: Vec<Vec<Value>>) -> Result<Schema> {
        let objects: Result<Vec<_>> = rows.into_iter().map(object).collect();
        Ok(Schema { objects: objects? })
    }

    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.iter().filter(move |o| o.kind == kind)
    }

    pub fn find(&self, kind: Kind, name: &str) -> Option<&Arc<Object>> {
        self.of(kind).find(|o| o.is_named(name))
    }

    /// The indexes or triggers of a table.
    pub fn on<'a>(&'a self, kind: Kind, table: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let on_it = move |o: &&Arc<Object>| o.table.eq_ignore_ascii_case(table);
        self.of(kind).filter(on_it)
    }
}

fn object(row: Vec<Value>) -> Result<Arc<Object>> {
    let broken = || corrupt("a row of sqlite_schema that is none");
    let [kind, name, table, root, sql] = <[Value; 5]>::try_from(row).map_err(|_| broken())?;
    let kind = match kind.as_text() {
        Some("table") => Kind::Table,
        Some("index") => Kind::Index,
        Some("view") => Kind::View,
        Some("trigger") => Kind::Trigger,
        _ => return Err(broken()),
    };
    let root = match root {
        Value::Int(root) => u32::try_from(root).map_err(|_| broken())?,
        Value::Null => 0,
        _ => return Err(broken()),
    };
    let sql = match sql {
        Value::Text(sql) => sql,
        Value::Null => String::new(),
        _ => return Err(broken()),
    };
    let text = |value: Value| match value {
        Value::Text(text) => Ok(text),
        _ => Err(broken()),
    };
    let is_table = kind == Kind::Table && root != 0;
    Ok(Arc::new(Object {
        kind,
        name: text(name)?,
        table: text(table)?,
        root,
        def: if is_table {
            TableDef::parse(&sql)
        } else {
            None
        },
        sql,
    }))
}
