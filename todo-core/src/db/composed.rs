//! Texts of statements that are composed from pieces, cached by the shape of the statement.

use std::{
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use hashlink::LruCache;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// Maximum number of composed texts in one cache. Each may be prepared on every connection, so it
/// is also a part of the drivers' caches of prepared statements.
pub(crate) const MAX_COMPOSED: usize = 64;
/// The number of caches of one dialect.
pub(crate) const COMPOSED_CACHES: usize = 2;

/// The composed texts of a dialect by shape, the least recently used of which are dropped. A cached
/// text is shared: getting it neither composes nor allocates.
pub(crate) struct ComposedTexts<S>(Mutex<LruCache<S, Arc<str>>>);

impl<S: Eq + Hash> ComposedTexts<S> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MAX_COMPOSED)))
    }

    /// The text of `shape`. Values are bound, never a part of a text.
    pub(crate) fn get(&self, shape: S, compose: impl FnOnce(&S) -> String) -> SqlStr {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = if let Some(text) = texts.get(&shape) {
            Arc::clone(text)
        } else {
            let text: Arc<str> = compose(&shape).into();
            texts.insert(shape, Arc::clone(&text));
            text
        };
        AssertSqlSafe(text).into_sql_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_text_is_composed_once() {
        let texts = ComposedTexts::new();
        let first = texts.get(1, |shape| format!("SELECT {shape}"));
        let again = texts.get(1, |_| panic!("composed again"));
        assert_eq!(again.as_str(), "SELECT 1");
        assert!(std::ptr::eq(first.as_str(), again.as_str()), "shared, not copied");
    }

    #[test]
    fn the_cache_is_bounded_and_drops_the_least_recently_used() {
        let texts = ComposedTexts::new();
        for shape in 0..MAX_COMPOSED {
            texts.get(shape, |shape| format!("SELECT {shape}"));
        }
        texts.get(0, |_| panic!("dropped too early"));
        texts.get(MAX_COMPOSED, |shape| format!("SELECT {shape}"));
        assert_eq!(texts.0.lock().unwrap().len(), MAX_COMPOSED);
        texts.get(0, |_| panic!("the most recently used was dropped"));
        let mut composed = false;
        texts.get(1, |shape| {
            composed = true;
            format!("SELECT {shape}")
        });
        assert!(composed, "the least recently used was kept");
    }
}
