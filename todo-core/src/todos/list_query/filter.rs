//! The filters of a list: their shape, their parameters, and their conditions.

use chrono::{DateTime, Utc};

use super::{Sort, source::Source};
use crate::{
    db::{Dialect, Statement, value::Timestamp},
    todos::{
        due_range::{DueRange, DueSelection},
        filters::{Filters, ListFilter},
        list_types::Status,
        search::{Search, pattern},
        tags::Tag,
    },
};

/// What a list selects: its filters, with the due dates that they select at a time.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    status: Status,
    pub(super) sort: Sort,
    /// In code point order, without repetitions.
    tags: Vec<Tag>,
    any_tags: Vec<Tag>,
    due: Option<DueSelection>,
    list: Option<ListFilter>,
    search: Option<Search>,
}

/// The parts of a [`Selection`] that determine a statement's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    pub(super) status: Status,
    pub(super) tags: TagShape,
    pub(super) any_tags: bool,
    pub(super) due: DueShape,
    pub(super) list: ListFilterShape,
    pub(super) search: SearchShape,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum TagShape {
    #[default]
    None,
    One,
    Many,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum DueShape {
    #[default]
    All,
    Any,
    None,
    Range,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum ListFilterShape {
    #[default]
    All,
    Inbox,
    List,
}

/// A search with terms that are excluded has a text of its own: the others save their conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum SearchShape {
    #[default]
    None,
    Terms,
    Excluding,
}

/// The number of the first parameter of each filter: see [`Selection::bind`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameters {
    tags: usize,
    any_tags: usize,
    list: usize,
    due: usize,
    terms: usize,
    excluded: usize,
}

impl Selection {
    /// What `filters` select at the time `now`.
    pub(crate) fn of(filters: &Filters, now: DateTime<Utc>) -> Self {
        let set = |tags: &[Tag]| {
            let mut tags = tags.to_vec();
            tags.sort();
            tags.dedup();
            tags
        };
        let mut any_tags = set(&filters.any_tags);
        let mut tags = filters.tags.clone();
        // One of one tag.
        if any_tags.len() == 1 {
            tags.append(&mut any_tags);
        }
        Self {
            status: filters.status,
            sort: Sort { by: filters.sort_by, order: filters.order },
            tags: set(&tags),
            any_tags,
            due: DueSelection::of(filters, now),
            list: filters.list,
            search: filters.q.clone(),
        }
    }

    pub(crate) fn search(&self) -> Option<&Search> {
        self.search.as_ref()
    }

    /// A text that determines the due dates that are selected: the part of a selection that is not
    /// in the filters.
    pub(crate) fn due_text(&self) -> String {
        match &self.due {
            Some(DueSelection::Range(DueRange { dates, instants: (from, until) })) => {
                let (from, until) = (from.timestamp_micros(), until.timestamp_micros());
                format!("{}.{}.{from}.{until}", dates.0, dates.1)
            }
            Some(DueSelection::Any | DueSelection::None) | None => String::new(),
        }
    }

    pub(super) fn shape(&self) -> Filter {
        Filter {
            status: self.status,
            tags: match self.tags.len() {
                0 => TagShape::None,
                1 => TagShape::One,
                _ => TagShape::Many,
            },
            any_tags: !self.any_tags.is_empty(),
            due: match self.due {
                None => DueShape::All,
                Some(DueSelection::Any) => DueShape::Any,
                Some(DueSelection::None) => DueShape::None,
                Some(DueSelection::Range(_)) => DueShape::Range,
            },
            list: match self.list {
                None => ListFilterShape::All,
                Some(ListFilter::Inbox) => ListFilterShape::Inbox,
                Some(ListFilter::List(_)) => ListFilterShape::List,
            },
            search: match &self.search {
                None => SearchShape::None,
                Some(search) if search.excluded().is_empty() => SearchShape::Terms,
                Some(_) => SearchShape::Excluding,
            },
        }
    }

    /// Binds the values of the filters, in the order of [`Parameters`].
    pub(super) fn bind(&self, mut statement: Statement) -> Statement {
        match &*self.tags {
            [] => {}
            [tag] => statement = statement.bind(tag.as_str()).bind(all_tags_pattern(&self.tags)),
            tags => statement = statement.bind(json(tags)).bind(all_tags_pattern(tags)),
        }
        if !self.any_tags.is_empty() {
            let patterns: Vec<String> = self
                .any_tags
                .iter()
                .map(|tag| all_tags_pattern(std::slice::from_ref(tag)))
                .collect();
            statement = statement.bind(json(&self.any_tags)).bind(json(&patterns));
        }
        if let Some(ListFilter::List(id)) = self.list {
            statement = statement.bind(id);
        }
        if let Some(DueSelection::Range(range)) = self.due {
            let (keys, sure_keys) = (range.keys(), range.sure_keys());
            statement = statement
                .bind(keys.0)
                .bind(keys.1)
                .bind(sure_keys.0)
                .bind(sure_keys.1)
                .bind(range.dates.0)
                .bind(range.dates.1)
                .bind(Timestamp(range.instants.0))
                .bind(Timestamp(range.instants.1));
        }
        let Some(search) = &self.search else { return statement };
        for index in 0..Search::MAX_TERMS {
            let term = search.terms().get(index);
            statement = statement.bind(term.map_or_else(|| "%".to_owned(), |term| pattern(term)));
        }
        if !search.excluded().is_empty() {
            for index in 0..Search::MAX_TERMS {
                // No folded text is empty.
                let term = search.excluded().get(index);
                statement = statement.bind(term.map(|term| pattern(term)).unwrap_or_default());
            }
        }
        statement
    }
}

fn json<T: serde::Serialize>(texts: &[T]) -> String {
    serde_json::to_string(texts).unwrap_or_else(|_| "[]".to_owned())
}

/// The pattern of the tags of a todo that include `tags`, in code point order. Stored tags are a
/// JSON array in this order, here with a comma instead of the bracket before the first. No tag
/// contains a comma: one before a quote is the start of a tag, and the quote after it is its end.
fn all_tags_pattern(tags: &[Tag]) -> String {
    let mut all = String::new();
    for tag in tags {
        let json = serde_json::to_string(tag).unwrap_or_default();
        all.push_str(pattern(&format!(",{json}")).trim_end_matches('%'));
    }
    all.push('%');
    all
}

impl Parameters {
    /// The parameters of a shape, of which the first has this number.
    pub(super) fn of(filter: Filter, first: usize) -> Self {
        let mut next = first;
        let mut take = |count, is_there: bool| {
            let number = next;
            next += if is_there { count } else { 0 };
            number
        };
        Self {
            tags: take(2, filter.tags != TagShape::None),
            any_tags: take(2, filter.any_tags),
            list: take(1, filter.list == ListFilterShape::List),
            due: take(8, filter.due == DueShape::Range),
            terms: take(Search::MAX_TERMS, filter.search != SearchShape::None),
            excluded: take(Search::MAX_TERMS, filter.search == SearchShape::Excluding),
        }
    }

    /// The tag, or the JSON array of the tags.
    pub(super) fn tags(self) -> String {
        format!("${}", self.tags)
    }

    /// The JSON array of the tags one of which is required.
    pub(super) fn any_tags(self) -> String {
        format!("${}", self.any_tags)
    }

    pub(super) fn list(self) -> String {
        format!("${}", self.list)
    }

    /// The first and the last key that can be in the range of due dates.
    pub(super) fn keys(self) -> [String; 2] {
        [format!("${}", self.due), format!("${}", self.due + 1)]
    }

    /// The first and the last key that are certainly in it.
    pub(super) fn sure_keys(self) -> [String; 2] {
        [format!("${}", self.due + 2), format!("${}", self.due + 3)]
    }

    /// The condition of the due dates in the range.
    pub(super) fn is_due(self) -> String {
        let [first, last, from, until] = [4, 5, 6, 7].map(|index| self.due + index);
        format!(
            "CASE WHEN due_at IS NULL THEN due_date BETWEEN ${first} AND ${last} \
             ELSE due_at >= ${from} AND due_at < ${until} END"
        )
    }
}

impl Filter {
    /// Whether there is no filter but by completion.
    pub(super) fn is_plain(self) -> bool {
        self == Self::plain(self.status)
    }

    pub(super) fn plain(status: Status) -> Self {
        Self {
            status,
            tags: TagShape::None,
            any_tags: false,
            due: DueShape::All,
            list: ListFilterShape::All,
            search: SearchShape::None,
        }
    }

    /// The conditions of the filters that the rows of a source do not meet anyway, each with an
    /// AND before it. None of them is one that an index could be used for.
    pub(super) fn conditions(
        self,
        dialect: Dialect,
        numbers: Parameters,
        source: Source,
    ) -> String {
        let mut conditions = Vec::new();
        match self.list {
            ListFilterShape::List if source != Source::List => {
                conditions.push(format!("(list_id = {}) IS TRUE", numbers.list()));
            }
            ListFilterShape::Inbox => conditions.push("list_id IS NULL".to_owned()),
            ListFilterShape::List | ListFilterShape::All => {}
        }
        match self.due {
            DueShape::Any if source != Source::Due => conditions.push("NOT undated".to_owned()),
            DueShape::None => conditions.push("undated".to_owned()),
            DueShape::Range => conditions.push(numbers.is_due()),
            DueShape::Any | DueShape::All => {}
        }
        let tags = "',' || substr(tags, 2)";
        let is_implied = source == Source::Tag && self.tags == TagShape::One;
        if self.tags != TagShape::None && !is_implied {
            conditions.push(format!("{tags} LIKE ${} ESCAPE '\\'", numbers.tags + 1));
        }
        if self.any_tags && source != Source::AnyTag {
            let patterns = json_values(dialect, &format!("${}", numbers.any_tags + 1));
            conditions.push(format!(
                "tags <> '[]' AND EXISTS (SELECT 1 FROM {patterns} AS wanted \
                 WHERE {tags} LIKE wanted.value ESCAPE '\\')"
            ));
        }
        let terms = |first: usize| first..first + Search::MAX_TERMS;
        if self.search != SearchShape::None {
            conditions
                .extend(terms(numbers.terms).map(|n| format!("search LIKE ${n} ESCAPE '\\'")));
        }
        if self.search == SearchShape::Excluding {
            conditions.extend(
                terms(numbers.excluded).map(|n| format!("search NOT LIKE ${n} ESCAPE '\\'")),
            );
        }
        let all = super::join(&conditions, " AND ", Clone::clone);
        match dialect {
            _ if all.is_empty() => all,
            Dialect::Sqlite => format!(" AND {all}"),
            // It would else expect patterns and unknown lists to leave few todos, and read and sort
            // all of a user, or of all users. Of an expression it expects half.
            Dialect::Postgres => format!(" AND CASE WHEN {all} THEN TRUE ELSE FALSE END"),
        }
    }
}

/// SQL table of the texts in a JSON array, with the column `value`.
pub(super) fn json_values(dialect: Dialect, array: &str) -> String {
    match dialect {
        Dialect::Sqlite => format!("json_each({array})"),
        Dialect::Postgres => {
            format!("(SELECT json_array_elements_text(CAST({array} AS json)) AS value)")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::todos::Tags;

    /// LIKE with a pattern whose only wildcard is `%`, and with `\` as its escape.
    fn is_like(text: &str, pattern: &str) -> bool {
        let mut parts = vec![String::new()];
        let mut rest = pattern.chars();
        while let Some(c) = rest.next() {
            match c {
                '%' => parts.push(String::new()),
                '\\' => parts.last_mut().unwrap().extend(rest.next()),
                c => parts.last_mut().unwrap().push(c),
            }
        }
        let mut rest = text;
        parts.iter().all(|part| match rest.find(part.as_str()) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    }

    fn tag() -> impl Strategy<Value = String> {
        "[ab\"\\\\%_\\[\\]é]{1,4}"
    }

    proptest! {
        #[test]
        fn a_pattern_of_tags_is_that_of_the_todos_that_have_them(
            tags in prop::collection::vec(tag(), 0..5), wanted in prop::collection::vec(tag(), 1..3),
            some in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let tags = Tags::parse(&tags).unwrap();
            let mut wanted = wanted;
            if !tags.is_empty() && !some.is_empty() {
                let all: Vec<&Tag> = tags.iter().collect();
                wanted = some.iter().map(|some| some.get(&all).as_str().to_owned()).collect();
            }
            let wanted = Tags::parse(&wanted).unwrap();
            let has_all = wanted.iter().all(|tag| tags.iter().any(|other| other == tag));
            let stored = tags.to_stored().replacen('[', ",", 1);
            let wanted: Vec<Tag> = wanted.iter().cloned().collect();
            prop_assert_eq!(is_like(&stored, &all_tags_pattern(&wanted)), has_all);
        }
    }
}
