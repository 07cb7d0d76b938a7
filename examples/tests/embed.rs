//! The program without HTTP says what it should.

use todo_examples::embed;

#[tokio::test]
async fn embed_runs_to_its_end() {
    let mut out = Vec::new();
    embed::run(&mut out).await.unwrap();
    let said = String::from_utf8(out).unwrap();
    let expected = "\
        ada@example.com has two accounts\n\
        page of 3: Buy milk, Call the dentist\n\
        page of 3: Water the plants\n\
        Buy milk: oats, two litres, completed: true\n\
        at work: 0 todos\n";
    assert_eq!(said, expected);
}
