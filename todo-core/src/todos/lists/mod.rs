//! Lists of todos: create, list, read, rename, delete. A todo is in one list, or in none: then it
//! is in the inbox.

pub use self::{
    create::{ListCreation, create_list, create_list_once},
    deletion::{delete_list, finish_list_deletions},
    patch::patch_list,
    read::{get_list, lists},
    types::{List, ListColor, ListName, ListPatch, ListTarget, Lists, NewList},
};

mod create;
mod deletion;
mod patch;
mod read;
mod types;

#[cfg(feature = "http")]
pub(crate) use create::{ListAnswer, create_list_or_replay, stored_list};
#[cfg(feature = "http")]
pub(crate) use read::lists_hash;
pub(super) use types::list_at;
