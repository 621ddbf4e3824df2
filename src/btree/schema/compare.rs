//! Two schemas: what became of every table.

use std::sync::Arc;

use super::alter::{Alteration, explain, is_renamed};
use super::objects::{Kind, Object, Schema};
use super::shadow;

/// A table with a b-tree, before and after. One that no ALTER explains is
/// two of these: dropped, and created.
#[derive(Clone, Debug)]
pub struct Pair {
    pub base: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
    pub alteration: Alteration,
}

/// Virtual tables that exist on both sides, perhaps under another name.
#[derive(Clone, Debug)]
pub struct VirtualPair {
    pub base: Arc<Object>,
    pub new: Arc<Object>,
}

#[derive(Debug)]
pub struct SchemaChange {
    pub base: Arc<Schema>,
    pub new: Arc<Schema>,
    pub tables: Vec<Pair>,
    pub virtuals: Vec<VirtualPair>,
    /// Old and new names of tables and columns.
    pub renamed: Vec<(String, String)>,
}

pub fn compare(base: &Arc<Schema>, new: &Arc<Schema>) -> SchemaChange {
    let mut change = SchemaChange {
        base: base.clone(),
        new: new.clone(),
        tables: Vec::new(),
        virtuals: Vec::new(),
        renamed: Vec::new(),
    };
    if Arc::ptr_eq(base, new) {
        change.same();
        return change;
    }
    change.virtuals();
    change.tables();
    change
}

fn tables(schema: &Schema) -> impl Iterator<Item = &Arc<Object>> {
    schema.of(Kind::Table).filter(|o| !o.is_virtual())
}

fn virtuals(schema: &Schema) -> impl Iterator<Item = &Arc<Object>> {
    schema.of(Kind::Table).filter(|o| o.is_virtual())
}

fn owned(schema: &Schema, table: &Object, by: &Object) -> bool {
    shadow::owner(schema, table).is_some_and(|owner| std::ptr::eq(owner, by))
}

fn twin<'a>(schema: &'a Schema, object: &Object) -> Option<&'a Arc<Object>> {
    let found = schema.find(Kind::Table, &object.name)?;
    (found.is_virtual() == object.is_virtual()).then_some(found)
}

/// What is to be the same of an object, wherever it lies. The shadow tables of
/// a virtual table are its module's, which may spell them another way elsewhere.
fn definition<'a>(schema: &Schema, o: &'a Object) -> (&'static str, &'a str, &'a str, &'a str) {
    let sql = match shadow::owner(schema, o) {
        Some(_) => "",
        None => &o.sql,
    };
    (o.kind.word(), &o.name, &o.table, sql)
}

/// Statistics may be of one side alone: no primary lets a client make their tables.
fn definitions(schema: &Schema) -> Vec<(&'static str, &str, &str, &str)> {
    let mut all: Vec<_> = (schema.objects.iter())
        .filter(|o| !o.is_statistics())
        .map(|o| definition(schema, o))
        .collect();
    all.sort_unstable();
    all
}

impl SchemaChange {
    /// Tables of statistics that are made, which no statement can.
    pub fn new_statistics(&self) -> impl Iterator<Item = &Arc<Object>> {
        let is_new = |o: &&Arc<Object>| twin(&self.base, o).is_none();
        tables(&self.new)
            .filter(|o| o.is_statistics())
            .filter(is_new)
    }

    /// The same change, from `base` to `new`: what is paired here is paired
    /// there, wherever it lies. None if the definitions are others.
    pub fn between(&self, base: &Arc<Schema>, new: &Arc<Schema>) -> Option<SchemaChange> {
        let same = |a: &Schema, b: &Schema| definitions(a) == definitions(b);
        if !same(&self.base, base) || !same(&self.new, new) {
            return None;
        }
        let find =
            |schema: &Schema, object: &Object| schema.find(object.kind, &object.name).cloned();
        let tables = self.tables.iter().map(|pair| Pair {
            base: pair.base.as_ref().and_then(|o| find(base, o)),
            new: pair.new.as_ref().and_then(|o| find(new, o)),
            alteration: pair.alteration.clone(),
        });
        let tables = tables.filter(|pair| pair.base.is_some() || pair.new.is_some());
        let virtuals = self.virtuals.iter().map(|pair| {
            Some(VirtualPair {
                base: find(base, &pair.base)?,
                new: find(new, &pair.new)?,
            })
        });
        Some(SchemaChange {
            base: base.clone(),
            new: new.clone(),
            tables: tables.collect(),
            virtuals: virtuals.collect::<Option<_>>()?,
            renamed: self.renamed.clone(),
        })
    }

    /// Nothing changed: every table is its own pair.
    fn same(&mut self) {
        let pair = |o: &Arc<Object>| Pair {
            base: Some(o.clone()),
            new: Some(o.clone()),
            alteration: Alteration::none(o.def.as_ref().map_or(0, |d| d.columns.len())),
        };
        self.tables = tables(&self.base).map(pair).collect();
        self.virtuals = virtuals(&self.base)
            .map(|o| VirtualPair {
                base: o.clone(),
                new: o.clone(),
            })
            .collect();
    }

    fn virtuals(&mut self) {
        let (base, new) = (self.base.clone(), self.new.clone());
        for old in virtuals(&base) {
            let same = twin(&new, old).filter(|found| found.sql == old.sql);
            let found = same.or_else(|| {
                virtuals(&new).find(|found| {
                    let names = [(old.name.clone(), found.name.clone())];
                    twin(&base, found).is_none()
                        && twin(&new, old).is_none()
                        && self.has_its_pages(old, found)
                        && is_renamed(&old.sql, &found.sql, &names)
                })
            });
            let Some(found) = found else { continue };
            if old.name != found.name {
                self.rename_shadows(old, found);
            }
            self.virtuals.push(VirtualPair {
                base: old.clone(),
                new: found.clone(),
            });
        }
    }

    /// Whether a shadow table of the one is where that of the other was: two
    /// virtual tables can have the same definition.
    fn has_its_pages(&self, old: &Object, new: &Object) -> bool {
        let taken = |pair: &VirtualPair| std::ptr::eq(&*pair.new, new);
        let stayed = |table: &&Arc<Object>| {
            let suffix = shadow::suffix(&table.name, &old.name).unwrap_or_default();
            let renamed = format!("{}_{suffix}", new.name);
            let found = self.new.find(Kind::Table, &renamed);
            owned(&self.base, table, old) && found.is_some_and(|n| n.root == table.root)
        };
        !self.virtuals.iter().any(taken) && tables(&self.base).any(|t| stayed(&t))
    }

    /// A virtual table takes its shadow tables along.
    fn rename_shadows(&mut self, old: &Object, new: &Object) {
        self.renamed.push((old.name.clone(), new.name.clone()));
        for table in tables(&self.base).filter(|t| owned(&self.base, t, old)) {
            let suffix = shadow::suffix(&table.name, &old.name).unwrap_or_default();
            let renamed = format!("{}_{suffix}", new.name);
            if self.new.find(Kind::Table, &renamed).is_some() {
                self.renamed.push((table.name.clone(), renamed));
            }
        }
    }

    /// Whether a table is made anew with its virtual table, though nothing in
    /// its definition tells.
    fn is_remade(&self, base: &Object, new: &Object) -> bool {
        let is_it = |pair: &&VirtualPair, side: fn(&VirtualPair) -> &Object, owner: &Object| {
            std::ptr::eq(side(pair), owner)
        };
        let old_gone = shadow::owner(&self.base, base)
            .is_some_and(|o| !self.virtuals.iter().any(|p| is_it(&p, |p| &p.base, o)));
        let new_made = shadow::owner(&self.new, new)
            .is_some_and(|o| !self.virtuals.iter().any(|p| is_it(&p, |p| &p.new, o)));
        old_gone || new_made
    }

    fn tables(&mut self) {
        let (base, new) = (self.base.clone(), self.new.clone());
        let mut left: Vec<_> = Vec::new();
        // Renames first: the definitions of others change with them.
        for old in tables(&base) {
            if twin(&new, old).is_some() {
                left.push(old);
                continue;
            }
            let shadow = self.renamed.iter().find(|(from, _)| *from == old.name);
            let candidate = match shadow {
                Some((_, to)) => new.find(Kind::Table, to),
                // Shadow tables follow their virtual table, and nothing else.
                None if shadow::owner(&base, old).is_some() => None,
                None => tables(&new).find(|t| {
                    let free = twin(&base, t).is_none() && shadow::owner(&new, t).is_none();
                    t.root == old.root && free
                }),
            };
            let explained = candidate.and_then(|c| Some((c, explain(old, c, &self.renamed)?)));
            match explained {
                Some((new, alteration)) => {
                    self.renamed.push((old.name.clone(), new.name.clone()));
                    self.renamed.extend(alteration.renamed.iter().cloned());
                    self.pair(Some(old), Some(new), alteration);
                }
                None => self.pair(Some(old), None, Alteration::default()),
            }
        }
        for old in left {
            self.named_alike(old);
        }
        for object in tables(&new) {
            let is_it = |p: &Pair| p.new.as_ref().is_some_and(|n| Arc::ptr_eq(n, object));
            if !self.tables.iter().any(is_it) {
                self.pair(None, Some(object), Alteration::default());
            }
        }
        // Columns renamed in one table, and seen in a foreign key of an earlier one.
        self.second_look();
    }

    fn named_alike(&mut self, old: &Arc<Object>) {
        let Some(new) = twin(&self.new, old).cloned() else {
            return;
        };
        let columns = old.def.as_ref().map_or(0, |d| d.columns.len());
        let alteration = if self.is_remade(old, &new) {
            None
        } else if old.sql == new.sql {
            Some(Alteration::none(columns))
        } else {
            explain(old, &new, &self.renamed)
        };
        match alteration {
            Some(alteration) => {
                self.renamed.extend(alteration.renamed.iter().cloned());
                self.pair(Some(old), Some(&new), alteration);
            }
            None => self.pair(Some(old), None, Alteration::default()),
        }
    }

    fn second_look(&mut self) {
        let (gone, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.tables)
            .into_iter()
            .partition(|p| p.new.is_none());
        self.tables = rest;
        for pair in gone {
            let again = pair.base.as_ref().and_then(|old| {
                let new = twin(&self.new, old).filter(|new| !self.is_remade(old, new))?;
                Some((new.clone(), explain(old, new, &self.renamed)?))
            });
            let Some((new, alteration)) = again else {
                self.tables.push(pair);
                continue;
            };
            let is_it = |p: &Pair| p.new.as_ref().is_some_and(|n| Arc::ptr_eq(n, &new));
            self.tables.retain(|p| !is_it(p));
            self.pair(pair.base.as_ref(), Some(&new), alteration);
        }
    }

    fn pair(
        &mut self,
        base: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        alteration: Alteration,
    ) {
        self.tables.push(Pair {
            base: base.cloned(),
            new: new.cloned(),
            alteration,
        });
    }
}
