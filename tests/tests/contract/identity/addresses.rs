//! Addresses: a token never opens the account that has its address by that alone.

use serde_json::{Value, json};
use todo_tests::{
    Actor, App, Client, Mailbox, Target, on_every_target,
    peers::{AUDIENCE, BetterAuth, IssuerUser},
    unique_email,
};

use super::{add_todo, bearing, identities, me, text, titles, user_id};

const LINKS: (&str, &str) = ("AUTH_LINK_VERIFIED_EMAIL", "true");

/// Signs up here.
async fn sign_up(client: &Client, email: &str) -> Actor {
    let body = json!({"email": email, "password": "Correct1horse", "name": "Ada Lovelace"});
    let auth = client.post("/api/auth/signup", body).await.expect(201);
    Actor::of(client, &auth, "Correct1horse")
}

/// Confirms the user's address here, by the link in the mail.
async fn confirm(user: &Actor, mailbox: &Mailbox) {
    let mail = mailbox.arrived(user.email(), "Confirm your e-mail address").await;
    let body = json!({"token": mail.token()});
    user.post("/api/auth/email/confirm", body).await.expect(200);
}

/// Signs up at the issuer; returns a token.
async fn token_of(issuer: &BetterAuth, email: &str, verified: bool) -> (IssuerUser, String) {
    let user = issuer.sign_up_as(email).await;
    if verified {
        issuer.confirm(&user).await;
    }
    let token = issuer.token(&user).await;
    (user, token)
}

async fn start(issuer: &BetterAuth, target: Target, mailbox: &Mailbox, links: bool) -> App {
    let url = issuer.issuer();
    let mut settings = vec![("AUTH_ISSUER", &*url), ("AUTH_AUDIENCE", AUDIENCE)];
    if links {
        settings.push(LINKS);
    }
    mailbox.start(target, &settings).await
}

/// The address of a user without one.
fn placeholder(user: &Value) -> String {
    format!("{}@users.invalid", text(user, "id").replace('-', ""))
}

/// Two users with one address: no todo of one is seen by the other.
async fn are_strangers(app: &App, local: &Actor, token: &str) -> Value {
    let foreign = bearing(app, token);
    let user = me(app, token).await.expect(200);
    let id = text(&user, "id");
    assert_ne!(id, local.id());
    local.todo("local").await;
    add_todo(&foreign, id, "foreign").await;
    assert_eq!(titles(local, local.id()).await, ["local"]);
    assert_eq!(titles(&foreign, id).await, ["foreign"]);
    foreign.get(&local.todos()).await.problem(403, "forbidden");
    user
}

on_every_target! {
    async fn addresses_link_nothing_by_default(target) {
        let issuer = BetterAuth::shared().await;
        let mailbox = Mailbox::default();
        let app = start(&issuer, target, &mailbox, false).await;
        let email = unique_email();
        let local = sign_up(&app.anonymous(), &email).await;
        confirm(&local, &mailbox).await;
        let (_, token) = token_of(&issuer, &email, true).await;
        let user = are_strangers(&app, &local, &token).await;
        assert_eq!(user["email"], placeholder(&user));
        let [identity] = &identities(&bearing(&app, &token)).await[..] else { panic!("not one") };
        let (stated, verified) = (&identity["email"], &identity["email_verified"]);
        assert_eq!((stated, verified), (&json!(email), &json!(true)));
    }

    async fn an_address_verified_on_one_side_links_nothing(target) {
        let issuer = BetterAuth::shared().await;
        let mailbox = Mailbox::default();
        let app = start(&issuer, target, &mailbox, true).await;
        // A squatter here: the owner of the address comes by the issuer.
        let email = unique_email();
        let squatter = sign_up(&app.anonymous(), &email).await;
        let (_, token) = token_of(&issuer, &email, true).await;
        are_strangers(&app, &squatter, &token).await;
        // A thief at the issuer, where anyone can sign up with any address.
        let email = unique_email();
        let owner = sign_up(&app.anonymous(), &email).await;
        confirm(&owner, &mailbox).await;
        let (_, token) = token_of(&issuer, &email, false).await;
        are_strangers(&app, &owner, &token).await;
        // And neither side.
        let email = unique_email();
        let local = sign_up(&app.anonymous(), &email).await;
        let (_, token) = token_of(&issuer, &email, false).await;
        are_strangers(&app, &local, &token).await;
    }

    async fn an_address_verified_on_both_sides_links_if_that_is_set(target) {
        let issuer = BetterAuth::shared().await;
        let mailbox = Mailbox::default();
        let app = start(&issuer, target, &mailbox, true).await;
        let email = unique_email();
        let local = sign_up(&app.anonymous(), &email).await;
        confirm(&local, &mailbox).await;
        local.todo("mine").await;
        let (user, token) = token_of(&issuer, &email, true).await;
        assert_eq!(user_id(&app, &token).await, local.id());
        assert_eq!(titles(&bearing(&app, &token), &user.subject).await, ["mine"]);
        assert_eq!(identities(&local).await.len(), 1);
        // A text is not true.
        let other = unique_email();
        let owner = sign_up(&app.anonymous(), &other).await;
        confirm(&owner, &mailbox).await;
        let header = issuer.header().await;
        for verified in [json!("true"), json!(1), json!([true])] {
            let mut claims = issuer.claims("eve");
            claims["email"] = json!(other);
            claims["email_verified"] = verified;
            let token = issuer.sign(&header, &claims).await;
            assert_ne!(user_id(&app, &token).await, owner.id());
        }
    }

    async fn an_address_is_taken_over_only_if_it_is_verified_and_free(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let email = unique_email();
        let (_, token) = token_of(&issuer, &email, true).await;
        let user = me(&app, &token).await.expect(200);
        assert_eq!((&user["email"], &user["email_verified"]), (&json!(email), &json!(true)));
        let (_, token) = token_of(&issuer, &unique_email(), false).await;
        let user = me(&app, &token).await.expect(200);
        assert_eq!(user["email"], placeholder(&user));
        assert_eq!(user["email_verified"], false);
    }
}
