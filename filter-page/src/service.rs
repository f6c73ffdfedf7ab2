//! From a request to its answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{
        CACHE_CONTROL, CONNECTION, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
        HeaderName, HeaderValue, LINK, REFERRER_POLICY, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};
use jiff::Timestamp;

use crate::{
    decisions::Asked,
    page::{self, Facts},
    request::{self, Authority, Format},
    server::Shared,
    stats::Counter,
};

/// Status of the page (RFC 7725).
const UNAVAILABLE_FOR_LEGAL_REASONS: StatusCode = StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS;

/// What is said to requests for what is not blocked. Browsers then ask again on a new connection,
/// which leads to the real server.
const MISDIRECTED: &str =
    "421 Misdirected Request\nThis connection is for another site. Try again.\n";

/// What is said to requests that are none.
const BAD: &str = "400 Bad Request\nA request needs one valid Host.\n";

type Answer = Response<Full<Bytes>>;

/// The requests of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    destination: SocketAddr,
    /// The name in the TLS hello: what a request without a host is for.
    tls_name: Option<String>,
    requests: AtomicU32,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        destination: SocketAddr,
        tls_name: Option<String>,
    ) -> Self {
        Self {
            shared,
            destination,
            tls_name: tls_name.as_deref().and_then(request::normal_name),
            requests: AtomicU32::new(0),
        }
    }

    /// How many there were.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The answer, whatever the method. A body is never read: where one comes, the connection ends
    /// with the answer, and `100 Continue` is never said.
    pub(crate) fn answer<B: Body>(&self, request: &Request<B>) -> Answer {
        let count = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.shared.stats.count(Counter::Requests);
        let mut answer = match request::authority(request) {
            Ok(authority) => self.answer_for(request, authority),
            Err(request::Bad) => {
                self.shared.stats.count(Counter::BadRequests);
                ended(StatusCode::BAD_REQUEST, BAD)
            }
        };
        let has_body = !request.body().is_end_stream();
        if has_body || count >= self.shared.limits.requests {
            answer.headers_mut().insert(CONNECTION, CLOSE);
        }
        answer
    }

    fn answer_for<B>(&self, request: &Request<B>, authority: Authority) -> Answer {
        let address = self.destination.ip().to_canonical();
        let name = match authority {
            Authority::Name(name) => Some(name),
            Authority::Absent => self.tls_name.clone(),
            Authority::Address(_) => None,
        };
        let now = Timestamp::now();
        let asked = Asked {
            name: name.as_deref(),
            address,
            port: self.destination.port(),
            now,
        };
        let rules = self.shared.rules.current();
        let Some((rule, decisions)) = rules.page_rule(asked) else {
            self.shared.stats.count(Counter::Misdirected);
            return ended(StatusCode::MISDIRECTED_REQUEST, MISDIRECTED);
        };

        let texts = self.shared.theme.texts(&decisions.languages, |available| {
            request::language(request.headers(), available)
        });
        let format = request::format(request.headers());
        let facts = Facts {
            name: name.unwrap_or_else(|| address.to_string()),
            rule,
            contact: decisions.contact.as_deref(),
            texts,
        };
        self.shared.stats.count_page(&rule.id, &texts.language);
        let mut answer = Response::new(Full::new(self.shared.theme.page(&facts, format).into()));
        *answer.status_mut() = UNAVAILABLE_FOR_LEGAL_REASONS;
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        );
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Language"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_ROBOTS_TAG, HeaderValue::from_static("noindex"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            self.shared.theme.content_security_policy(),
        );
        insert(headers, CONTENT_LANGUAGE, Some(texts.language.clone()));
        let link = page::statement(rule).map(|url| format!("<{url}>; rel=\"blocked-by\""));
        insert(headers, LINK, link);
        let retry_after = rule
            .until
            .map(|until| seconds_until(until, now).to_string());
        insert(headers, RETRY_AFTER, retry_after);
        answer
    }
}

const X_ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A few words, and the connection's end.
fn ended(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let plain = HeaderValue::from_static(Format::Plain.content_type());
    headers.insert(CONTENT_TYPE, plain);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONNECTION, CLOSE);
    answer
}

/// Nothing is inserted for a value that no header can have; none is made that way.
fn insert(headers: &mut hyper::HeaderMap, name: HeaderName, value: Option<String>) {
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(name, value);
    }
}

/// Rounded up: who comes back then finds the rule ended.
fn seconds_until(until: Timestamp, now: Timestamp) -> i64 {
    let milliseconds = until.as_millisecond() - now.as_millisecond();
    milliseconds.div_euclid(1000).saturating_add(1).max(1)
}
