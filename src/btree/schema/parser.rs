//! What definitions of tables and indexes are read with.

use super::token::{Token, tokens};

/// The parenthesised list of PRIMARY KEY, UNIQUE or an index: its columns,
/// None for an expression, with the collations that are stated.
pub struct Listed {
    pub column: Option<String>,
    pub collation: Option<String>,
}

pub struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    pub fn new(sql: &'a str) -> Parser<'a> {
        Parser {
            tokens: tokens(sql),
            at: 0,
        }
    }

    pub fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at)
    }

    pub fn next(&mut self) -> Option<Token<'a>> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    pub fn take(&mut self, keyword: &str) -> bool {
        let is_it = self.peek().is_some_and(|t| t.is(keyword));
        self.at += usize::from(is_it);
        is_it
    }

    pub fn take_punct(&mut self, punct: &str) -> bool {
        let is_it = self.peek().is_some_and(|t| t.is_punct(punct));
        self.at += usize::from(is_it);
        is_it
    }

    pub fn at_punct(&self, punct: &str) -> bool {
        self.peek().is_some_and(|t| t.is_punct(punct))
    }

    /// `[IF NOT EXISTS] [schema.] name`
    pub fn object_name(&mut self) -> Option<String> {
        if self.take("IF") && !(self.take("NOT") && self.take("EXISTS")) {
            return None;
        }
        let name = self.next()?.name()?;
        if self.take_punct(".") {
            return self.next()?.name();
        }
        Some(name)
    }

    /// Skips a parenthesised group, if one comes next.
    pub fn skip_group(&mut self) -> Option<()> {
        let mut depth = 0usize;
        while let Some(token) = self.peek() {
            if token.is_punct("(") {
                depth += 1;
            } else if depth == 0 {
                return Some(());
            } else if token.is_punct(")") {
                depth -= 1;
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
        (depth == 0).then_some(())
    }

    /// Undoes the last `next`.
    pub fn back(&mut self) {
        self.at -= 1;
    }

    pub fn at(&self) -> usize {
        self.at
    }

    /// The tokens passed since then.
    pub fn since(&self, from: usize) -> &[Token<'a>] {
        &self.tokens[from..self.at]
    }

    /// A parenthesised list of indexed columns.
    pub fn list(&mut self) -> Option<(Vec<Listed>, bool)> {
        let mut autoincrement = false;
        if !self.take_punct("(") {
            return None;
        }
        let mut listed = Vec::new();
        loop {
            let first = self.next()?;
            let mut one = Listed {
                column: first.name(),
                collation: None,
            };
            if first.is_punct("(") {
                self.at -= 1;
                self.skip_group()?;
            }
            loop {
                let token = self.next()?;
                if token.is_punct(",") {
                    break;
                } else if token.is_punct(")") {
                    listed.push(one);
                    return Some((listed, autoincrement));
                } else if token.is("COLLATE") {
                    one.collation = Some(self.next()?.name()?);
                } else if token.is("AUTOINCREMENT") {
                    autoincrement = true;
                } else if !["ASC", "DESC", "NULLS", "FIRST", "LAST"]
                    .iter()
                    .any(|w| token.is(w))
                {
                    one.column = None;
                    if token.is_punct("(") {
                        self.at -= 1;
                        self.skip_group()?;
                    }
                }
            }
            listed.push(one);
        }
    }
}
