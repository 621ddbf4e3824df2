//! Which ALTER TABLE statements make one definition of another. Their effect
//! on the text is simulated as SQLite has it (alter.c), so what is explained
//! is explained to the last token.

use super::create::TableDef;
use super::objects::Object;
use super::token::{Kind, Token, tokens};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alter {
    RenameTable {
        to: String,
    },
    /// `to` as SQL: with or without quotes, as the new text has it.
    RenameColumn {
        from: String,
        to: String,
    },
    /// The column's definition.
    AddColumn(String),
    DropColumn(String),
}

/// How a table came from an older one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alteration {
    pub steps: Vec<Alter>,
    /// For each column which one of the old table it is; None if it was added.
    pub origin: Vec<Option<usize>>,
    /// Old and new names of columns.
    pub renamed: Vec<(String, String)>,
}

impl Alteration {
    pub fn none(columns: usize) -> Alteration {
        Alteration {
            origin: (0..columns).map(Some).collect(),
            ..Alteration::default()
        }
    }

    /// Whether columns are dropped. That writes every row anew; without it the
    /// rows of an unchanged page are what they were.
    pub fn drops(&self) -> bool {
        let drops = |step: &Alter| matches!(step, Alter::DropColumn(_));
        self.steps.iter().any(drops)
    }
}

/// Explains `new` from `old`, given the names that change in other
/// definitions. None if no ALTER does.
///
/// Of several explanations that is best which leaves the rows where they are;
/// but a name that moves from one column to another was rather dropped and
/// added, for renames reach into other definitions.
pub fn explain(old: &Object, new: &Object, others: &[(String, String)]) -> Option<Alteration> {
    let (old_def, new_def) = (old.def.as_ref()?, new.def.as_ref()?);
    let mut found = Vec::new();
    for added in 0..new_def.columns.len() {
        let kept = new_def.columns.len() - added;
        let Some(gone) = old_def.columns.len().checked_sub(kept) else {
            continue;
        };
        let tries = drops(old_def, new_def, kept, gone).into_iter();
        found.extend(tries.filter_map(|drops| attempt(old, new, &drops, kept, others)));
    }
    let exchanges = |found: &Alteration| {
        let taken = |(from, to): &(String, String)| {
            !from.eq_ignore_ascii_case(to) && old_def.column(to).is_some()
        };
        found.renamed.iter().any(taken)
    };
    found.into_iter().min_by_key(|found| {
        let steps = found.steps.len();
        (exchanges(found), found.drops(), found.renamed.len(), steps)
    })
}

/// Which columns may have been dropped, if `gone` of them were.
fn drops(old: &TableDef, new: &TableDef, kept: usize, gone: usize) -> Vec<Vec<usize>> {
    if gone == 0 {
        return vec![vec![]];
    }
    let left = |i: &usize| {
        let named = |c: &super::create::Column| c.name.eq_ignore_ascii_case(&old.columns[*i].name);
        !new.columns[..kept].iter().any(named)
    };
    let missing: Vec<usize> = (0..old.columns.len()).filter(left).collect();
    match gone {
        _ if missing.len() == gone => vec![missing],
        1 => missing.into_iter().map(|i| vec![i]).collect(),
        _ => vec![],
    }
}

fn attempt(
    old: &Object,
    new: &Object,
    drops: &[usize],
    kept: usize,
    others: &[(String, String)],
) -> Option<Alteration> {
    let (old_def, new_def) = (old.def.as_ref()?, new.def.as_ref()?);
    let mut steps = Vec::new();
    let mut text = old.sql.clone();
    // Generated columns first: no column goes that another one reads.
    let (plain, generated): (Vec<usize>, Vec<usize>) = drops
        .iter()
        .partition(|&&i| old_def.columns[i].generated.is_none());
    for i in generated.into_iter().rev().chain(plain) {
        let name = &old_def.columns[i].name;
        text = without_column(&text, name)?;
        steps.push(Alter::DropColumn(name.clone()));
    }
    let mut origin: Vec<Option<usize>> = (0..old_def.columns.len())
        .filter(|i| !drops.contains(i))
        .map(Some)
        .collect();
    let added = added_columns(new, new_def, kept)?;
    if !drops.iter().all(|&i| can_be_dropped(old_def, i)) || !added.iter().all(|c| can_be_added(c))
    {
        return None;
    }
    for column in &added {
        text = with_column(&text, column)?;
        origin.push(None);
    }
    let mut renamed = Vec::new();
    for (i, from) in origin.iter().enumerate().take(kept) {
        let (from, to) = (&old_def.columns[(*from)?].name, &new_def.columns[i].name);
        if from != to {
            renamed.push((from.clone(), to.clone()));
        }
    }
    let moved = (old.name.clone(), new.name.clone());
    let mut names: Vec<_> = renamed.iter().chain(others).cloned().collect();
    if moved.0 != moved.1 {
        names.push(moved.clone());
    }
    let pairs = renamed_tokens(&text, &new.sql, &names)?;
    if moved.0 != moved.1 && !pairs.iter().any(|(_, b)| b.text == quoted(&moved.1)) {
        return None;
    }
    steps.extend(renames(&renamed, &pairs, old_def));
    steps.extend(added.into_iter().map(Alter::AddColumn));
    if moved.0 != moved.1 {
        steps.push(Alter::RenameTable { to: moved.1 });
    }
    Some(Alteration {
        steps,
        origin,
        renamed,
    })
}

/// Renames in an order in which no name is taken: by way of other names if
/// they form a circle.
fn renames(renamed: &[(String, String)], pairs: &[(Token, Token)], old: &TableDef) -> Vec<Alter> {
    let spelled = |from: &str, to: &str| {
        let is_it = |(a, b): &&(Token, Token)| {
            a.kind == Kind::Word && a.text.eq_ignore_ascii_case(from) && names(b, to)
        };
        match pairs.iter().find(is_it) {
            Some((_, b)) => b.text.to_string(),
            None => quoted(to),
        }
    };
    let mut first = Vec::new();
    let mut second = Vec::new();
    for (i, (from, to)) in renamed.iter().enumerate() {
        let spelling = spelled(from, to);
        if old
            .column(to)
            .is_some_and(|taken| !old.columns[taken].name.eq_ignore_ascii_case(from))
        {
            let between = format!("libreplica_renamed_{i}");
            first.push(Alter::RenameColumn {
                from: from.clone(),
                to: between.clone(),
            });
            second.push(Alter::RenameColumn {
                from: between,
                to: spelling,
            });
        } else {
            first.push(Alter::RenameColumn {
                from: from.clone(),
                to: spelling,
            });
        }
    }
    first.into_iter().chain(second).collect()
}

fn can_be_dropped(def: &TableDef, column: usize) -> bool {
    let in_key = def.key.iter().any(|part| part.column == column);
    !in_key && !def.unique.iter().flatten().any(|&c| c == column)
}

/// ALTER TABLE adds neither keys nor stored columns, and of defaults only
/// constants.
fn can_be_added(definition: &str) -> bool {
    let tokens = tokens(definition);
    let forbidden = [
        "PRIMARY",
        "UNIQUE",
        "STORED",
        "CURRENT_TIME",
        "CURRENT_DATE",
        "CURRENT_TIMESTAMP",
    ];
    if tokens
        .iter()
        .any(|token| forbidden.iter().any(|word| token.is(word)))
    {
        return false;
    }
    let default = tokens.iter().position(|token| token.is("DEFAULT"));
    let value = default.map_or(&[][..], |at| &tokens[at + 1..]);
    if !value.first().is_some_and(|token| token.is_punct("(")) {
        return true;
    }
    let value = match value {
        [_, sign, rest @ ..] if sign.is_punct("-") || sign.is_punct("+") => rest,
        [_, rest @ ..] => rest,
        [] => return false,
    };
    matches!(value, [_, close, ..] if close.is_punct(")"))
}

/// The definitions of the columns from `kept` on, as the text has them.
fn added_columns(new: &Object, def: &TableDef, kept: usize) -> Option<Vec<String>> {
    let mut added = Vec::new();
    for i in kept..def.columns.len() {
        let end = match def.columns.get(i + 1) {
            // Without the comma that separates them.
            Some(next) => new.sql.get(..next.at)?.rfind(',')?,
            None => def.columns_end,
        };
        added.push(new.sql.get(def.columns[i].at..end)?.trim().to_string());
    }
    Some(added)
}

/// ALTER TABLE ADD COLUMN's text (alter.c, `sqlite3AlterFinishAddColumn`).
fn with_column(sql: &str, column: &str) -> Option<String> {
    let at = TableDef::parse(sql)?.columns_end;
    Some(format!("{}, {column}{}", sql.get(..at)?, sql.get(at..)?))
}

/// ALTER TABLE DROP COLUMN's text (alter.c, `dropColumnFunc`).
fn without_column(sql: &str, name: &str) -> Option<String> {
    let def = TableDef::parse(sql)?;
    let i = def.column(name)?;
    let (start, end) = match def.columns.get(i + 1) {
        Some(next) => (def.columns[i].at, next.at),
        None => (sql.get(..def.columns[i].at)?.rfind(',')?, def.columns_end),
    };
    Some(format!("{}{}", sql.get(..start)?, sql.get(end..)?))
}

/// As renaming a table always writes its name, and renaming a column sometimes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn names(token: &Token, name: &str) -> bool {
    token.name().is_some_and(|n| n.eq_ignore_ascii_case(name))
}

/// Whether the texts differ by renamed names only.
pub fn is_renamed(old: &str, new: &str, names: &[(String, String)]) -> bool {
    let pairs = renamed_tokens(old, new, names);
    // Which strings in double quotes ALTER repairs depends on what it renames.
    let repaired = |(a, b): &(Token, Token)| a.name() == b.name();
    pairs.is_some_and(|pairs| !pairs.iter().any(repaired))
}

/// The tokens in which the texts differ; None if they differ by more than
/// these names (and by the quotes that a rename puts around them).
fn renamed_tokens<'a>(
    old: &'a str,
    new: &'a str,
    renamed: &[(String, String)],
) -> Option<Vec<(Token<'a>, Token<'a>)>> {
    let (old_tokens, new_tokens) = (tokens(old), tokens(new));
    if old_tokens.len() != new_tokens.len() {
        return None;
    }
    let mut pairs = Vec::new();
    let (mut old_end, mut new_end) = (0, 0);
    for (a, b) in old_tokens.into_iter().zip(new_tokens) {
        // White space and comments stay as they are.
        if old.get(old_end..a.at) != new.get(new_end..b.at) {
            return None;
        }
        (old_end, new_end) = (a.at + a.text.len(), b.at + b.text.len());
        if a.text == b.text {
            continue;
        }
        let (from, to) = (a.name()?, b.name()?);
        let quotes_only = from == to && a.kind != Kind::Word;
        let is_it = |(x, y): &(String, String)| x.eq_ignore_ascii_case(&from) && *y == to;
        // A name in quotes keeps some, and these are double ones.
        let kept_quotes = a.kind == Kind::Word || b.kind != Kind::Word;
        if !kept_quotes || !quotes_only && !renamed.iter().any(is_it) {
            return None;
        }
        pairs.push((a, b));
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::super::objects::Kind as ObjectKind;
    use super::*;

    fn object(sql: &str) -> Object {
        let name = tokens(sql)[2].name().unwrap();
        Object {
            kind: ObjectKind::Table,
            table: name.clone(),
            name,
            root: 2,
            sql: sql.to_string(),
            def: TableDef::parse(sql),
        }
    }

    fn steps(old: &str, new: &str) -> Option<Vec<Alter>> {
        explain(&object(old), &object(new), &[]).map(|a| a.steps)
    }

    fn rename(from: &str, to: &str) -> Alter {
        Alter::RenameColumn {
            from: from.into(),
            to: to.into(),
        }
    }

    #[test]
    fn each_alter_explains_its_text() {
        let old = "CREATE TABLE t(a, b INT CHECK(b > 0) , UNIQUE(a))";
        let drop = |name: &str| Alter::DropColumn(name.into());
        let add = |text: &str| Alter::AddColumn(text.into());
        for (new, expected) in [
            (old, vec![]),
            (
                "CREATE TABLE t(a, b INT CHECK(b > 0) , c DEFAULT 'x, y', UNIQUE(a))",
                vec![add("c DEFAULT 'x, y'")],
            ),
            (
                "CREATE TABLE t(a, b INT CHECK(b > 0) , c, d INT, UNIQUE(a))",
                vec![add("c"), add("d INT")],
            ),
            ("CREATE TABLE t(a, UNIQUE(a))", vec![drop("b")]),
            (
                "CREATE TABLE t(a, \"c d\" INT CHECK(\"c d\" > 0) , UNIQUE(a))",
                vec![rename("b", "\"c d\"")],
            ),
            (
                "CREATE TABLE t(c, b INT CHECK(b > 0) , UNIQUE(c))",
                vec![rename("a", "c")],
            ),
            (
                "CREATE TABLE t(c, d, UNIQUE(c))",
                vec![drop("b"), rename("a", "c"), add("d")],
            ),
            (
                "CREATE TABLE \"u\"(a, b INT CHECK(b > 0) , UNIQUE(a))",
                vec![Alter::RenameTable { to: "u".into() }],
            ),
        ] {
            assert_eq!(steps(old, new), Some(expected), "{new}");
        }
    }

    #[test]
    fn a_rename_leaves_rows_in_place() {
        let sql = |name: &str| {
            format!(
                "CREATE TABLE t(c0 INTEGER PRIMARY KEY DESC, {name} INTEGER, g INT AS (length(c3)), \
                 c2 INT DEFAULT 'd', c3 COLLATE binary, c4, CHECK(c0 IS NOT 'never, ('))"
            )
        };
        let steps = steps(&sql("c1"), &sql("n9")).unwrap();
        assert_eq!(steps, [rename("c1", "n9")]);
    }

    #[test]
    fn a_name_that_is_still_there_was_not_renamed() {
        let steps = steps("CREATE TABLE t(a, b)", "CREATE TABLE t(b, c)").unwrap();
        assert_eq!(
            steps,
            [Alter::DropColumn("a".into()), Alter::AddColumn("c".into())]
        );
    }

    #[test]
    fn what_reads_a_column_goes_first() {
        let old = "CREATE TABLE t(a, b, g AS (b), h AS (g))";
        let steps = steps(old, "CREATE TABLE t(a)").unwrap();
        let drop = |name: &str| Alter::DropColumn(name.into());
        assert_eq!(steps, [drop("h"), drop("g"), drop("b")]);
    }

    #[test]
    fn exchanged_names_go_by_way_of_others() {
        let steps = steps(
            "CREATE TABLE t(a, b, UNIQUE(a, b))",
            "CREATE TABLE t(b, a, UNIQUE(b, a))",
        )
        .unwrap();
        assert_eq!(
            steps,
            [
                rename("a", "libreplica_renamed_0"),
                rename("b", "libreplica_renamed_1"),
                rename("libreplica_renamed_0", "b"),
                rename("libreplica_renamed_1", "a"),
            ]
        );
    }

    #[test]
    fn other_changes_are_not_explained() {
        let old = "CREATE TABLE t(a, b)";
        for new in [
            "CREATE TABLE t(a INT, b)",
            "CREATE TABLE t(a, b) STRICT",
            "CREATE TABLE t(a, b, CHECK(a))",
            "CREATE TABLE t(c UNIQUE, a, b)",
            "CREATE TABLE t(a UNIQUE, b)",
            "CREATE TABLE t(a, b, c UNIQUE)",
            "CREATE TABLE t(a, b, c DEFAULT (1+1))",
            "CREATE TABLE t(a, b, c AS (a) STORED)",
            "CREATE TABLE t(a, b, c DEFAULT CURRENT_TIME)",
            "CREATE TABLE t(b UNIQUE)",
        ] {
            assert_eq!(steps(old, new), None, "{new}");
        }
    }
}
