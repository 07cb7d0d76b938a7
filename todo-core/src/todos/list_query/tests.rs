use std::collections::BTreeSet;

use chrono::DateTime;

use super::*;
use crate::todos::ListQuery;

fn text(dialect: Dialect, query: &ListQuery, start: Start) -> String {
    let selection = Selection::of(&query.filters, DateTime::UNIX_EPOCH);
    let (filter, sort) = (selection.shape(), selection.sort);
    let shape = ListShape::Page { filter, sort, start, counts: query.include_total };
    shape.text(dialect).as_str().to_owned()
}

/// Every plain shape.
fn plain() -> Vec<ListShape> {
    let mut shapes = Vec::new();
    for &status in Status::ALL {
        let filter = Filter::plain(status);
        shapes.push(ListShape::Total { filter, counts: true });
        for by in ListShape::PLAIN {
            for &order in SortOrder::ALL {
                let sort = Sort { by, order };
                shapes.extend([Start::First, Start::InHead].map(|start| ListShape::Page {
                    filter,
                    sort,
                    start,
                    counts: true,
                }));
            }
        }
    }
    shapes
}

#[test]
fn each_plain_shape_has_its_own_text_that_stays_cached() {
    let shapes = plain();
    assert_eq!(shapes.len(), ListShape::COUNT);
    for dialect in [Dialect::Sqlite, Dialect::Postgres] {
        let texts: Vec<SqlStr> = shapes.iter().map(|shape| shape.text(dialect)).collect();
        let distinct: BTreeSet<&str> = texts.iter().map(SqlStr::as_str).collect();
        assert_eq!(distinct.len(), shapes.len());
        for tag in 0..2 * MAX_COMPOSED {
            let query = ListQuery::new().due_after(Some("2026-12-01".parse().unwrap()));
            let filter = Selection::of(&query.filters, DateTime::UNIX_EPOCH).shape();
            let sort = Sort { by: SortBy::Due, order: SortOrder::Asc };
            let start = if tag % 2 == 0 { Start::First } else { Start::InHead };
            ListShape::Page { filter, sort, start, counts: false }.text(dialect);
        }
        for (shape, text) in shapes.iter().zip(&texts) {
            assert!(std::ptr::eq(shape.text(dialect).as_str(), text.as_str()), "{shape:?}");
        }
    }
}

#[test]
fn a_page_is_composed_from_its_pieces() {
    let query =
        ListQuery::new().status(Status::Pending).sort_by(SortBy::Title).order(SortOrder::Desc);
    let text = text(Dialect::Sqlite, &query, Start::InHead);
    for piece in [
        "FROM todos INDEXED BY todos_by_title WHERE user_id = $1 AND completed = FALSE",
        "(title_key, created_at, id) < ($5, $6, $7)",
        "(SELECT pending FROM todo_counts WHERE user_id = $1) AS total",
        "ORDER BY title_key DESC, created_at DESC, id DESC LIMIT $4",
    ] {
        assert!(text.contains(piece), "{piece} in {text}");
    }
}

#[test]
fn the_number_of_values_is_in_no_text() {
    let one = ListQuery::new().search(Some("a".parse().unwrap()));
    let more = ListQuery::new().search(Some("a b \"c d\"".parse().unwrap()));
    let tags = |tags: &[&str]| {
        tags.iter().fold(ListQuery::new(), |query, tag| query.tag(tag.parse().unwrap()))
    };
    for dialect in [Dialect::Sqlite, Dialect::Postgres] {
        let text = |query: &ListQuery| text(dialect, query, Start::First);
        assert_eq!(text(&one), text(&more));
        assert_eq!(text(&tags(&["a", "b"])), text(&tags(&["a", "b", "c", "c"])));
        assert_eq!(text(&tags(&["a"])), text(&tags(&["b", "b"])), "one of one tag");
    }
}
