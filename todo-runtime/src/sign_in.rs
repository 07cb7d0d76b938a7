//! The options of the sign-in with providers, from the settings.

use todo_core::sign_in::{SignInOptions, SignInOptionsError, SignInProvider};

use crate::Settings;

impl Settings {
    /// The sign-in with providers; `None` if there is no provider.
    #[must_use]
    pub fn sign_in_options(&self) -> Option<SignInOptions> {
        // The settings are valid: these parse each of them.
        let google = self
            .oauth_google_client_id
            .as_ref()
            .zip(self.oauth_google_client_secret.clone())
            .map(|(id, secret)| SignInProvider::google(id, secret));
        let github = self
            .oauth_github_client_id
            .as_ref()
            .zip(self.oauth_github_client_secret.clone())
            .map(|(id, secret)| SignInProvider::github_at(&self.oauth_github_url, id, secret));
        let oidc = self
            .oauth_oidc_issuer
            .as_ref()
            .zip(self.oauth_oidc_client_id.as_ref())
            .zip(self.oauth_oidc_client_secret.clone())
            .map(|((issuer, id), secret)| {
                let provider = SignInProvider::oidc(issuer, id, secret)?;
                provider.title(&self.oauth_oidc_name)
            });
        let providers: Vec<SignInProvider> =
            [google, github, oidc].into_iter().flatten().collect::<Result<_, _>>().ok()?;
        if providers.is_empty() {
            return None;
        }
        let options = self.sign_in_routes().ok()?.redirects(&self.oauth_redirects).ok()?;
        let options = options.link_verified_email(self.auth_link_verified_email);
        Some(providers.into_iter().fold(options, SignInOptions::provider))
    }

    /// The options without providers, with the address of the routes.
    pub(crate) fn sign_in_routes(&self) -> Result<SignInOptions, SignInOptionsError> {
        let public_url = self.public_url.as_ref().ok_or(SignInOptionsError::RoutesUrl)?;
        SignInOptions::new(format!("{public_url}{}/auth/oauth", self.api_prefix))
    }
}
