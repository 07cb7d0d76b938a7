//! Finds the end of a request's head in the bytes of a connection, without parsing it.

/// State of the next request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Empty,
    /// Its first bytes, up to four, and its last four.
    Partial {
        first: u32,
        last: u32,
    },
    /// Fully read: the response is hyper's.
    Complete,
    /// Not a head but the preface of HTTP/2 (RFC 9113, section 3.4).
    Http2,
}

/// First bytes of the HTTP/2 preface, and last bytes of a head.
const PREFACE: [u8; 4] = *b"PRI ";
const END: [u8; 4] = *b"\r\n\r\n";

impl Head {
    pub(super) fn read(&mut self, bytes: &[u8]) {
        // Fast path: most reads are exactly one complete head.
        if *self == Self::Empty && bytes.ends_with(&END) && !bytes.starts_with(&PREFACE) {
            *self = Self::Complete;
            return;
        }
        for byte in bytes {
            let (first, last) = match *self {
                Self::Empty => (0, 0),
                Self::Partial { first, last } => (first, last),
                Self::Complete | Self::Http2 => return,
            };
            let last = last << 8 | u32::from(*byte);
            let first = if first >> 24 == 0 { last } else { first };
            *self = match last {
                _ if first == u32::from_be_bytes(PREFACE) => Self::Http2,
                // Lines may end without the CR (RFC 9112, section 2.2).
                last if last == u32::from_be_bytes(END) || last & 0xffff == 0x0a0a => {
                    Self::Complete
                }
                last => Self::Partial { first, last },
            };
        }
    }

    /// A response is being written: the next bytes read belong to another request.
    pub(super) fn response_started(&mut self) {
        if *self != Self::Http2 {
            *self = Self::Empty;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_after(reads: &[&str]) -> Head {
        let mut head = Head::Empty;
        for read in reads {
            head.read(read.as_bytes());
        }
        head
    }

    #[test]
    fn a_head_ends_with_an_empty_line_however_it_arrives() {
        for partial in [&["G"][..], &["GET / HTTP/1.1\r\nHost: a\r\n"], &["GET /", "\r\n", "\r"]] {
            assert!(matches!(head_after(partial), Head::Partial { .. }), "{partial:?}");
        }
        for complete in
            [&["GET / HTTP/1.1\r\nHost: a\r\n\r\nmore"][..], &["GET /\r", "\n\r", "\n"], &["G\n\n"]]
        {
            assert_eq!(head_after(complete), Head::Complete, "{complete:?}");
        }
        assert_eq!(head_after(&[]), Head::Empty);
    }

    #[test]
    fn an_http2_connection_has_no_deadlines() {
        for preface in [&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"][..], &["P", "RI", " "]] {
            let mut head = head_after(preface);
            head.response_started();
            head.read(b"frames");
            assert_eq!(head, Head::Http2, "{preface:?}");
        }
        assert_ne!(head_after(&["PRIVATE / HTTP/1.1\r\n"]), Head::Http2);
    }
}
