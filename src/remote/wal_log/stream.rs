//! The primary's log as an endless stream (LogEntries): a frame arrives within
//! a millisecond of its commit.

use super::{Answer, Item, LogFrames, Position, Progress, Status, WalLog, decode, grpc_web};
use super::{MAX_RPC_FRAME, PageSink, Refusal, RpcFrame, refusal};
use crate::error::Result;
use crate::remote::{Followed, Follower, Remote};
use crate::wal::Page;

const LOG_ENTRIES: &str = "/wal_log.ReplicationLog/LogEntries";

/// Tells a follower the frame's number along with its page.
struct Numbered<'a> {
    frame_no: u64,
    checksum: u64,
    follower: &'a mut dyn Follower,
}

impl PageSink for Numbered<'_> {
    fn page(&mut self, pgno: u32, page: &Page) -> Result<()> {
        self.follower.page(self.frame_no, self.checksum, pgno, page)
    }
}

impl WalLog {
    pub(super) fn follow_log(
        &mut self,
        from: &Position,
        follower: &mut dyn Follower,
    ) -> Result<Followed> {
        let head = self.hello()?;
        // Asked for frames that it does not have, the primary would be silent.
        if head.log_id != from.log_id || head.frame_no < from.frame_no {
            return Ok(Followed::SyncFirst);
        }
        let mut progress = Progress::from(from);
        let answer = grpc_web::call(
            &self.http,
            LOG_ENTRIES,
            self.headers(),
            &super::LogOffset {
                next_offset: progress.next,
            },
        )?;
        let mut stream = match answer {
            Answer::Stream(stream) => stream,
            Answer::Refused(status) => return ended(status),
        };
        follower.opened(&head)?;
        loop {
            // Silence is no failure here: somebody else looks whether the
            // primary is still there.
            while !stream.wait()? {
                follower.silent()?;
            }
            match stream.next()? {
                Item::Message => {
                    let message: RpcFrame = stream.message(MAX_RPC_FRAME as u32)?;
                    if !take(&message.data, &mut progress, follower)? {
                        return Ok(Followed::SyncFirst);
                    }
                    if progress.page_count != 0 {
                        let position = Position {
                            log_id: from.log_id.clone(),
                            frame_no: Some(progress.next - 1),
                            checksum: progress.chain,
                        };
                        follower.commit(position, progress.page_count)?;
                        progress.page_count = 0;
                    }
                }
                Item::End(None) => return Ok(Followed::Ended),
                Item::End(Some(status)) => return ended(status),
            }
        }
    }
}

/// Checks a frame as a pull does and hands its page on; false if it does not
/// follow the position that was asked from.
fn take(data: &[u8], progress: &mut Progress, follower: &mut dyn Follower) -> Result<bool> {
    let frame = decode(data)?;
    LogFrames {
        progress,
        sink: &mut Numbered {
            frame_no: frame.frame_no,
            checksum: frame.checksum,
            follower,
        },
    }
    .take(&frame, &[])
    .map(|other| other.is_none())
}

fn ended(status: Status) -> Result<Followed> {
    refusal(status).map(|refusal| match refusal {
        Refusal::NeedSnapshot => Followed::SyncFirst,
        Refusal::NoHello => Followed::Ended,
    })
}
