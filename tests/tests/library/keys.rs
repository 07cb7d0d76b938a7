//! API keys in the library, on both databases: their expiry, their last use, and their scopes.

use chrono::TimeDelta;
use todo_core::{
    Error,
    auth::{
        self, Caller, Client, KeyLifetime, KeyName, NewKey, Password, PasswordChange,
        ProfileChange, Scope, Scopes,
    },
};
use todo_tests::Database;

use super::sessions::{PASSWORD, Processes};

fn form(password: &str, days: i64) -> NewKey {
    NewKey::new(
        KeyName::parse("backup").expect("a name"),
        Scopes::new([Scope::TodosRead, Scope::AccountRead]).expect("scopes"),
        KeyLifetime::days(days).expect("a lifetime"),
        Password::unchecked(password).expect("a password"),
    )
}

on_both_databases! {
    async fn a_key_expires_and_has_a_last_use(database) {
        let processes = Processes::start(database, 2).await;
        let [core, other] = &processes.cores;
        let (ann, _) = processes.sign_up().await;
        let ann = Caller::trusted(ann.user_id());
        let created = auth::create_key(core, &ann, Client::Trusted, form(PASSWORD, 10)).await;
        let created = created.expect("a key");
        assert_eq!(created.info.expires_at, processes.begin + TimeDelta::days(10)
            - TimeDelta::microseconds(processes.begin.timestamp_subsec_micros().into()));
        assert_eq!(format!("{:?}", created.key), "ApiKey(…)");
        let key = created.key.as_str();
        let listed = async || auth::keys(core, &ann).await.expect("keys");
        let keys = listed().await;
        assert_eq!((keys.len(), keys.first()), (1, Some(&created.info)));

        // Idle sessions end after two days; keys stay.
        processes.advance(TimeDelta::days(5));
        processes.run_jobs().await;
        assert_eq!(listed().await[0].seen_at, None, "not used yet");
        let caller = auth::authenticate(other, key).await.expect("a caller");
        assert_eq!(caller.user_id(), ann.user_id());
        processes.advance(TimeDelta::minutes(2));
        processes.run_jobs().await;
        let seen_at = listed().await[0].seen_at.expect("a use");
        assert_eq!((seen_at - processes.begin).num_minutes(), 5 * 24 * 60 + 2);

        processes.advance(TimeDelta::days(5) - TimeDelta::minutes(3));
        auth::authenticate(other, key).await.expect("a caller");
        processes.advance(TimeDelta::minutes(1));
        let expired = auth::authenticate(core, key).await;
        assert!(matches!(expired, Err(Error::Unauthenticated)), "{expired:?}");
        assert!(listed().await.is_empty());
        processes.stop().await;
    }

    async fn a_caller_has_the_scopes_of_its_key(database) {
        let processes = Processes::start(database, 0).await;
        let core = &processes.cores[0];
        let (ann, token) = processes.sign_up().await;
        let created = auth::create_key(core, &ann, Client::Trusted, form(PASSWORD, 1)).await;
        let created = created.expect("a key");
        let caller = auth::authenticate(core, created.key.as_str()).await.expect("a caller");
        assert_eq!(caller.scopes(), Some(created.info.scopes));
        caller.require(Scope::TodosRead).expect("allowed");
        let refused = caller.require(Scope::TodosWrite);
        let required = Some(Scope::TodosWrite);
        assert!(matches!(refused, Err(Error::InsufficientScope { required: it }) if it == required));
        let session = auth::authenticate(core, token.as_str()).await.expect("a caller");
        for unlimited in [session, Caller::trusted(ann.user_id())] {
            assert_eq!(unlimited.scopes(), None);
            unlimited.require(Scope::TodosWrite).expect("allowed");
            unlimited.require_no_key().expect("allowed");
        }

        let id = created.info.id;
        let new = auth::create_key(core, &caller, Client::Trusted, form(PASSWORD, 1)).await;
        assert!(matches!(new, Err(Error::InsufficientScope { required: None })), "{new:?}");
        let keys = auth::keys(core, &caller).await;
        assert!(matches!(keys, Err(Error::InsufficientScope { required: None })), "{keys:?}");
        let deleted = auth::delete_key(core, &caller, id).await;
        assert!(matches!(deleted, Err(Error::InsufficientScope { required: None })), "{deleted:?}");

        let password = || Password::parse(PASSWORD).expect("a password");
        let change = PasswordChange::new(password(), Password::parse("Other2battery").expect("one"));
        let refused = [
            auth::sessions(core, &caller).await.map(drop),
            auth::end_session(core, &caller, id).await,
            auth::end_other_sessions(core, &caller).await.map(drop),
            auth::change_password(core, &caller, Client::Trusted, change).await.map(drop),
            auth::export(core, &caller).await.map(drop),
            auth::rename(core, &caller, "Other".parse().expect("a name")).await.map(drop),
            auth::update_profile(core, &caller, ProfileChange::new()).await.map(drop),
            auth::delete_account(core, &caller, Client::Trusted, password()).await,
            auth::delete_account_without_password(core, &caller, Client::Trusted).await,
        ];
        for (number, refused) in refused.into_iter().enumerate() {
            let is_refused = matches!(refused, Err(Error::InsufficientScope { required: None }));
            assert!(is_refused, "operation {number}: {refused:?}");
        }
        auth::current_user(core, &caller).await.expect("the account");
        let wrong = auth::create_key(core, &ann, Client::Trusted, form("Wrong1horse", 1)).await;
        assert!(matches!(wrong, Err(Error::InvalidCredentials)), "{wrong:?}");
        assert_eq!(auth::keys(core, &ann).await.expect("keys").len(), 1);
        auth::delete_key(core, &ann, id).await.expect("deleted");
        let gone = auth::check_session(core, &caller).await;
        assert!(matches!(gone, Err(Error::Unauthenticated)), "{gone:?}");
        processes.stop().await;
    }
}
