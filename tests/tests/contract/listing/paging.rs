//! Pages add up to the list, whatever changes in between, and a cursor continues its own list only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};
use todo_tests::{App, on_every_target};

use super::{FILTERS, ORDERS, SORTS, create, encoded, ids, invalid, list, pages, todos, twenty};
use crate::text;

on_every_target! {
    async fn pages_add_up_to_the_list(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        for status in FILTERS {
            for sort_by in SORTS {
                for order in ORDERS {
                    let query = format!("status={status}&sort_by={sort_by}&order={order}");
                    let whole = list(&ann, &query).await;
                    for limit in [1, 3, 5, 20] {
                        let pages = pages(&ann, &query, limit).await;
                        let paged: Vec<Value> =
                            pages.iter().flat_map(|page| todos(page).to_vec()).collect();
                        assert_eq!(paged, todos(&whole), "{query}&limit={limit}");
                        let wanted = paged.len().div_ceil(limit).max(1);
                        assert_eq!(pages.len(), wanted, "{query}&limit={limit}: full pages");
                        for page in &pages {
                            assert_eq!(page["total"], whole["total"]);
                            assert_eq!(page["filters_applied"], whole["filters_applied"]);
                        }
                    }
                }
            }
        }
    }

    async fn a_limit_may_change_between_pages(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        let whole = list(&ann, "sort_by=title").await;
        let mut seen = Vec::new();
        let mut cursor = String::new();
        for limit in ["limit=2", "limit=7", "limit=1", ""] {
            let page = list(&ann, &format!("sort_by=title&{limit}{cursor}")).await;
            seen.extend(ids(&page));
            let next = page["next_cursor"].as_str().map(encoded).unwrap_or_default();
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, ids(&whole), "without a limit the rest is returned");
        assert_eq!(cursor, "&cursor=", "nothing is left");
    }

    async fn an_altered_cursor_is_rejected(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        for sort_by in SORTS {
            let query = format!("sort_by={sort_by}&limit=4");
            let page = list(&ann, &query).await;
            let cursor = text(&page, "next_cursor").to_owned();
            let mut altered = vec![
                cursor[1..].to_owned(), cursor[..cursor.len() - 1].to_owned(),
                format!("{cursor}A"), format!("{cursor}="), format!("{cursor} "),
                format!("A{cursor}"), format!("{cursor}{cursor}"), cursor.to_uppercase(),
            ];
            for (at, was) in cursor.char_indices() {
                let next = match was {
                    'z' | 'Z' | '9' => 'B',
                    '-' | '_' | '.' | '=' | '+' | '/' | '~' => 'C',
                    // The next letter differs in the lowest bit, which lenient base64 ignores.
                    c => char::from_u32(u32::from(c) + 1).expect("an ASCII neighbour"),
                };
                let mut copy = cursor.clone();
                copy.replace_range(at..at + was.len_utf8(), &next.to_string());
                altered.push(copy);
            }
            for wrong in altered {
                let query = format!("{query}&cursor={}", encoded(&wrong));
                let answer = ann.get(&format!("{}?{query}", ann.todos())).await;
                invalid(answer, &format!("{wrong} for {cursor}"), &["cursor"]);
            }
            list(&ann, &format!("{query}&cursor={}", encoded(&cursor))).await;
        }
    }

    async fn a_cursor_belongs_to_one_list(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        twenty(&ann).await;
        twenty(&bob).await;
        let mut cursors = BTreeMap::new();
        for status in FILTERS {
            for sort_by in SORTS {
                for order in ORDERS {
                    let query = format!("status={status}&sort_by={sort_by}&order={order}");
                    let page = list(&ann, &format!("{query}&limit=2")).await;
                    cursors.insert(query, encoded(text(&page, "next_cursor")));
                }
            }
        }
        for (owner, cursor) in &cursors {
            for query in cursors.keys() {
                let full = format!("{query}&limit=2&cursor={cursor}");
                let answer = ann.get(&format!("{}?{full}", ann.todos())).await;
                if query == owner {
                    answer.expect(200);
                } else {
                    invalid(answer, &full, &["cursor"]);
                }
            }
            let full = format!("{owner}&limit=2&cursor={cursor}");
            invalid(bob.get(&format!("{}?{full}", bob.todos())).await, &full, &["cursor"]);
        }
    }

    async fn a_cursor_works_on_every_replica_and_after_its_todo_is_deleted(target) {
        let app = App::start(target).await;
        let other = app.replica().await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        let whole = list(&ann, "sort_by=priority").await;
        let page = list(&ann, "sort_by=priority&limit=5").await;
        for id in ids(&page) {
            ann.delete(&format!("{}/{id}", ann.todos())).await.expect(200);
        }
        let cursor = encoded(text(&page, "next_cursor"));
        let path = format!("{}?sort_by=priority&limit=500&cursor={cursor}", ann.todos());
        let bearer = format!("Bearer {}", ann.token());
        let headers = [("authorization", bearer.as_str())];
        let rest = other.anonymous().send("GET", &path, &headers, "").await.expect(200);
        assert_eq!(ids(&rest), ids(&whole)[5..]);
    }

    async fn unchanged_todos_are_listed_once_while_others_change(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mut staying = BTreeSet::new();
        for number in 0..24 {
            let title = ["m", "M", "n"][number % 3];
            let priority = ["high", "medium", "low"][number % 3];
            let todo = create(&ann, title, priority, false).await;
            staying.insert(text(&todo, "id").to_owned());
        }
        let finished = std::cell::Cell::new(false);
        let churn = async {
            let mut passing = VecDeque::new();
            for round in 0_usize.. {
                if finished.get() {
                    break;
                }
                let title = ["a", "m", "z", "M"][round % 4];
                let todo = create(&ann, title, ["low", "high"][round % 2], false).await;
                passing.push_back(format!("{}/{}", ann.todos(), text(&todo, "id")));
                let some = &passing[round * 7 % passing.len()];
                let title = ["z", "m", "a"][round % 3];
                ann.patch(some, json!({"title": title, "priority": "medium"})).await.expect(200);
                let body = json!({"completed": round % 2 == 0});
                ann.patch(&format!("{some}/complete"), body).await.expect(200);
                if passing.len() > 6 {
                    let oldest = passing.pop_front().expect("more than six");
                    ann.delete(&oldest).await.expect(200);
                }
            }
        };
        let read = async {
            for status in ["all", "pending"] {
                for sort_by in SORTS {
                    for order in ORDERS {
                        let query = format!("status={status}&sort_by={sort_by}&order={order}");
                        let seen: Vec<String> =
                            pages(&ann, &query, 3).await.iter().flat_map(ids).collect();
                        for id in &staying {
                            let times = seen.iter().filter(|one| *one == id).count();
                            assert_eq!(times, 1, "{query}: {id} in {seen:?}");
                        }
                    }
                }
            }
            finished.set(true);
        };
        tokio::join!(churn, read);
    }
}
