//! `GET /docs` (Swagger UI) and `GET /redoc` (ReDoc), embedded in the binary: the files of the two
//! pages, their response headers, and the policy that blocks browser requests to other hosts. The
//! pages fetch the OpenAPI document from its path; this module does not read it.
//!
//! `assets/update.sh` takes the scripts from npm packages with pinned versions and checksums, and
//! compresses them: 0.8 MB in all. `salvo-oapi` includes Swagger UI too, but uncompressed (4 MB,
//! and in a debug build read from the registry's sources), with an inline script, and without
//! ReDoc; no crate was found that includes ReDoc alone, so a folder of such files is needed either
//! way.

use std::collections::{HashMap, hash_map::DefaultHasher};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hash::Hasher;
use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use flate2::read::GzDecoder;
use salvo::http::headers::{ETag, HeaderMapExt, IfNoneMatch};
use salvo::http::{HeaderMap, HeaderValue, StatusCode, header};
use salvo::hyper::body::Bytes;
use salvo::hyper::{Request, Response};
use todo_core::http::Body;
use tower_service::Service;

/// The pages, for the index: their names and paths.
pub(crate) const PAGES: &[(&str, &str)] = &[("docs", "/docs"), ("redoc", "/redoc")];

/// The pages `docs` and `redoc` and the files under them, by path below the mount path. The pages
/// reference their files, and the document beside them (`openapi.json`), by relative paths: these
/// work under any prefix, whether the server is mounted there or a proxy strips it.
///
/// Each response sets `Content-Type`, `Content-Length`, `Content-Security-Policy`, `ETag`, `Vary`,
/// `Cache-Control` and, if compressed, `Content-Encoding`.
pub(crate) struct Pages {
    mount_path: String,
    files: HashMap<String, StaticFile>,
}

impl Pages {
    pub(crate) fn new(mount_path: &str) -> Self {
        let pages = [
            ("docs", DOCS_POLICY, EmbeddedBody::plain(include_bytes!("../assets/docs.html"))),
            ("redoc", REDOC_POLICY, EmbeddedBody::plain(include_bytes!("../assets/redoc.html"))),
        ];
        let pages = pages.map(|(path, policy, body)| (path, StaticFile::new(HTML, policy, body)));
        let files = files().map(|(path, content_type, body)| {
            (path, StaticFile::new(content_type, FILE_POLICY, body))
        });
        let all = pages.into_iter().chain(files);
        let files = all.map(|(path, file)| (format!("/{path}"), file)).collect();
        Self { mount_path: mount_path.to_owned(), files }
    }

    /// Whether a path is one of a page or file, perhaps with a trailing slash.
    pub(crate) fn serves(&self, path: &str) -> bool {
        // Nearly all requests are for other paths: this rejects most of them without a look-up.
        (path.contains("/docs") || path.contains("/redoc"))
            && self.find(path.strip_suffix('/').unwrap_or(path)).is_some()
    }

    fn find(&self, path: &str) -> Option<&StaticFile> {
        self.files.get(path.strip_prefix(&*self.mount_path)?)
    }
}

/// The pages as a tower service, for paths that [`Pages::serves`].
#[derive(Clone)]
pub(crate) struct PagesService(pub(crate) Arc<Pages>);

impl<B> Service<Request<B>> for PagesService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let file = self.0.find(request.uri().path());
        ready(Ok(file.map_or_else(
            || {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            },
            |file| file.respond(request.headers()),
        )))
    }
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Scripts, styles and requests of this origin only; `data:` allows the style sheet's icons.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// ReDoc searches in a worker and creates style elements: empty ones that it fills by script, and
/// one with a fixed text. The hashes are of the empty text and of that one; another version of
/// ReDoc may need others, which the browser's console reports.
const REDOC_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' \
     'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' \
     'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='; \
     img-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// A script or style sheet opened directly may load nothing.
const FILE_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Served files: path, content type and body. The scripts reference their license files, so these
/// are included.
fn files() -> [(&'static str, &'static str, EmbeddedBody); 9] {
    macro_rules! plain {
        ($name:literal) => {
            EmbeddedBody::plain(include_bytes!(concat!("../assets/", $name)))
        };
    }
    macro_rules! gzip {
        ($name:literal) => {
            EmbeddedBody::gzip(include_bytes!(concat!("../assets/", $name)))
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

/// An immutable file with its response headers.
struct StaticFile {
    content_type: HeaderValue,
    policy: HeaderValue,
    etag: ETag,
    body: EmbeddedBody,
}

impl StaticFile {
    fn new(content_type: &'static str, policy: &'static str, body: EmbeddedBody) -> Self {
        Self {
            content_type: HeaderValue::from_static(content_type),
            policy: HeaderValue::from_static(policy),
            etag: body.etag(),
            body,
        }
    }

    fn respond(&self, request: &HeaderMap) -> Response<Body> {
        let mut response = Response::new(Body::default());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        // Cached, but revalidated on every use: the paths are the same in all releases.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.typed_insert(self.etag.clone());
        if let Some(condition) = request.typed_get::<IfNoneMatch>()
            && !condition.precondition_passes(&self.etag)
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }

        let (body, encoding) = self.body.encoded(accepts_gzip(request));
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        *response.body_mut() = body.into();
        response
    }
}

/// A body embedded in the binary.
enum EmbeddedBody {
    Plain(Bytes),
    Gzip {
        packed: Bytes,
        /// Decompressed for the first client that does not accept gzip, then cached.
        plain: OnceLock<Bytes>,
    },
}

impl EmbeddedBody {
    fn plain(bytes: &'static [u8]) -> Self {
        Self::Plain(Bytes::from_static(bytes))
    }

    fn gzip(bytes: &'static [u8]) -> Self {
        Self::Gzip { packed: Bytes::from_static(bytes), plain: OnceLock::new() }
    }

    /// Returns the body to send and its content coding.
    fn encoded(&self, gzip: bool) -> (Bytes, Option<&'static str>) {
        match self {
            Self::Plain(bytes) => (bytes.clone(), None),
            Self::Gzip { packed, .. } if gzip => (packed.clone(), Some("gzip")),
            Self::Gzip { packed, plain } => {
                (plain.get_or_init(|| inflate(packed).into()).clone(), None)
            }
        }
    }

    /// A weak ETag (RFC 9110, section 8.8.1): the compressed and the plain body share it. It need
    /// not be stable across builds, so the standard library's hash with its fixed keys is
    /// sufficient.
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

/// Whether `gzip`, or else `*`, is accepted with a weight above zero (RFC 9110, section 12.5.3).
fn accepts_gzip(request: &HeaderMap) -> bool {
    let lists =
        request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    let mut any = false;
    for coding in lists.flat_map(|list| list.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.split_once('=').map_or("1", |(_, weight)| weight).trim();
        let is_accepted = weight.parse::<f32>().is_ok_and(|weight| weight > 0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return is_accepted,
            "*" => any = is_accepted,
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
    fn every_file_referenced_by_a_page_is_served() {
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
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        for (accept_encoding, expected) in [
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
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept_encoding));
            assert_eq!(accepts_gzip(&headers), expected, "{accept_encoding:?}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
