//! The tokens in links: the sealed id of a mail. No token is stored, and a repeated mail has the
//! same one.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::MailKind;
use crate::crypto::tokens::Tokens;

/// Length of the context of a seal, as of a list's cursor: contexts of one length are unambiguous.
const CONTEXT_BYTES: usize = 19;

/// The token of a mail: 43 characters of base64url.
pub(crate) fn seal_link(tokens: &Tokens, kind: MailKind, id: Uuid) -> String {
    tokens.seal(id.as_bytes(), &context(kind))
}

/// The id and the kind of the mail with this token, if it is one of `kinds`.
pub(crate) fn open_link(
    tokens: &Tokens,
    kinds: &[MailKind],
    token: &str,
) -> Option<(MailKind, Uuid)> {
    kinds.iter().find_map(|kind| {
        let id = tokens.unseal(token, &context(*kind))?;
        Some((*kind, Uuid::from_slice(&id).ok()?))
    })
}

fn context(kind: MailKind) -> [u8; CONTEXT_BYTES] {
    let hash = Sha256::new().chain_update(b"todo mail link v1 ").chain_update(kind.as_str());
    let hash = hash.finalize();
    let mut context = [0; CONTEXT_BYTES];
    context.copy_from_slice(&hash[..CONTEXT_BYTES]);
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tokens::test_tokens;

    #[test]
    fn a_token_opens_only_as_a_link_of_its_kind() {
        let tokens = test_tokens();
        let id = Uuid::from_u128(7);
        let token = seal_link(&tokens, MailKind::Reset, id);
        assert_eq!(token.len(), 43);
        assert_eq!(token, seal_link(&tokens, MailKind::Reset, id));
        let open = |kinds: &[MailKind], token: &str| open_link(&tokens, kinds, token);
        assert_eq!(open(&[MailKind::Reset], &token), Some((MailKind::Reset, id)));
        assert_eq!(open(&[MailKind::Verify, MailKind::Change], &token), None);
        for at in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(open(&[MailKind::Reset], &String::from_utf8(altered).unwrap()), None);
        }
    }

    /// The contexts of both have one length, and a cursor is longer.
    #[test]
    fn a_cursor_is_no_link() {
        let tokens = test_tokens();
        for context in [[0; CONTEXT_BYTES], [1; CONTEXT_BYTES]] {
            let cursor = tokens.seal(&[7; 16], &context);
            assert_eq!(open_link(&tokens, &MailKind::ALL, &cursor), None);
        }
    }
}
