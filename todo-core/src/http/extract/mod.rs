//! Reading a request: the check of its head, the bearer token, the query and the JSON body. These
//! files check shapes; the library's types validate values.

pub(crate) use self::{
    body::{Incoming, drain},
    form::Form,
    head::{bearer, check_request_head, head_bytes, is_server_options},
    members::{
        Change, ChangeOrNull, Field, JsonBody, Nullable, Optional, OrDefault, OrNull, json_body,
    },
    query::Query,
};

mod body;
mod form;
mod head;
mod members;
mod query;
