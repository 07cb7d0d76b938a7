//! The places where a todo matches a search.

use std::{borrow::Cow, iter, ops::Range};

use serde::Serialize;
use unicode_normalization::{
    IsNormalized, UnicodeNormalization, char::canonical_combining_class, is_nfkc_quick,
};

use super::{Description, Todo, fold::fold, search::Search};

/// Maximum number of matches of one todo; those after them are not listed.
const MAX_MATCHES: usize = 100;
/// Maximum size of a match as JSON in bytes, with a comma.
const MATCH_BYTES: usize = 50;

/// A place in a text of a todo where terms of a search are: the characters (Unicode scalar values)
/// from `start` until before `end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Match {
    /// `title`, `description`, or `tags/<index>`.
    pub field: Cow<'static, str>,
    /// The number of characters before the place.
    pub start: usize,
    /// The number of characters before its end.
    pub end: usize,
}

/// The places where the terms of a search are in a todo, in the order title, description, tags, and
/// in each text from its start. Places that overlap or touch are one. A place has whole characters
/// of the text, also if a term is a part of one: `f` of `\u{fb01}`.
pub(super) fn matches(todo: &Todo, search: &Search) -> Vec<Match> {
    let mut matches = Vec::new();
    let mut add = |field: Cow<'static, str>, text: &str| {
        for Range { start, end } in places(text, search.terms()) {
            if matches.len() == MAX_MATCHES {
                break;
            }
            matches.push(Match { field: field.clone(), start, end });
        }
    };
    add("title".into(), todo.title.as_str());
    add("description".into(), todo.description.as_ref().map_or("", Description::as_str));
    for (index, tag) in todo.tags.iter().enumerate() {
        add(format!("tags/{index}").into(), tag.as_str());
    }
    matches
}

/// Maximum size of matches as JSON, in bytes.
pub(super) fn max_json_len(matches: &[Match]) -> usize {
    matches.len() * MATCH_BYTES + r#""matches":[],"#.len()
}

/// The places of the terms in a text, from its start, as ranges of characters.
fn places(text: &str, terms: &[String]) -> Vec<Range<usize>> {
    let folded = fold(text);
    let mut found: Vec<Range<usize>> =
        terms.iter().flat_map(|term| occurrences(&folded, term)).collect();
    if found.is_empty() {
        return found;
    }
    found.sort_by_key(|range| (range.start, range.end));
    let found = if text.is_ascii() { found } else { unfold(text, folded.len(), &found) };
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The ranges of bytes that are `term`; they may overlap.
fn occurrences(text: &str, term: &str) -> impl Iterator<Item = Range<usize>> {
    let step = term.chars().next().map_or(1, char::len_utf8);
    let mut from = 0;
    iter::from_fn(move || {
        let at = from + text.get(from..)?.find(term)?;
        from = at + step;
        Some(at..at + term.len())
    })
}

/// The characters of a text that ranges of bytes of its folded form come from. The ranges are in
/// the order of their starts.
///
/// A text is folded in pieces, each of which is folded by itself as it is in the text: so the
/// places of its pieces are known in both forms.
fn unfold(text: &str, folded_len: usize, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    // The end of each piece, in characters of the text and in bytes of the folded form.
    let mut ends: Vec<(usize, usize)> = Vec::new();
    let (mut chars, mut bytes) = (0, 0);
    let mut piece = String::new();
    let mut end_piece = |piece: &mut String| {
        chars += piece.chars().count();
        bytes += fold(piece).len();
        piece.clear();
        ends.push((chars, bytes));
        bytes
    };
    for character in text.chars() {
        if !piece.is_empty() && begins_piece(character) {
            end_piece(&mut piece);
        }
        piece.push(character);
    }
    if end_piece(&mut piece) != folded_len {
        // Not seen in any text: the place is then the whole text.
        return iter::once(0..text.chars().count()).collect();
    }
    let start = |byte| {
        let before = ends.partition_point(|(_, bytes)| *bytes <= byte);
        before.checked_sub(1).and_then(|last| ends.get(last)).map_or(0, |(chars, _)| *chars)
    };
    let end = |byte| {
        let piece = ends.partition_point(|(_, bytes)| *bytes < byte);
        ends.get(piece).or(ends.last()).map_or(0, |(chars, _)| *chars)
    };
    ranges.iter().map(|range| start(range.start)..end(range.end)).collect()
}

/// Whether normalization never combines a character with those before it (Unicode Standard Annex
/// 15, section 9.1).
fn begins_piece(character: char) -> bool {
    let Some(first) = iter::once(character).nfkd().next() else { return false };
    canonical_combining_class(first) == 0 && is_nfkc_quick(iter::once(first)) == IsNormalized::Yes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str, terms: &[&str]) -> Vec<(usize, usize)> {
        let terms: Vec<String> = terms.iter().map(|term| fold(term)).collect();
        places(text, &terms).into_iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn places_are_characters_of_the_text() {
        for (text, terms, expected) in [
            ("Buy milk", &["MILK"][..], &[(4, 8)][..]),
            ("aaaa b a", &["aa", "b"], &[(0, 4), (5, 6)]),
            ("abcdef", &["abc", "def", "cd"], &[(0, 6)]),
            ("abcdef", &["x"], &[]),
            ("\u{130}x\u{130}x", &["x"], &[(1, 2), (3, 4)]),
            ("\u{130}x", &["i"], &[(0, 1)]),
            ("o\u{fb01}x", &["f"], &[(1, 2)]),
            ("o\u{fb01}x", &["ix"], &[(1, 3)]),
            ("\u{ff76}\u{ff9e}\u{ff76}", &["\u{30ac}"], &[(0, 2)]),
            ("e\u{301}a", &["\u{e9}"], &[(0, 2)]),
            ("\u{1112}\u{1161}\u{11ab}x", &["\u{d55c}"], &[(0, 3)]),
            ("\u{39f}\u{394}\u{39f}\u{3a3} x", &["\u{3b4}\u{3bf}\u{3c2}"], &[(1, 4)]),
            ("a\u{1f469}\u{200d}\u{1f680}b", &["\u{1f680}"], &[(3, 4)]),
            ("\u{fdfa}!", &["!"], &[(1, 2)]),
        ] {
            assert_eq!(found(text, terms), expected, "{text} {terms:?}");
        }
    }

    #[test]
    fn matches_are_bounded_and_in_order() {
        let search = Search::parse("a").unwrap();
        let all = "a b ".repeat(200);
        let list: Vec<Match> = places(&all, search.terms())
            .into_iter()
            .map(|Range { start, end }| Match { field: "title".into(), start, end })
            .collect();
        assert_eq!(list.len(), 200);
        let json = serde_json::to_string(&list).unwrap();
        assert!(json.len() <= max_json_len(&list));
    }

    proptest! {
        /// Each piece is folded as in its text; a place of a folded part has that part.
        #[test]
        fn a_text_is_folded_in_pieces(
            text in "([\u{0}-\u{7f}]|\\PC|[\u{300}-\u{36f}\u{1100}-\u{11ff}\u{ff61}-\u{ff9f}\u{3a3}\u{130}]){1,12}",
            at in any::<prop::sample::Index>(), length in 1_usize..4,
        ) {
            let folded = fold(&text);
            let chars: Vec<char> = folded.chars().collect();
            let from = at.index(chars.len());
            let term: String = chars[from..].iter().take(length).collect();
            let places = places(&text, std::slice::from_ref(&term));
            prop_assert!(!places.is_empty());
            for range in places {
                let place: String =
                    text.chars().skip(range.start).take(range.end - range.start).collect();
                prop_assert!(fold(&place).len() >= term.len(), "{place:?} for {term:?}");
                // But for the sigma at the end of a word.
                let plain = |text: String| text.replace('\u{3c2}', "\u{3c3}");
                let (place, term) = (plain(fold(&place)), plain(term.clone()));
                prop_assert!(place.contains(&term), "{place:?} for {term:?}");
            }
        }
    }
}
