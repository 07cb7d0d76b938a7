//! Output of the program without HTTP.

use todo_examples::embed;

#[tokio::test]
async fn embed_prints_the_expected_lines() {
    let mut out = Vec::new();
    embed::run(&mut out).await.unwrap();
    let printed = String::from_utf8(out).unwrap();
    let expected = "\
        ada@example.com has two accounts\n\
        page of 3: Buy milk, Call the dentist\n\
        page of 3: Water the plants\n\
        3 todos in all\n\
        Buy milk: oats, two litres, completed: true\n\
        at work: 0 todos\n";
    assert_eq!(printed, expected);
}
