//! Searches in many scripts: the todos that are found are those whose folded texts contain the
//! folded terms, on both databases.

use todo_core::todos::{self, Description, ListQuery, NewTodo, Search, Tags};
use todo_tests::Database;
use unicode_normalization::UnicodeNormalization;

use super::store::Store;

/// Titles and descriptions.
const TEXTS: &[(&str, &str)] = &[
    ("Buy MILK", "two litres"),
    ("Stra\u{df}e kehren", "STRASSE, \u{1e9e}"),
    ("\u{130}stanbul", "i\u{307}stanbul, istanbul, \u{131}stanbul, ISTANBUL"),
    (
        "\u{623}\u{631}\u{632} \u{648}\u{62e}\u{628}\u{632}",
        "\u{627}\u{644}\u{633}\u{644}\u{627}\u{645}",
    ),
    ("\u{e0b}\u{e37}\u{e49}\u{e2d}\u{e19}\u{e21}", "\u{e19}\u{e49}\u{e33}"),
    ("\u{d55c}\u{ad6d}\u{c5b4}", "\u{1112}\u{1161}\u{11ab}\u{ae00}"),
    ("\u{30ac}\u{30b9}", "\u{ff76}\u{ff9e}\u{ff7d} \u{30ab}\u{3099}\u{30b9} \u{304c}\u{3059}"),
    ("\u{30ab}\u{30b9}", "kasu"),
    ("\u{1f469}\u{200d}\u{1f680} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}", "\u{1f680}\u{fe0f}"),
    ("100% _done_ C:\\todo", "100 percent 100x _ % \\"),
    ("1000 done", "C:/todo CX\\todo"),
    ("\u{fb01}n \u{2460} \u{2167} \u{ff21}\u{ff22}\u{ff23}", "x\u{b2} \u{bd} \u{212b}"),
    ("\u{39f}\u{394}\u{39f}\u{3a3}", "\u{3bf}\u{3b4}\u{3bf}\u{3c3}"),
    ("Cafe\u{301}", "caf\u{e9} CAF\u{c9}"),
    ("\u{41f}\u{420}\u{418}\u{412}\u{415}\u{422}", "\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}"),
    ("\u{5e9}\u{5c1}\u{5dc}\u{5d5}\u{5dd}", "\u{6c34}\u{9053} \u{2f9b2}"),
    ("title", "begin title end"),
    ("a\u{1e}b", "a b"),
    ("'quoted' \"double\" ; -- $1 ?", "NULL"),
];
const TAGS: &[&str] = &["home", "\u{e9}t\u{e9}", "50%", "a\"b", "\u{30ac}"];
/// Further searches; each character, each pair of characters and each word of the texts is one too.
const SEARCHES: &[&str] = &[
    "strasse",
    "STRA\u{1e9e}E",
    "istanbul",
    "\u{130}",
    "\u{131}",
    "i\u{307}",
    "100%",
    "%",
    "_",
    "\\",
    "_done_",
    "C:\\todo",
    "\u{ff8a}\u{ff9f}",
    "\u{30ac}",
    "\u{ff76}\u{ff9e}",
    "\u{30ab}",
    "fi",
    "f",
    "8",
    "viii",
    "ABC",
    "\u{200d}",
    "\u{1f680}",
    "\u{3c3}",
    "\u{3c2}",
    "title begin",
    "milk two",
    "\"milk two\"",
    "\"two litres\"",
    "-milk",
    "-1 -\u{e9}",
    "home",
    "home\u{e9}",
    "\"home \u{e9}t\u{e9}\"",
    "%home%",
    "'quoted'",
    "\"; --\"",
    "null",
    "\u{1e}",
];

fn fold(text: &str) -> String {
    text.nfkc().collect::<String>().to_lowercase().nfkc().collect()
}

/// The searches: a small corpus has all of its characters, pairs and words as terms.
fn searches() -> Vec<Search> {
    let mut texts: Vec<String> = SEARCHES.iter().map(ToString::to_string).collect();
    for text in TEXTS.iter().flat_map(|(title, description)| [title, description]).chain(TAGS) {
        let chars: Vec<char> = text.chars().collect();
        texts.extend(chars.windows(2).map(|pair| format!("\"{}", String::from_iter(pair))));
        texts.extend(chars.iter().map(|c| format!("\"{c}")));
        texts.extend(text.split_whitespace().map(str::to_uppercase));
    }
    texts.sort();
    texts.dedup();
    texts.iter().filter_map(|text| Search::parse(text).ok()).collect()
}

on_both_databases! {
    async fn searches_find_what_a_substring_test_finds(database) {
        let mut store = Store::empty(database).await;
        for (number, (title, description)) in TEXTS.iter().enumerate() {
            let description = Description::parse(description).expect("a description");
            let tags = TAGS.get(number).into_iter().chain(TAGS.get(number / 3));
            let new = NewTodo::new(title.parse().expect("a title"))
                .description(description)
                .tags(Tags::parse(tags).expect("tags"));
            store.add(new, None, false).await;
        }
        let mut found = 0;
        let searches = searches();
        assert!(searches.len() > 300, "{}", searches.len());
        for search in searches {
            let contains = |todo: &todos::Todo, term: &String| {
                let description = todo.description.as_ref().map_or("", |text| text.as_str());
                let mut texts = vec![fold(todo.title.as_str()), fold(description)];
                texts.push(todo.tags.iter().map(|tag| fold(tag.as_str())).collect::<Vec<_>>().join("\n"));
                texts.iter().any(|text| text.replace('\u{1e}', " ").contains(term.as_str()))
            };
            let mut wanted: Vec<_> = store.todos.iter().map(|(todo, _)| todo).filter(|todo| {
                search.terms().iter().all(|term| contains(todo, term))
                    && !search.excluded().iter().any(|term| contains(todo, term))
            }).map(|todo| todo.id).collect();
            wanted.sort();
            let query = ListQuery::new().search(search.clone());
            let list = todos::list(&store.core, &store.caller, query).await.expect("a list");
            let mut ids: Vec<_> = list.todos.iter().map(|todo| todo.id).collect();
            ids.sort();
            assert_eq!(ids, wanted, "{search}");
            assert_eq!(list.total, i64::try_from(wanted.len()).ok(), "{search}");
            for (todo, matches) in list.todos.iter().zip(&list.matches) {
                assert_eq!(matches.is_empty(), search.terms().is_empty(), "{search} in {todo:?}");
            }
            found += wanted.len();
        }
        assert!(found > 500, "{found}");
    }

    async fn todos_of_an_older_version_are_found(database) {
        let mut store = Store::empty(database).await;
        for title in ["Milk", "eggs"] {
            store.add(NewTodo::new(title.parse().expect("a title")), None, false).await;
        }
        let changes = async |store: &Store| {
            let page = todos::changes(&store.core, &store.caller, None, None).await;
            page.expect("the changes").next
        };
        let before = changes(&store).await;
        store.conn.execute("UPDATE todos SET search = NULL").await;
        let query = ListQuery::new().search(Search::parse("milk").expect("a search"));
        let list = todos::list(&store.core, &store.caller, query.clone()).await.expect("a list");
        assert_eq!((list.todos.len(), list.total), (1, Some(1)));
        assert_eq!(list.todos[0], store.todos[0].0, "no other change");
        assert_eq!(changes(&store).await, before, "folding is no change");

        // Too many for a request.
        let user = store.conn.literal(store.caller.user_id());
        let insert = match database {
            Database::Sqlite => format!(
                "INSERT INTO todos (id, user_id, title, title_key, priority, completed, \
                 created_at, updated_at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL \
                 SELECT i + 1 FROM n WHERE i < 1100) SELECT randomblob(16), {user}, 'MILK ' || i, \
                 'milk ' || i, 1, FALSE, i, i FROM n"
            ),
            Database::Postgres => format!(
                "INSERT INTO todos (id, user_id, title, title_key, priority, completed, \
                 created_at, updated_at) SELECT gen_random_uuid(), {user}, 'MILK ' || i, \
                 'milk ' || i, 1, FALSE, now(), now() FROM generate_series(1, 1100) AS i"
            ),
        };
        store.conn.execute(&insert).await;
        let early = todos::list(&store.core, &store.caller, query.clone()).await;
        assert!(matches!(early, Err(todo_core::Error::Unavailable(_))), "{early:?}");
        let plain = todos::list(&store.core, &store.caller, ListQuery::new()).await;
        assert_eq!(plain.expect("the list").total, Some(1102));
        todo_core::jobs::run_due(&store.core).await.expect("the jobs");
        let list = todos::list(&store.core, &store.caller, query).await.expect("a list");
        assert_eq!((list.todos.len(), list.total), (1101, Some(1101)));
    }
}
