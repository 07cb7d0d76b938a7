//! `GET /docs` (Swagger UI) and `GET /redoc` (ReDoc), whole in the binary: which files the two
//! pages are made of, how they are sent, and the policy that keeps a browser from asking any other
//! host. What the document says is not known here: the pages fetch it from the path they are given.
//!
//! The scripts come from the npm packages, compressed, by `assets/update.sh`, which pins versions
//! and checksums: 0.8 MB in all. `salvo-oapi` carries Swagger UI too, but uncompressed (4 MB, and
//! in a debug build read from the registry's sources), with an inline script, and without ReDoc; no
//! crate was found that carries ReDoc alone, so a folder of such files is kept either way.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::io::Read;
use std::sync::{Arc, OnceLock};

use flate2::read::GzDecoder;
use salvo::http::headers::{ETag, HeaderMapExt, IfNoneMatch};
use salvo::http::{HeaderMap, HeaderValue, ResBody, StatusCode, header};
use salvo::hyper::body::Bytes;
use salvo::{Depot, FlowCtrl, Handler, Request, Response, Router, async_trait};

/// The pages, for the index: their names and paths.
pub(crate) const PAGES: &[(&str, &str)] = &[("docs", "/docs"), ("redoc", "/redoc")];

/// The routes `docs` and `redoc` and the files under them, for GET and HEAD. The pages name their
/// files, and the document beside them (`openapi.json`), by relative paths: these are right below
/// any path, whether the server knows of it or a proxy takes it off.
///
/// Every answer has its own `Content-Type`, `Content-Length`, `Content-Security-Policy`, `ETag` and
/// `Cache-Control`; nothing else is set. Other methods go to `otherwise`, other paths are left
/// unmatched.
pub(crate) fn router(otherwise: &(impl Handler + Clone)) -> Router {
    let pages = [
        ("docs", DOCS_POLICY, Stored::plain(include_bytes!("../assets/docs.html"))),
        ("redoc", REDOC_POLICY, Stored::plain(include_bytes!("../assets/redoc.html"))),
    ];
    // Nearly every request is for something else: that is seen at once, wherever this is nested,
    // before each of the pages is tried.
    let mut router = Router::with_filter_fn(|req, _| {
        let path = req.uri().path();
        path.contains("/docs") || path.contains("/redoc")
    });
    for (path, policy, body) in pages {
        router = router.push(route(path, File::new(HTML, policy, body), otherwise.clone()));
    }
    for (path, content_type, body) in files() {
        let file = File::new(content_type, FILE_POLICY, body);
        router = router.push(route(path, file, otherwise.clone()));
    }
    router
}

fn route(path: &str, file: File, otherwise: impl Handler) -> Router {
    let file = Shared(Arc::new(file));
    Router::with_path(path).get(file.clone()).head(file).goal(otherwise)
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// This origin's scripts, styles and answers; `data:` is for the icons inside the style sheet.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// ReDoc searches in a worker, and makes style elements: empty ones that it fills by script, and
/// one with a fixed text. The hashes are of the empty text and of that one; another version of
/// ReDoc may want others, and the browser's console names them.
const REDOC_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' \
     'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' \
     'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='; \
     img-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// A script or style sheet opened by itself may do nothing.
const FILE_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// The scripts name the files of their licenses, so these are served beside them.
fn files() -> [(&'static str, &'static str, Stored); 9] {
    macro_rules! plain {
        ($name:literal) => {
            Stored::plain(include_bytes!(concat!("../assets/", $name)))
        };
    }
    macro_rules! gzip {
        ($name:literal) => {
            Stored::gzip(include_bytes!(concat!("../assets/", $name)))
        };
    }
    [
        ("docs/page.css", STYLE, plain!("page.css")),
        ("docs/page.js", SCRIPT, plain!("docs.js")),
        ("docs/swagger-ui.css", STYLE, gzip!("swagger-ui.css.gz")),
        ("docs/swagger-ui-bundle.js", SCRIPT, gzip!("swagger-ui-bundle.js.gz")),
        ("docs/swagger-ui-bundle.js.LICENSE.txt", TEXT, plain!("swagger-ui-bundle.js.LICENSE.txt")),
        ("redoc/page.css", STYLE, plain!("page.css")),
        ("redoc/page.js", SCRIPT, plain!("redoc.js")),
        ("redoc/redoc.standalone.js", SCRIPT, gzip!("redoc.standalone.js.gz")),
        ("redoc/redoc.standalone.js.LICENSE.txt", TEXT, plain!("redoc.standalone.js.LICENSE.txt")),
    ]
}

/// One body and what is said of it; immutable once made.
struct File {
    content_type: HeaderValue,
    policy: HeaderValue,
    etag: ETag,
    body: Stored,
}

impl File {
    fn new(content_type: &'static str, policy: &'static str, body: Stored) -> Self {
        Self {
            content_type: HeaderValue::from_static(content_type),
            policy: HeaderValue::from_static(policy),
            etag: body.etag(),
            body,
        }
    }

    fn answer(&self, asked: &HeaderMap, res: &mut Response) {
        let headers = res.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        // Kept, and asked after on every use: the paths stay the same from one release to the next.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.typed_insert(self.etag.clone());
        if let Some(known) = asked.typed_get::<IfNoneMatch>()
            && !known.precondition_passes(&self.etag)
        {
            res.status_code(StatusCode::NOT_MODIFIED);
            return;
        }

        let (body, encoding) = self.body.encoded(accepts_gzip(asked));
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        res.status_code(StatusCode::OK);
        res.body(ResBody::Once(body));
    }
}

#[derive(Clone)]
struct Shared(Arc<File>);

#[async_trait]
impl Handler for Shared {
    async fn handle(
        &self,
        req: &mut Request,
        _depot: &mut Depot,
        res: &mut Response,
        _ctrl: &mut FlowCtrl,
    ) {
        self.0.answer(req.headers(), res);
    }
}

/// Bytes as they lie in the binary.
enum Stored {
    Plain(Bytes),
    Gzip {
        packed: Bytes,
        /// Made when a client that does not take gzip asks first, then kept.
        plain: OnceLock<Bytes>,
    },
}

impl Stored {
    fn plain(bytes: &'static [u8]) -> Self {
        Self::Plain(Bytes::from_static(bytes))
    }

    fn gzip(bytes: &'static [u8]) -> Self {
        Self::Gzip { packed: Bytes::from_static(bytes), plain: OnceLock::new() }
    }

    /// The body to send, and its content coding.
    fn encoded(&self, gzip: bool) -> (Bytes, Option<&'static str>) {
        match self {
            Self::Plain(bytes) => (bytes.clone(), None),
            Self::Gzip { packed, .. } if gzip => (packed.clone(), Some("gzip")),
            Self::Gzip { packed, plain } => {
                (plain.get_or_init(|| inflate(packed).into()).clone(), None)
            }
        }
    }

    /// Weak (RFC 9110, section 8.8.1), because the compressed and the plain body share it. It need
    /// not outlive the binary, so the standard library's hash with its fixed keys will do.
    fn etag(&self) -> ETag {
        let (Self::Plain(bytes) | Self::Gzip { packed: bytes, .. }) = self;
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let etag = format!("W/\"{:016x}\"", hasher.finish());
        #[expect(clippy::expect_used, reason = "hexadecimal in quotes is an ETag")]
        etag.parse().expect("hexadecimal in quotes is an ETag")
    }
}

fn inflate(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    #[expect(
        clippy::expect_used,
        reason = "the files are in the binary, and a test inflates each"
    )]
    GzDecoder::new(packed).read_to_end(&mut plain).expect("a stored file inflates");
    plain
}

/// Whether `gzip`, or else `*`, is there with a weight above zero (RFC 9110, section 12.5.3).
fn accepts_gzip(asked: &HeaderMap) -> bool {
    let lists = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    let mut any = false;
    for coding in lists.flat_map(|list| list.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.split_once('=').map_or("1", |(_, weight)| weight).trim();
        let wanted = weight.parse::<f32>().is_ok_and(|weight| weight > 0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return wanted,
            "*" => any = wanted,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_file_inflates() {
        for (path, _, body) in files() {
            let (plain, encoding) = body.encoded(false);
            assert_eq!(encoding, None, "{path}");
            assert!(std::str::from_utf8(&plain).is_ok_and(|text| !text.is_empty()), "{path}");
        }
    }

    #[test]
    fn every_file_a_page_names_is_served() {
        let paths: Vec<_> = files().map(|(path, ..)| path).into();
        for page in [include_str!("../assets/docs.html"), include_str!("../assets/redoc.html")] {
            let is_file = |text: &&str| text.starts_with("docs/") || text.starts_with("redoc/");
            let named: Vec<_> = page.split('"').filter(is_file).collect();
            assert!(named.len() >= 3, "{named:?}");
            for path in named {
                assert!(paths.contains(&path), "{path}");
            }
        }
    }

    #[test]
    fn gzip_is_sent_only_to_those_who_take_it() {
        for (asked, taken) in [
            ("gzip", true),
            ("GZIP;q=0.001", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("*", true),
            ("", false),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("*, gzip;q=0", false),
            ("*;q=0", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(asked));
            assert_eq!(accepts_gzip(&headers), taken, "{asked:?}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
