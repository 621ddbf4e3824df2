//! CREATE INDEX, as far as the order of row changes depends on it.

use super::parser::Parser;

/// What a unique index forbids to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unique {
    No,
    Columns(Vec<String>),
    /// An expression or a condition: any column may matter.
    Anything,
}

pub fn unique(sql: &str) -> Unique {
    let mut parser = Parser::new(sql);
    if !parser.take("CREATE") || !parser.take("UNIQUE") {
        return Unique::No;
    }
    columns(parser).map_or(Unique::Anything, Unique::Columns)
}

fn columns(mut parser: Parser) -> Option<Vec<String>> {
    if !parser.take("INDEX") {
        return None;
    }
    parser.object_name()?;
    if !parser.take("ON") {
        return None;
    }
    parser.next()?.name()?;
    let (listed, _) = parser.list()?;
    if parser.peek().is_some() {
        return None;
    }
    listed.into_iter().map(|one| one.column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_indexes() {
        let columns =
            |names: &[&str]| Unique::Columns(names.iter().map(|n| n.to_string()).collect());
        assert_eq!(unique("CREATE INDEX i ON t(a)"), Unique::No);
        assert_eq!(
            unique("CREATE UNIQUE INDEX i ON t(a, \"b\" COLLATE x DESC)"),
            columns(&["a", "b"])
        );
        assert_eq!(
            unique("CREATE UNIQUE INDEX i ON t(a) WHERE b"),
            Unique::Anything
        );
        assert_eq!(
            unique("CREATE UNIQUE INDEX i ON t(a, lower(b))"),
            Unique::Anything
        );
        assert_eq!(unique("CREATE UNIQUE INDEX i ON t((a) )"), Unique::Anything);
        assert_eq!(unique("CREATE UNIQUE INDEX i ON t(a+1)"), Unique::Anything);
    }
}
