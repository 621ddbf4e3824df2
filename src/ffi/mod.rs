//! The only floor with raw pointers: the host's API table, its VFS and files,
//! shared memory, our VFS shim and connections of our own.
//!
//! A callback that SQLite calls goes through [`guard::guard`]; what cannot
//! panic (plain forwarding) does not.
#![allow(unsafe_code)]

pub mod api;
pub mod attention;
pub mod busy;
pub mod conn;
pub mod connections;
pub mod file;
pub mod fork;
pub mod fs;
pub mod function;
pub mod guard;
pub mod own;
pub mod places;
pub mod pragma;
pub mod sealed_file;
pub mod sealed_shm;
pub mod sealed_vfs;
pub mod shim_file;
mod shim_open;
pub mod shim_vfs;
pub mod shm;
pub mod statement;
pub mod thread;
pub mod vfs;
pub mod wipe;
pub mod zeroed;
