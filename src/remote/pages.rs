//! Writing pages at a primary that has the `sqlite_dbpage` table: the program
//! of one transaction, as steps of a Hrana batch.
//!
//! Every step runs only inside the transaction and after the step before has
//! succeeded. A primary that takes its lock back rolls the transaction back
//! and leaves the stream in autocommit: then no further step does anything. A
//! page written outside its transaction would destroy the database.
//!
//! `sqlite_dbpage` replaces pages and cannot add any (INSERT is refused before
//! SQLite 3.47). To grow the database by exactly the pages that came, the
//! primary's own allocator is made to extend the file for a table that nobody
//! will see, and then every page it may have touched is written over.

use std::ops::Range;

use super::hrana::stmt;
use super::hrana_wire::{BatchStep, Condition, Stmt, Value, ValueKind};
use crate::ffi::api;
use crate::rows::FAIL;
use crate::wal::{PAGE_SIZE, Page};

pub const UPDATE: &str = "UPDATE sqlite_dbpage SET data=? WHERE pgno=?";

/// Overflow pages of one row; a value may have 5,000,000 bytes.
const ROW_PAGES: u32 = 1100;
/// Rows of a table that surely fit on its first page, the remainder's among them.
const TABLE_ROWS: u32 = 7;
/// The payload (less the record's header) of a row with `k` overflow pages is
/// 489 + 4092 k (file format, section 1.6: the least that stays on the leaf).
const LEAF_BYTES: u32 = 489;
const OVERFLOW_BYTES: u32 = PAGE_SIZE as u32 - 4;
/// Pages that the tables' own rows in sqlite_schema may take.
const SLACK: u32 = 8;

/// The steps of a transaction. They go in one batch or in several, and
/// wherever a batch is cut off, each step runs only inside the transaction and
/// after the step before.
#[derive(Default)]
pub struct Steps {
    steps: Vec<Stmt>,
    /// The first one begins the transaction, and runs outside of it.
    begins: bool,
    /// What they take in a request, at most.
    bytes: usize,
}

/// What a step takes in a request besides its text and values.
const STEP_BYTES: usize = 64;

fn bytes(step: &Stmt) -> usize {
    let value = |value: &Value| match &value.kind {
        Some(ValueKind::Text(bytes) | ValueKind::Blob(bytes)) => bytes.len() + 16,
        _ => 16,
    };
    let values = step.args.iter().map(value);
    step.sql.as_ref().map_or(0, String::len) + STEP_BYTES + values.sum::<usize>()
}

impl Steps {
    pub fn len(&self) -> u32 {
        self.steps.len() as u32
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a batch that begins at step `from` ends if it is to have so many
    /// bytes at most, but one step at least.
    pub fn fit(&self, from: u32, limit: usize) -> u32 {
        let mut left = limit;
        let fit = self.steps[from as usize..].iter().take_while(|step| {
            let rest = left.checked_sub(bytes(step));
            left = rest.unwrap_or(0);
            rest.is_some()
        });
        from + (fit.count() as u32).max(1)
    }

    /// These as a batch; `ends`: what is still a transaction behind them is undone.
    pub fn batch(&self, range: Range<u32>, ends: bool) -> Vec<BatchStep> {
        let mut batch = Vec::with_capacity(range.len() + 1);
        for (n, index) in range.clone().enumerate() {
            let condition = match n as u32 {
                0 if index == 0 && self.begins => None,
                0 => Some(Condition::in_transaction()),
                n => Some(Condition::in_transaction_after(n - 1)),
            };
            let stmt = self.steps[index as usize].clone();
            batch.push(BatchStep { condition, stmt });
        }
        if ends {
            batch.push(BatchStep {
                condition: Some(Condition::in_transaction()),
                stmt: stmt("ROLLBACK", Vec::new(), false),
            });
        }
        batch
    }

    /// Begins the transaction: the first step, and the one that runs outside of it.
    pub fn begin(&mut self) {
        self.begins = true;
        self.add("BEGIN IMMEDIATE", Vec::new());
    }

    /// Adds a step; answers its number.
    pub fn add(&mut self, sql: impl Into<String>, args: Vec<Value>) -> u32 {
        let step = stmt(sql, args, false);
        self.bytes += bytes(&step);
        self.steps.push(step);
        self.len() - 1
    }

    pub fn page(&mut self, pgno: u32, page: &Page) {
        let args = vec![blob(page), integer(i64::from(pgno))];
        self.add(UPDATE, args);
    }

    /// Fails where another connection has committed since this stream read `version`.
    pub fn guard_version(&mut self, version: i64) -> u32 {
        let sql = format!("{FAIL} FROM pragma_data_version WHERE data_version<>?");
        self.add(sql, vec![integer(version)])
    }

    /// Fails where the database has another size.
    pub fn guard_size(&mut self, pages: u32) -> u32 {
        let sql = format!("{FAIL} FROM pragma_page_count WHERE page_count<>?");
        self.add(sql, vec![integer(i64::from(pages))])
    }

    /// Makes the allocator take new pages only.
    pub fn hide_freelist(&mut self, page1: &Page) {
        self.page(1, &without_freelist(page1));
    }

    /// Makes room for a definition, however full the pages of sqlite_schema
    /// are: to the b-tree there it is one empty page. What a connection has
    /// parsed of a page it keeps, whatever is written over it; only where a
    /// rollback puts a page back is that parsed anew (btree.c, `pageReinit`).
    fn hide_schema(&mut self, page1: &Page) {
        let mut empty = without_freelist(page1);
        let usable = PAGE_SIZE as u16 - u16::from(page1[20]);
        // A leaf of a table, without cells (file format, section 1.6).
        empty[100..108].copy_from_slice(&[0x0d, 0, 0, 0, 0, 0, 0, 0]);
        empty[105..107].copy_from_slice(&usable.to_be_bytes());
        self.page(1, &empty);
        self.add("SAVEPOINT libreplica_room", Vec::new());
        self.page(1, page1);
        self.add("ROLLBACK TO libreplica_room", Vec::new());
        self.add("RELEASE libreplica_room", Vec::new());
    }

    /// Extends the database from `page_count` to `target` pages; `name` is no
    /// object's. The pages of sqlite_schema that this touches, page 1 and the
    /// new pages have to be written afterwards. `tidy`: so that what the
    /// connection there knows of these pages holds afterwards, too, if there
    /// is room for a definition.
    pub fn grow(
        &mut self,
        page1: &Page,
        page_count: u32,
        target: u32,
        name: &str,
        tidy: bool,
    ) -> u32 {
        match tidy {
            true => self.hide_freelist(page1),
            false => self.hide_schema(page1),
        }
        let growth = target.saturating_sub(page_count);
        let tables = growth.div_ceil(ROW_PAGES).div_ceil(TABLE_ROWS - 1).max(1);
        for table in 0..tables {
            self.add(format!("CREATE TABLE {name}{table}(x)"), Vec::new());
        }
        let mut rows = growth.saturating_sub(tables + SLACK) / ROW_PAGES;
        for table in 0..tables {
            let count = rows.min(TABLE_ROWS - 1);
            rows -= count;
            if count > 0 {
                let values = vec![format!("({})", payload(ROW_PAGES)); count as usize].join(",");
                let sql = format!(
                    "INSERT INTO {name}{table} SELECT zeroblob(column1) FROM (VALUES {values})"
                );
                self.add(sql, Vec::new());
            }
        }
        // Whatever the tables took: the rest, exactly.
        let sql = format!(
            "INSERT INTO {name}{} SELECT zeroblob({LEAF_BYTES}+{OVERFLOW_BYTES}*(?1-page_count)) \
             FROM pragma_page_count WHERE page_count<?1",
            tables - 1
        );
        self.add(sql, vec![integer(i64::from(target))]);
        let guard = self.guard_size(target);
        if tidy {
            // The rows in sqlite_schema go again, and with them the pages out
            // of the b-trees that the connection has parsed.
            for table in 0..tables {
                self.add(format!("DROP TABLE {name}{table}"), Vec::new());
            }
        }
        guard
    }
}

fn payload(overflow_pages: u32) -> u32 {
    LEAF_BYTES + OVERFLOW_BYTES * overflow_pages
}

pub fn integer(n: i64) -> Value {
    ValueKind::Integer(n).into()
}

pub fn blob(bytes: &[u8]) -> Value {
    ValueKind::Blob(bytes.to_vec()).into()
}

/// Page 1 as a SQLite of `version` leaves it when it commits this image upon
/// `base` (pager.c, `pager_write_changecounter`): change counter, the same
/// again as "version-valid-for", its own version number.
pub fn stamped(image: &Page, base: &Page, version: u32) -> Box<Page> {
    let counter = u32::from_be_bytes([base[24], base[25], base[26], base[27]]).wrapping_add(1);
    let mut page = Box::new(*image);
    page[24..28].copy_from_slice(&counter.to_be_bytes());
    page[92..96].copy_from_slice(&counter.to_be_bytes());
    page[96..100].copy_from_slice(&version.to_be_bytes());
    page
}

/// Page 1 without what `stamped` puts there.
pub fn without_stamp(page: &Page) -> Page {
    let mut page = *page;
    page[24..28].fill(0);
    page[92..100].fill(0);
    page
}

/// Whether the database has auto_vacuum on: there the allocator moves pages
/// about, and each transaction leaves as few as there can be (file format,
/// section 1.3.12: the largest root page is kept in the header).
pub fn moves_pages(page1: &Page) -> bool {
    page1[52..56] != [0; 4]
}

fn without_freelist(page1: &Page) -> Page {
    let mut page1 = *page1;
    page1[32..40].fill(0);
    page1
}

/// A name that no object has.
pub fn unused_name() -> String {
    let hex: String = api::random::<6>()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("lr{hex}_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::hrana_wire::ConditionKind;

    /// Every step but BEGIN depends on the transaction and on the step before.
    fn conditional(steps: &[BatchStep]) {
        for (i, step) in steps.iter().enumerate() {
            let sql = step.stmt.sql.as_deref().unwrap();
            let Some(condition) = &step.condition else {
                assert_eq!((i, sql), (0, "BEGIN IMMEDIATE"));
                continue;
            };
            let expected = match i {
                0 => Condition::in_transaction(),
                n => Condition::in_transaction_after(n as u32 - 1),
            };
            assert_eq!(condition, &expected, "{sql}");
        }
    }

    #[test]
    fn no_step_runs_outside_its_transaction() {
        for begin in [false, true] {
            let mut steps = Steps::default();
            if begin {
                steps.begin();
                steps.guard_version(3);
            }
            steps.grow(&[7; PAGE_SIZE], 10, 20_000, "t", begin);
            steps.page(5, &[1; PAGE_SIZE]);
            steps.add("COMMIT", Vec::new());
            conditional(&steps.batch(0..steps.len(), false));
        }
        let Some(ConditionKind::And(both)) = Condition::in_transaction_after(4).kind else {
            panic!("no conjunction");
        };
        assert_eq!(
            both.conds,
            [Condition::after(4), Condition::in_transaction()]
        );
    }

    #[test]
    fn growth_leaves_a_remainder_that_fits_one_row() {
        for growth in [1, 2, 9, 1100, 1108, 1109, 1200, 7_000, 26_000, 300_000] {
            let mut steps = Steps::default();
            steps.grow(&[0; PAGE_SIZE], 100, 100 + growth, "t", false);
            let full: u32 = steps
                .steps
                .iter()
                .filter_map(|s| s.sql.as_deref())
                .map(|sql| sql.matches(&format!("({})", payload(ROW_PAGES))).count() as u32)
                .sum();
            let tables = steps.steps.iter().filter(|s| {
                s.sql
                    .as_deref()
                    .is_some_and(|sql| sql.starts_with("CREATE"))
            });
            let taken = full * ROW_PAGES + tables.count() as u32;
            assert!(taken <= growth, "{growth}");
            assert!(payload(growth - taken) < 5_000_000, "{growth}: {full} rows");
        }
    }

    #[test]
    fn page_1_is_stamped_as_sqlite_does() {
        let (mut base, image) = ([0; PAGE_SIZE], [9; PAGE_SIZE]);
        base[24..28].copy_from_slice(&255u32.to_be_bytes());
        let page = stamped(&image, &base, 3_045_001);
        assert_eq!(page[24..28], [0, 0, 1, 0]);
        assert_eq!(page[92..96], [0, 0, 1, 0]);
        assert_eq!(page[96..100], 3_045_001u32.to_be_bytes());
        assert!(page[..24].iter().chain(&page[28..92]).all(|&b| b == 9));
    }
}
