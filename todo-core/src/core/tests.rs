use super::*;
use crate::{
    auth::Caller,
    db::{RowsAffected, Statement},
    todos,
};

async fn in_memory() -> Result<Core, Box<dyn std::error::Error>> {
    let secret = Secret::new("at least thirty-two random bytes")?;
    Ok(Core::builder(secret).open("sqlite::memory:").await?)
}

#[tokio::test]
async fn an_operation_completes_after_its_future_is_dropped() {
    let core = in_memory().await.unwrap();
    let (go, released) = tokio::sync::oneshot::channel::<()>();
    let (done, is_done) = tokio::sync::oneshot::channel::<()>();
    let mut operation = core
        .anonymous(async move {
            released.await.unwrap();
            done.send(()).unwrap();
            Ok(())
        })
        .boxed();
    assert!(operation.as_mut().now_or_never().is_none(), "the operation must wait");
    drop(operation);
    go.send(()).unwrap();
    is_done.await.unwrap();
}

#[tokio::test]
async fn an_operation_whose_future_was_never_polled_is_not_run() {
    let core = in_memory().await.unwrap();
    let (done, is_done) = tokio::sync::oneshot::channel::<()>();
    drop(core.anonymous(async move {
        done.send(()).unwrap();
        Ok(())
    }));
    is_done.await.unwrap_err();
}

#[tokio::test]
async fn a_dropped_operation_is_skipped_while_queued_and_completes_once_running() {
    let core = in_memory().await.unwrap();
    let queues = CallerQueues::new(1, Duration::from_secs(10));
    let ann = Uuid::from_u128(1).into();
    let inner = Arc::into_inner(core.0).unwrap();
    let core =
        Core(Arc::new(Inner { read_queues: Arc::clone(&queues), write_queues: queues, ..inner }));
    let (go, released) = tokio::sync::oneshot::channel::<()>();
    let (done, is_done) = tokio::sync::oneshot::channel::<()>();
    let mut running = core
        .read(ann, async move {
            released.await.unwrap();
            done.send(()).unwrap();
            Ok(())
        })
        .boxed();
    assert!(running.as_mut().now_or_never().is_none(), "the read must wait");
    let (started, is_started) = tokio::sync::oneshot::channel::<()>();
    let mut waiting = core
        .write(ann, async move {
            started.send(()).unwrap();
            Ok(())
        })
        .boxed();
    assert!(waiting.as_mut().now_or_never().is_none(), "the write must wait for a permit");
    drop((running, waiting));
    go.send(()).unwrap();
    is_done.await.unwrap();
    is_started.await.unwrap_err();
    // All permits are free again.
    core.read(ann, async { Ok(()) }).await.unwrap();
    assert_eq!(core.0.operations.available_permits(), MAX_OPERATIONS);
}

#[tokio::test]
async fn a_dropped_write_that_is_queued_for_the_writer_is_skipped() {
    const MAKE: &str = "CREATE TABLE rows (i INTEGER)";
    const ADD: &str = "INSERT INTO rows VALUES ($1)";
    const SUM: &str = "SELECT coalesce(sum(i), 0) FROM rows";
    // Some 100 ms.
    const SLOW: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
         WHERE i < 1000000) SELECT count(*) FROM n";
    let secret = Secret::new("at least thirty-two random bytes").unwrap();
    let database = DatabaseOptions::new().timeout(OPERATION_TIMEOUT);
    let core = Core::builder(secret).database(database).open("sqlite::memory:").await.unwrap();
    let db = core.db();
    let ann = UserId::from(Uuid::from_u128(1));
    db.execute::<RowsAffected>(Statement::new(MAKE)).await.unwrap();
    let busy = core.db();
    let busy = tokio::spawn(async move { busy.fetch_one::<(i64,)>(Statement::new(SLOW)).await });
    tokio::task::yield_now().await;
    let add = |row: i64| {
        let (core, db) = (core.clone(), db.clone());
        let add = async move {
            let RowsAffected(_) = db.execute(Statement::new(ADD).of(ann).bind(row)).await?;
            Ok(())
        };
        async move { core.write(ann, add).await }.boxed()
    };
    let (mut dropped, awaited) = (add(1), add(2));
    assert!(dropped.as_mut().now_or_never().is_none(), "the write must wait");
    drop(dropped);
    awaited.await.unwrap();
    busy.await.unwrap().unwrap();
    let (sum,): (i64,) = db.fetch_one(Statement::new(SUM)).await.unwrap();
    assert_eq!(sum, 2);
}

#[tokio::test]
async fn an_operation_that_never_completes_times_out() {
    let core = in_memory().await.unwrap();
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let outcome = core.anonymous(std::future::pending::<Result<()>>()).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))));
    assert_eq!(began.elapsed().as_secs(), OPERATION_TIMEOUT.as_secs());
}

#[tokio::test]
async fn a_panic_is_an_error_on_the_first_poll_and_later() {
    let core = in_memory().await.unwrap();
    let at_once = core.anonymous::<()>(async { panic!("at once") }).await;
    assert!(matches!(at_once, Err(Error::Internal(_))));
    let later = core.anonymous::<()>(async {
        tokio::task::yield_now().await;
        panic!("later")
    });
    assert!(matches!(later.await, Err(Error::Internal(_))));
}

#[tokio::test]
async fn operations_over_the_limit_are_rejected_at_once() {
    let core = in_memory().await.unwrap();
    let all = u32::try_from(MAX_OPERATIONS).unwrap();
    let running = Arc::clone(&core.0.operations).try_acquire_many_owned(all).unwrap();
    assert!(matches!(core.ping().await, Err(Error::Busy)));
    core.anonymous(async { Ok(()) }).await.unwrap();
    drop(running);
    core.ping().await.unwrap();
}

#[tokio::test]
async fn callers_are_served_while_all_anonymous_permits_are_taken() {
    let core = in_memory().await.unwrap();
    let all = u32::try_from(MAX_ANONYMOUS).unwrap();
    let _waiting = Arc::clone(&core.0.anonymous).try_acquire_many_owned(all).unwrap();
    assert!(matches!(core.anonymous(async { Ok(()) }).await, Err(Error::Busy)));
    core.read(Uuid::from_u128(1).into(), async { Ok(()) }).await.unwrap();
}

#[tokio::test]
async fn the_reason_of_a_failed_write_is_read_with_a_permit_of_its_caller() {
    let core = in_memory().await.unwrap();
    let queues = || CallerQueues::new(1, Duration::from_secs(10));
    let inner = Arc::into_inner(core.0).unwrap();
    let core = Core(Arc::new(Inner { read_queues: queues(), write_queues: queues(), ..inner }));
    let ann = Caller::trusted(Uuid::from_u128(1).into());
    let bob = Caller::trusted(Uuid::from_u128(2).into());
    let (go, released) = tokio::sync::oneshot::channel::<()>();
    let reading = core.read(ann.user_id(), async move {
        released.await.unwrap();
        Ok(())
    });
    let mut reading = reading.boxed();
    assert!(reading.as_mut().now_or_never().is_none(), "the read must wait");

    let delete = |caller: Caller| {
        let core = core.clone();
        async move { todos::delete(&core, &caller, todos::TodoId::from(Uuid::nil())).await }
    };
    let mut of_ann = tokio::spawn(delete(ann));
    // Another caller's write is not delayed, nor is the statement of this one.
    assert!(matches!(delete(bob).await, Err(Error::NotFound | Error::Unauthenticated)));
    let short = tokio::time::timeout(Duration::from_millis(200), &mut of_ann).await;
    assert!(short.is_err(), "the reason was read while the caller's only permit was taken");
    go.send(()).unwrap();
    reading.await.unwrap();
    let reason = of_ann.await.unwrap();
    assert!(matches!(reason, Err(Error::NotFound | Error::Unauthenticated)), "{reason:?}");
}
