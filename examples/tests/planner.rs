//! Output of the planner.

use todo_examples::planner;

#[tokio::test]
async fn the_planner_prints_the_week() {
    let mut out = Vec::new();
    planner::run(&mut out).await.unwrap();
    let printed = String::from_utf8(out).unwrap();
    let expected = "\
        Monday 7 December 2026\n\
        \x20 10:00 Stand-up\n\
        \x20       Water the plants\n\
        Wednesday 9 December 2026\n\
        \x20 09:30 Call the dentist\n\
        Saturday 12 December 2026\n\
        \x20 16:00 Bake bread\n\
        Water the plants is done; next on Monday 14 December 2026\n\
        1 todos at home are left\n";
    assert_eq!(printed, expected);
}
