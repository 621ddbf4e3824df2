//! The options of a replica: their names, their values, and what was given
//! where. Where they come from (URI parameters, `replica_open`'s JSON, the
//! environment) is the caller's affair.
//!
//! No error here repeats a value: it may be a secret, or hold one.

mod given;
mod names;
mod options;
mod secret;
mod url;

pub use self::given::Given;
pub use self::options::{Options, WriteLock, WritePath};
pub use self::secret::Secret;
pub use self::url::SyncUrl;
