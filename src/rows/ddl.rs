//! Changes of the schema as statements.

use std::collections::HashSet;
use std::sync::Arc;

use super::statement::Statement;
use super::{dml, quote};
use crate::btree::Value;
use crate::btree::schema::alter::{Alter, is_renamed};
use crate::btree::schema::compare::SchemaChange;
use crate::btree::schema::objects::{Kind, Object};
use crate::btree::schema::shadow;
use crate::btree::schema::token::{Token, tokens};
use crate::error::{Error, Result};

/// In the order in which they are to be run.
#[derive(Default)]
pub struct Ddl {
    pub drop_triggers: Vec<Statement>,
    pub drops: Vec<Statement>,
    pub alters: Vec<Statement>,
    /// Tables, virtual ones too.
    pub creates: Vec<Statement>,
    /// Indexes, views, triggers.
    pub create_others: Vec<Statement>,
    /// Fail if the schema is not what it should be.
    pub guards: Vec<Statement>,
}

impl Ddl {
    /// `touched`: the tables, as they were, whose rows are written.
    pub fn new(change: &SchemaChange, touched: &[Arc<Object>]) -> Result<Ddl> {
        let mut ddl = Ddl::default();
        let unchanged = Arc::ptr_eq(&change.base, &change.new);
        let mut planner = Planner {
            change,
            touched,
            going: Vec::new(),
        };
        planner.find_going();
        // What is not here afterwards has been dropped, and made anew if it is wanted.
        let mut kept: HashSet<*const Object> = HashSet::new();
        if !unchanged {
            planner.tables(&mut ddl, &mut kept)?;
        }
        planner.others(&mut ddl, &mut kept);
        if !unchanged || planner.hides() || !ddl.drop_triggers.is_empty() {
            planner.guards(&mut ddl, &kept, unchanged);
        }
        Ok(ddl)
    }
}

struct Planner<'a> {
    change: &'a SchemaChange,
    touched: &'a [Arc<Object>],
    /// Views that are dropped, if only to be made again.
    going: Vec<String>,
}

impl Planner<'_> {
    /// With a view goes what mentions it: while it is away, ALTER would not
    /// find sense in the other.
    fn find_going(&mut self) {
        let views: Vec<_> = self.change.base.of(Kind::View).collect();
        loop {
            let known = self.going.len();
            for view in &views {
                let goes = self.kept_view(view).is_none();
                if goes && !self.going.contains(&view.name) {
                    self.going.push(view.name.clone());
                }
            }
            if self.going.len() == known {
                return;
            }
        }
    }

    fn tables(&self, ddl: &mut Ddl, kept: &mut HashSet<*const Object>) -> Result<()> {
        let change = self.change;
        let bases = change.base.of(Kind::Table).filter(|o| o.is_virtual());
        for object in bases {
            match change
                .virtuals
                .iter()
                .find(|p| Arc::ptr_eq(&p.base, object))
            {
                None => ddl.drops.push(drop(object)),
                Some(pair) if pair.base.name != pair.new.name => {
                    let to = pair.new.name.clone();
                    ddl.alters
                        .push(alter(&object.name, &Alter::RenameTable { to }));
                }
                Some(pair) => keep(kept, &pair.new),
            }
        }
        let mut created: Vec<&Arc<Object>> = change.new.of(Kind::Table).collect();
        created.retain(|o| !change.virtuals.iter().any(|p| Arc::ptr_eq(&p.new, o)));
        for pair in &change.tables {
            match (&pair.base, &pair.new) {
                (Some(base), Some(new)) => {
                    created.retain(|o| !Arc::ptr_eq(o, new));
                    if base.sql == new.sql {
                        keep(kept, new);
                    }
                    let along = shadow::owner(&change.base, base)
                        .is_some_and(|owner| change.new.find(Kind::Table, &owner.name).is_none());
                    if !along {
                        let steps = pair.alteration.steps.iter();
                        ddl.alters.extend(steps.map(|step| alter(&base.name, step)));
                    }
                }
                (Some(base), None) if shadow::owner(&change.base, base).is_none() => {
                    ddl.drops.push(drop(base));
                }
                _ => {}
            }
        }
        for object in created {
            let comes_along = object.is_named("sqlite_sequence") || object.is_statistics();
            if comes_along || shadow::owner(&change.new, object).is_some() {
                continue;
            }
            if object.is_reserved() {
                return Err(Error::ReadOnly(format!(
                    "no primary lets a client create {}",
                    object.name
                )));
            }
            ddl.creates.push(create(object)?);
        }
        Ok(())
    }

    /// Indexes, views and triggers.
    fn others(&self, ddl: &mut Ddl, kept: &mut HashSet<*const Object>) {
        for old in &self.change.base.objects {
            if old.kind == Kind::Table || old.sql.is_empty() {
                continue;
            }
            let keep = match old.kind {
                Kind::Index => self.kept_index(old),
                Kind::View => self.kept_view(old),
                _ => self.kept_trigger(old),
            };
            if let Some(new) = keep {
                kept.insert(Arc::as_ptr(new));
            } else if old.kind == Kind::Trigger {
                ddl.drop_triggers.push(drop(old));
            } else if old.kind == Kind::View || self.table_stays(old) {
                ddl.drops.push(drop(old));
            }
        }
        // Indexes of tables that go, go along; views go before tables.
        ddl.drops.sort_by_key(|s| {
            let order = ["DROP VIEW", "DROP INDEX", "DROP TABLE"];
            order.iter().position(|word| s.sql.starts_with(word))
        });
        for new in &self.change.new.objects {
            let is_other = new.kind != Kind::Table && !new.sql.is_empty();
            if is_other && !kept.contains(&Arc::as_ptr(new)) {
                ddl.create_others
                    .push(Statement::definition(new.sql.clone()));
            }
        }
        let order = |s: &Statement| {
            let trigger = s
                .sql
                .get(..14)
                .is_some_and(|w| w.eq_ignore_ascii_case("CREATE TRIGGER"));
            let view = s
                .sql
                .get(..11)
                .is_some_and(|w| w.eq_ignore_ascii_case("CREATE VIEW"));
            u8::from(trigger) * 2 + u8::from(view)
        };
        ddl.create_others.sort_by_key(order);
    }

    /// What a table that is still the same one is now.
    fn now(&self, table: &str) -> Option<&Arc<Object>> {
        let is_it = |o: &Arc<Object>| o.is_named(table);
        let mut pairs = self.change.tables.iter();
        let pair = pairs.find(|p| p.base.as_ref().is_some_and(is_it) && p.new.is_some());
        pair.and_then(|p| p.new.as_ref())
    }

    fn table_stays(&self, object: &Object) -> bool {
        self.now(&object.table).is_some()
    }

    /// Whether it becomes by itself what it is afterwards. If a rename that
    /// did not reach it could have, the rename is ours alone; what mentions a
    /// dropped column is no more sense to ALTER than a string in wrong quotes,
    /// which it repairs.
    fn same_text(&self, old: &Object, new: &Object) -> bool {
        let reached = |name: &String| mentions(&old.sql, name);
        let steps = self.change.tables.iter().flat_map(|p| &p.alteration.steps);
        let mut dropped = steps.filter_map(|step| match step {
            Alter::DropColumn(name) => Some(name),
            _ => None,
        });
        if dropped.any(reached) {
            return false;
        }
        if old.sql == new.sql {
            let mut renamed = self.change.renamed.iter();
            return !renamed.any(|(from, _)| reached(from));
        }
        is_renamed(&old.sql, &new.sql, &self.change.renamed)
    }

    fn kept_index(&self, old: &Object) -> Option<&Arc<Object>> {
        let table = self.now(&old.table)?;
        let new = self.change.new.find(Kind::Index, &old.name)?;
        (table.is_named(&new.table) && self.same_text(old, new)).then_some(new)
    }

    fn kept_view(&self, old: &Object) -> Option<&Arc<Object>> {
        let new = self.change.new.find(Kind::View, &old.name)?;
        (!self.mentions_going(old) && self.same_text(old, new)).then_some(new)
    }

    fn mentions_going(&self, object: &Object) -> bool {
        let mut going = self.going.iter();
        going.any(|view| !object.is_named(view) && mentions(&object.sql, view))
    }

    /// Only if nothing happens that fires it or changes its text.
    fn kept_trigger(&self, old: &Object) -> Option<&Arc<Object>> {
        let new = self.change.new.find(Kind::Trigger, &old.name)?;
        let same = old.sql == new.sql && old.table == new.table;
        let same = same && self.same_text(old, new) && !self.mentions_going(old);
        let fires = self.touched.iter().any(|t| t.is_named(&old.table));
        let view = self.change.base.find(Kind::View, &old.table);
        let on_stays = match view {
            Some(view) => self.kept_view(view).is_some(),
            None => self.table_stays(old),
        };
        (same && !fires && on_stays).then_some(new)
    }

    /// Whether a column is renamed to and fro, which may leave traces anywhere.
    fn hides(&self) -> bool {
        let hides = |o: &Arc<Object>| o.def.as_ref().is_some_and(dml::hides_rowid);
        self.touched.iter().any(hides)
    }

    fn guards(&self, ddl: &mut Ddl, kept: &HashSet<*const Object>, unchanged: bool) {
        let local: Vec<_> = self.change.new_statistics().collect();
        for object in &self.change.new.objects {
            if local.iter().any(|o| Arc::ptr_eq(o, object)) {
                continue;
            }
            let as_ever = match object.kind {
                Kind::Table => unchanged || kept.contains(&Arc::as_ptr(object)),
                _ => kept.contains(&Arc::as_ptr(object)) && unchanged,
            };
            if !object.sql.is_empty() && (self.hides() || !as_ever) {
                ddl.guards.push(self.guard(object));
            }
        }
        let count = self.change.new.objects.len() - local.len();
        let count = Value::Int(count as i64);
        ddl.guards.push(Statement::guard(
            "(SELECT count(*) FROM sqlite_schema) <> ?",
            vec![count],
        ));
    }

    /// The text of a shadow table is its module's affair: which quotes it has
    /// tells whether its virtual table was renamed.
    fn guard(&self, object: &Object) -> Statement {
        let mut condition = "type = ? AND name = ?".to_string();
        let mut args = vec![object.kind.word(), &object.name];
        if shadow::owner(&self.change.new, object).is_none() {
            condition += " AND sql = ?";
            args.push(&object.sql);
        }
        let args = args.into_iter().map(|a| Value::Text(a.to_string()));
        Statement::guard(
            &format!("NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE {condition})"),
            args.collect(),
        )
    }
}

fn mentions(sql: &str, name: &str) -> bool {
    let is_it = |token: &Token| token.name().is_some_and(|n| n.eq_ignore_ascii_case(name));
    tokens(sql).iter().any(is_it)
}

fn keep(kept: &mut HashSet<*const Object>, object: &Arc<Object>) {
    kept.insert(Arc::as_ptr(object));
}

fn drop(object: &Object) -> Statement {
    let kind = object.kind.word().to_ascii_uppercase();
    Statement::definition(format!("DROP {kind} {}", quote::name(&object.name)))
}

/// A definition is its own statement, if it is one that SQLite has written.
fn create(object: &Object) -> Result<Statement> {
    let head = object.sql.get(..7).unwrap_or_default();
    if !head.eq_ignore_ascii_case("CREATE ") {
        return Err(Error::ReadOnly(format!(
            "the definition of {} is no statement",
            object.name
        )));
    }
    Ok(Statement::definition(object.sql.clone()))
}

fn alter(table: &str, step: &Alter) -> Statement {
    let change = match step {
        Alter::RenameTable { to } => format!("RENAME TO {}", quote::name(to)),
        Alter::RenameColumn { from, to } => {
            format!("RENAME COLUMN {} TO {to}", quote::name(from))
        }
        Alter::AddColumn(definition) => format!("ADD COLUMN {definition}"),
        Alter::DropColumn(name) => format!("DROP COLUMN {}", quote::name(name)),
    };
    Statement::definition(format!("ALTER TABLE {} {change}", quote::name(table)))
}
