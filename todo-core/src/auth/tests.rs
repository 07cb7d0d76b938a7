use std::net::IpAddr;

use super::{login::open_session, *};
use crate::{
    Secret,
    core::Core,
    db::{RowsAffected, Statement},
    error::{Error, Result},
};

async fn attempts(core: &Core) -> Result<i64> {
    let count = Statement::new("SELECT count(*) FROM rate_limits");
    let (count,) = core.db().fetch_one(count).await?;
    Ok(count)
}

#[tokio::test]
async fn an_attempt_rejected_by_a_full_queue_takes_no_slot() {
    let secret = Secret::new("at least thirty-two random bytes").unwrap();
    let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
    let (email, password) = ("ann@example.com", "Correct1horse");
    let network = |n: u32| Some(IpAddr::from(std::net::Ipv4Addr::from(n << 8)));
    let held: Vec<_> = (0..).map_while(|n| core.hasher().permit(network(n), None).ok()).collect();
    assert!(held.len() > 100, "each network has one slot: {}", held.len());
    let client = Client::At("192.0.2.7".parse().unwrap());
    let form = || Signup::parse(email, password, "Ann Other").unwrap();
    for _ in 0..10 {
        let rejected = signup(&core, client, form()).await;
        assert!(matches!(rejected, Err(Error::Busy)), "{rejected:?}");
        let rejected = login(&core, client, Credentials::parse(email, password).unwrap()).await;
        assert!(matches!(rejected, Err(Error::Busy)), "{rejected:?}");
    }
    assert_eq!(attempts(&core).await.unwrap(), 0);
    drop(held);
    signup(&core, client, form()).await.unwrap();
    assert_eq!(attempts(&core).await.unwrap(), 1);
}

/// A login reads the hash and inserts the session in two statements; the password may be
/// changed, or the account deleted, between them.
#[tokio::test]
async fn a_session_is_created_only_for_the_verified_hash() {
    let secret = Secret::new("at least thirty-two random bytes").unwrap();
    let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
    let form = Signup::parse("ann@example.com", "Correct1horse", "Ann Other").unwrap();
    let user = signup(&core, Client::Trusted, form).await.unwrap().user;
    let found = Statement::new("SELECT password_hash FROM users WHERE id = $1").bind(user.id);
    let (hash,): (String,) = core.db().fetch_one(found).await.unwrap();
    assert!(open_session(&core, user.clone(), &hash, None, None).await.unwrap().is_some());
    assert!(open_session(&core, user.clone(), "another", None, None).await.unwrap().is_none());
    let delete = Statement::new("DELETE FROM users WHERE id = $1").bind(user.id);
    let RowsAffected(_) = core.db().execute(delete).await.unwrap();
    assert!(open_session(&core, user, &hash, None, None).await.unwrap().is_none());
}
