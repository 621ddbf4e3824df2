//! `replica_databases`: a row for each open replica of this process.

use serde_json::Value;
use sqlite_loadable::ext::{
    sqlite3, sqlite3_context, sqlite3_value, sqlite3_vtab, sqlite3_vtab_cursor,
};
use sqlite_loadable::table::{BestIndexError, IndexInfo, VTab, VTabArguments, VTabCursor};
use sqlite_loadable::{Error, Result, api};

use super::report::{FIELDS, Report};
use crate::ffi::{function, guard, zeroed};
use crate::replica::registry;

#[repr(C)]
pub struct Databases {
    /// SQLite's part, first as it demands.
    base: sqlite3_vtab,
}

impl<'vtab> VTab<'vtab> for Databases {
    type Aux = ();
    type Cursor = Rows;

    fn connect(db: *mut sqlite3, _: Option<&()>, _: VTabArguments) -> Result<(String, Self)> {
        function::close_to_schema(db);
        let sql = format!("CREATE TABLE replica_databases({})", FIELDS.join(", "));
        Ok((
            sql,
            Databases {
                base: zeroed::vtab(),
            },
        ))
    }

    fn best_index(&self, mut info: IndexInfo) -> std::result::Result<(), BestIndexError> {
        info.set_estimated_cost(10.0);
        info.set_estimated_rows(10);
        Ok(())
    }

    fn open(&'vtab mut self) -> Result<Rows> {
        Ok(Rows {
            base: zeroed::cursor(),
            reports: Vec::new(),
            at: 0,
        })
    }
}

#[repr(C)]
pub struct Rows {
    base: sqlite3_vtab_cursor,
    reports: Vec<Report>,
    at: usize,
}

impl VTabCursor for Rows {
    fn filter(&mut self, _: i32, _: Option<&str>, _: &[*mut sqlite3_value]) -> Result<()> {
        let reports = || registry::all().iter().map(|r| Report::of(r)).collect();
        self.reports = guard::catch(reports).map_err(|_| Error::new_message("internal error"))?;
        self.at = 0;
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.at += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.at >= self.reports.len()
    }

    fn column(&self, context: *mut sqlite3_context, column: i32) -> Result<()> {
        let name = usize::try_from(column).ok().and_then(|i| FIELDS.get(i));
        let (Some(report), Some(name)) = (self.reports.get(self.at), name) else {
            api::result_null(context);
            return Ok(());
        };
        match report.field(name) {
            Value::String(text) => api::result_text(context, text)?,
            Value::Number(n) => match n.as_i64() {
                Some(n) => api::result_int64(context, n),
                None => api::result_double(context, n.as_f64().unwrap_or_default()),
            },
            _ => api::result_null(context),
        }
        Ok(())
    }

    fn rowid(&self) -> Result<i64> {
        Ok(self.at as i64)
    }
}
