//! Request heads that a server reads itself: the memory of an incomplete one, and the response to
//! one that never becomes a request.

use std::{fmt, net::IpAddr};

use crate::{
    clock::new_id,
    http::{
        Api,
        budget::{Budget, Payer, Reservation},
        problem::ApiError,
    },
};

/// Why a request head was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// It did not arrive in time: 408.
    Timeout,
    /// Its [`HeadMemory`] could not grow: 503.
    OutOfMemory,
}

/// The memory of one connection's incomplete request heads, charged to
/// [`ApiOptions::body_memory_bytes`](super::ApiOptions::body_memory_bytes) and to the share of the
/// client's address. Dropping it releases the memory.
pub struct HeadMemory {
    budget: Budget,
    payer: Payer,
    reservation: Option<Reservation>,
}

impl HeadMemory {
    /// Grows the charge to `bytes` in total. If they are not available, the charge stays as it is,
    /// a refusal is counted, and the result is `false`.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        if let Some(reservation) = &mut self.reservation {
            return reservation.grow(bytes);
        }
        self.reservation = self.budget.reserve(self.payer, bytes);
        self.reservation.is_some()
    }

    /// Releases the charge.
    pub fn release(&mut self) {
        self.reservation = None;
    }
}

impl fmt::Debug for HeadMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadMemory").finish_non_exhaustive()
    }
}

impl Api {
    /// The memory of the request heads of a connection from `client`, at first none. Without an
    /// address only the total is limited.
    #[must_use]
    pub fn head_memory(&self, client: Option<IpAddr>) -> HeadMemory {
        let budget = self.budget().clone();
        HeadMemory { budget, payer: Payer::new(client, None), reservation: None }
    }

    /// The complete HTTP/1 response, as sent, to a request whose head does not arrive in time or is
    /// rejected for lack of memory.
    #[must_use]
    pub fn head_error_response(&self, error: HeadError) -> Vec<u8> {
        let now = self.core().now();
        let id = new_id(now).to_string();
        let failure = match error {
            HeadError::Timeout => ApiError::HeadTimeout,
            HeadError::OutOfMemory => ApiError::BodyMemory,
        };
        let mut response = failure.respond(&id);
        // It is not known here whether the connection is TLS.
        self.add_common_headers(response.headers_mut(), &id, false);
        let date = now.format("%a, %d %b %Y %H:%M:%S GMT");
        let body = response.body().whole().cloned().unwrap_or_default();
        let length = body.len();
        let mut bytes = format!(
            "HTTP/1.1 {}\r\nDate: {date}\r\nConnection: close\r\nContent-Length: {length}\r\n",
            response.status(),
        )
        .into_bytes();
        for (name, value) in response.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        bytes
    }
}
