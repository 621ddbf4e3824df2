//! From the rows of the primary's state to its bytes (see `undo`).

use super::apply::{Located, Message};
use super::files::Hold;
use super::local::Local;
use super::record::Record;
use super::undo;
use crate::error::{Error, Result};
use crate::ffi::vfs::BaseVfs;
use crate::remote::{Head, Reached};

/// Why the primary's pages cannot be taken upon this state, in words.
pub fn lost(vfs: &BaseVfs, path: &str, record: &Record, head: &Head) -> Result<Option<String>> {
    let Some(undo) = &record.undo else {
        return Ok(None);
    };
    if head.log_id == record.position.log_id && head.frame_no < undo.frame_no {
        return Ok(Some(format!(
            "the primary lost frames: it is at {}, and this replica has committed frame {} there",
            head.frame_no
                .map_or("its beginning".into(), |n| n.to_string()),
            undo.frame_no.unwrap_or(0)
        )));
    }
    match undo::read(vfs, path, undo, |_, _| Ok(())) {
        Ok(()) => Ok(None),
        Err(Error::Diverged(why)) => Ok(Some(why)),
        Err(e) => Err(e),
    }
}

impl Local {
    /// Puts back the pages of a state at which the primary still is.
    pub fn reconcile(&mut self, base: &Located, hold: Hold) -> Result<Option<Record>> {
        let Some(undo) = &base.record.undo else {
            return Ok(Some(base.record.clone()));
        };
        let reached = Reached {
            position: base.record.position.clone(),
            page_count: undo.page_count,
            frames: 0,
        };
        self.increment(base, hold, &mut [Message::Finish(reached)].into_iter())
    }
}
