//! Telling the numbers to whoever asks (`/metrics` over HTTP), and writing them to a file, as long as a
//! controller runs. Nothing here stops enforcing: what fails is tried again, and said.

use std::{
    convert::Infallible,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{gather, openmetrics};
use crate::{
    cli::{self, Status},
    controller::CommandError,
    datapath::Root,
    policy::model::Metrics,
    sink::{report::Uncovered, spec::Files},
};

/// How often the file is written.
const FILE_EVERY: Duration = Duration::from_secs(15);
/// How often an address that could not be listened on is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// How old an answer may be: whoever asks more often does not cost more.
const FRESH: Duration = Duration::from_secs(1);
/// How long names without a certificate are known, if nothing else shows that they changed: certificates end.
const UNCOVERED_FRESH: Duration = Duration::from_secs(60);
/// Connections that are answered at once; one more waits.
const CONNECTIONS_MAX: usize = 8;
/// How long a connection may last, from its opening to the end of its last answer.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(20);
/// How long accepting waits when the system refuses.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PATH: &str = "/metrics";
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const READING: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// What a controller does about its numbers.
pub(crate) struct Endpoint {
    wanted: Metrics,
    source: Arc<Source>,
    /// The task that answers, and where.
    serving: Option<(SocketAddr, JoinHandle<()>)>,
    listen_problem: Option<String>,
    retry_at: Instant,
    file_at: Instant,
}

/// Where answers come from.
struct Source {
    root: Root,
    uncovered: Mutex<Option<Known>>,
    last: Mutex<Option<(Instant, Bytes)>>,
    file_problem: Mutex<Option<String>>,
}

/// The page's names without a certificate, and when what they follow from was written: to look for them
/// takes as long as the lists are.
struct Known {
    at: Instant,
    written: [Option<SystemTime>; 2],
    uncovered: Vec<Uncovered>,
}

impl Endpoint {
    pub(crate) fn new(root: &Root) -> Self {
        Self {
            wanted: Metrics::default(),
            source: Arc::new(Source {
                root: root.clone(),
                uncovered: Mutex::default(),
                last: Mutex::default(),
                file_problem: Mutex::default(),
            }),
            serving: None,
            listen_problem: None,
            retry_at: Instant::now(),
            file_at: Instant::now(),
        }
    }

    /// Brings about what is configured. To be called within the runtime.
    pub(crate) fn follow(&mut self, wanted: &Metrics) {
        if self.wanted != *wanted {
            self.wanted = wanted.clone();
            self.retry_at = Instant::now();
            self.file_at = Instant::now();
            *locked(&self.source.file_problem) = None;
        }
        self.tick();
    }

    /// Once in a while: what was not possible is tried again, the file written.
    pub(crate) fn tick(&mut self) {
        if self.serving.as_ref().map(|(address, _)| *address) != self.wanted.listen
            && self.retry_at <= Instant::now()
        {
            self.retry_at = Instant::now() + RETRY_EVERY;
            self.listen();
        }
        let Some(file) = &self.wanted.file else {
            return;
        };
        if self.file_at <= Instant::now() {
            self.file_at = Instant::now() + FILE_EVERY;
            let (source, file) = (Arc::clone(&self.source), file.clone());
            spawn_blocking(move || source.write(&file));
        }
    }

    /// Why numbers are not told as configured.
    pub(crate) fn problem(&self) -> Option<String> {
        let file = locked(&self.source.file_problem).clone();
        self.listen_problem.clone().or(file)
    }

    fn listen(&mut self) {
        if let Some((_, task)) = self.serving.take() {
            task.abort();
        }
        self.listen_problem = None;
        let Some(address) = self.wanted.listen else {
            return;
        };
        let listener = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        });
        match listener {
            Ok(listener) => {
                tracing::info!(%address, "metrics are served");
                let task = tokio::spawn(serve(listener, Arc::clone(&self.source)));
                self.serving = Some((address, task));
            }
            Err(error) => {
                let problem = format!(
                    "metrics are not served on {address}: {error}; filtering goes on, and this is tried again"
                );
                tracing::error!("{problem}");
                self.listen_problem = Some(problem);
            }
        }
    }
}

impl Source {
    /// The text, at most [`FRESH`] old.
    fn text(&self) -> Result<Bytes, String> {
        // Held while gathering: others that ask meanwhile get the same.
        let mut last = locked(&self.last);
        if let Some((at, text)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let gathered = self.status().and_then(|status| gather(&self.root, &status));
        let text = Bytes::from(openmetrics(&gathered.map_err(|error| error.to_string())?));
        *last = Some((Instant::now(), text.clone()));
        Ok(text)
    }

    fn status(&self) -> Result<Status, CommandError> {
        let files = Files::of(self.root.run_dir());
        let written = [files.decisions(), files.certificates()]
            .map(|path| fs::metadata(path).and_then(|it| it.modified()).ok());
        let mut known = locked(&self.uncovered);
        let fresh = known
            .as_ref()
            .filter(|known| known.written == written && known.at.elapsed() < UNCOVERED_FRESH)
            .map(|known| known.uncovered.clone());
        let is_new = fresh.is_none();
        let status = cli::observed(&self.root, fresh)?;
        if is_new && let Some(page) = &status.page {
            *known = Some(Known {
                at: Instant::now(),
                written,
                uncovered: page.uncovered.clone(),
            });
        }
        Ok(status)
    }

    /// Writes the file whole or not at all.
    fn write(&self, file: &PathBuf) {
        let written = self.text().and_then(|text| {
            let failed = |error: std::io::Error| error.to_string();
            let beside = beside(file);
            fs::write(&beside, text).map_err(failed)?;
            fs::rename(&beside, file).map_err(failed)
        });
        let problem = written
            .err()
            .map(|error| format!("metrics are not written to {}: {error}", file.display()));
        let mut known = locked(&self.file_problem);
        if let Some(problem) = problem.as_ref().filter(|_| *known != problem) {
            tracing::error!("{problem}");
        }
        *known = problem;
    }
}

/// A name that node_exporter does not read.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: tokio::net::TcpListener, source: Arc<Source>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics is not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, Arc::clone(&source)));
            let connection = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // Who asked went away, or took too long: nobody else minds.
            let _ = timeout(CONNECTION_TIME_MAX, connection).await;
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    source: Arc<Source>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != PATH {
        return Ok(plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only reading\n");
        refused.headers_mut().insert(ALLOW, READING);
        return Ok(refused);
    }
    let gathered = spawn_blocking(move || source.text()).await;
    Ok(match gathered {
        Ok(Ok(text)) => {
            let mut answer = Response::new(Full::new(text));
            answer.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
            answer
        }
        Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, error + "\n"),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    })
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, PLAIN);
    answer
}
