//! Sign-in with providers of OpenID Connect and with GitHub (RFC 6749, section 4.1, with PKCE, RFC
//! 7636): their options, and the requests to them. The operations are those of
//! [`sign_in`](crate::sign_in).

pub use self::options::{ClientSecret, SignInOptions, SignInOptionsError, SignInProvider};
pub(crate) use self::{
    flow::{CallbackState, Flow, FlowLink, FlowSecrets, LinkCode, challenge, open_code, seal_code},
    options::is_visible_ascii,
    provider::{ProvedUser, Provider, ProviderError},
    redirect::with_parameters,
    services::SignIn,
};

mod flow;
mod github;
mod oidc;
mod options;
mod provider;
mod redirect;
mod services;
