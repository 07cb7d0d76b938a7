//! A server's response, and the assertions that every suite makes on it.

use http::HeaderMap;
use serde_json::Value;

/// A response, with its whole body.
#[derive(Clone, Debug)]
pub struct TestResponse {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole content.
    pub body: Vec<u8>,
    /// Method and path of the request, for failure messages.
    pub(crate) request: String,
}

impl TestResponse {
    /// The content as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header field's value, if it is present and printable.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The JSON content of a response with this status.
    ///
    /// # Panics
    /// When the status differs, or the content is not JSON.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self}");
        self.json()
    }

    /// The RFC 9457 problem document of an error response, checked against the contract's shape.
    ///
    /// # Panics
    /// When the status, the code or any part of the shape differs.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self}");
        let problem = self.json();
        let members = problem.as_object().unwrap_or_else(|| panic!("not an object: {self}"));

        let uri = format!("/problems/{}", code.replace('_', "-"));
        assert_eq!(problem["type"], uri, "{self}");
        assert_eq!(problem["code"], code, "{self}");
        assert_eq!(problem["status"], status, "{self}");
        let title = problem["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty(), "title of {self}");
        self.check_sentences(&problem["detail"]);
        assert_eq!(problem["error"], problem["title"], "{self}");
        let request_id = self.header("x-request-id").unwrap_or_default();
        assert!(!request_id.is_empty(), "no X-Request-Id: {self}");
        assert_eq!(problem["request_id"], request_id, "{self}");

        let known = ["type", "title", "status", "detail", "code", "error", "details", "request_id"];
        for name in members.keys() {
            let of_code = match code {
                "precondition_failed" => &["current"][..],
                "quota_exceeded" => &["limit", "used"],
                "validation_error" => &["invalid"],
                _ => &[],
            };
            let is_known = known.iter().chain(of_code).any(|known| known == name);
            assert!(is_known, "{name} is not in the contract: {self}");
        }
        self.check_details(&problem);
        problem
    }

    /// These texts are shown to people unchanged: whole sentences.
    #[track_caller]
    fn check_sentences(&self, text: &Value) {
        let text = text.as_str().unwrap_or_default();
        let whole = text.starts_with(|first: char| first.is_uppercase()) && text.ends_with('.');
        assert!(whole && !text.contains("  "), "{text:?} of {self}");
    }

    /// `details` exists only for 400 and 422, and for the items of a bulk; it lists each broken
    /// rule once, and is always present for a validation error. `detail` joins its distinct
    /// messages.
    #[track_caller]
    fn check_details(&self, problem: &Value) {
        let Some(details) = problem.get("details") else {
            assert_ne!(problem["code"], "validation_error", "no details: {self}");
            return;
        };
        let is_bulk = self.request.ends_with("/bulk") && [403, 404, 409].contains(&self.status);
        assert!(is_bulk || [400, 422].contains(&self.status), "details in {self}");
        let details = details.as_array().unwrap_or_else(|| panic!("details of {self}"));
        assert!(!details.is_empty(), "empty details: {self}");
        let mut messages = Vec::new();
        let mut rules = Vec::new();
        for detail in details {
            let members = detail.as_object().map(|members| members.keys().collect::<Vec<_>>());
            let known = ["code", "field", "message", "pointer"];
            // Those of an imported file have the line too.
            let members = members.map(|mut members| {
                members.retain(|name| *name != "line");
                members
            });
            assert!(members.is_some_and(|members| members == known), "details of {self}");
            for name in ["field", "code"] {
                let text = detail[name].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{name} in the details of {self}");
            }
            let pointer = format!("/{}", detail["field"].as_str().unwrap_or_default());
            assert_eq!(detail["pointer"], pointer, "{self}");
            self.check_sentences(&detail["message"]);
            let message = detail["message"].as_str().unwrap_or_default();
            let rule = (pointer, message);
            assert!(!rules.contains(&rule), "{rule:?} twice in {self}");
            rules.push(rule);
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
        assert_eq!(problem["detail"], messages.join(" "), "{self}");
    }

    /// The fields named in `details`, each once, in order.
    pub fn fields(&self) -> Vec<String> {
        let mut fields = self.details("field");
        fields.dedup();
        fields
    }

    /// This member of each entry in `details`, in order.
    pub fn details(&self, name: &str) -> Vec<String> {
        let problem = self.json();
        let details = problem["details"].as_array().cloned().unwrap_or_default();
        details.iter().map(|one| one[name].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl std::fmt::Display for TestResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered {}: {}", self.request, self.status, self.text())
    }
}
