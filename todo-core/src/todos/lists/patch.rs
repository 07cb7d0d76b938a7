//! Changes of one list.

use super::{
    read::{get_list, require_change},
    types::{List, ListColor, ListName, ListPatch, ListTarget, list_columns},
};
use crate::{
    authz::{Caller, authorized},
    core::Core,
    db::value::{OneMicrosecond, Timestamp},
    error::{Error, Result},
    todos::{
        change::next_updated_at,
        version::{changing_row, is_target},
    },
};

/// Updates the fields given in `patch` (RFC 7396). An empty patch changes nothing, `updated_at`
/// included.
///
/// # Errors
/// [`Error::PreconditionFailed`] if the list has no version that `target` allows; else as
/// [`get_list`](super::get_list).
pub async fn patch_list(
    core: &Core,
    caller: &Caller,
    target: impl Into<ListTarget>,
    patch: ListPatch,
) -> Result<List> {
    const SQL: &str = concat!(
        "UPDATE lists SET name = coalesce($10, name), \
         color = CASE WHEN $11 THEN $12 ELSE color END, updated_at = ",
        next_updated_at!("$13", "$14"),
        " WHERE ",
        is_target!(),
        " AND deleted_at IS NULL AND ",
        authorized!(),
        " RETURNING ",
        list_columns!()
    );
    let (caller, target) = (*caller, target.into());
    if patch.is_empty() {
        let list = get_list(core, &caller, target.id).await?;
        return if target.versions.allows(list.version()) {
            Ok(list)
        } else {
            Err(Error::PreconditionFailed)
        };
    }
    let db = core.db();
    let now = core.now();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let update = changing_row(caller, target.id.as_uuid(), target.versions, SQL)
            .bind(patch.name.as_ref().map(ListName::as_str))
            .bind(patch.color.is_some())
            .bind(patch.color.as_ref().and_then(Option::as_ref).map(ListColor::as_str))
            .bind(Timestamp(now))
            .bind(OneMicrosecond);
        let changed = db.execute(update).await?;
        require_change(&work, caller, target, changed).await
    })
    .await
}
