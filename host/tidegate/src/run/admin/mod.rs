//! The admin pages, served on the control thread: what the process is doing, for people, probes and Prometheus. Nothing
//! can be changed here, and no request of a client comes this way.

mod figures;
mod guard;
mod pages;

pub(crate) use self::pages::{Pages, Phase};

use std::convert::Infallible;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::backoff::{Backoff, Told, is_of_one_connection};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 128;
/// How long a request's head may take, and a connection rest.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may live, whatever it does.
const LIFE: Duration = Duration::from_secs(300);
/// The same when it has the last descriptor.
const SHORT_LIFE: Duration = Duration::from_secs(2);

/// Serves the pages on a socket until the handle is used.
pub(crate) fn serve(listener: TcpListener, pages: Rc<Pages>) -> AbortHandle {
    tokio::task::spawn_local(accept(listener, pages)).abort_handle()
}

async fn accept(listener: TcpListener, pages: Rc<Pages>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let (mut backoff, told) = (Backoff::default(), Told::default());
    // Held for the day when traffic has taken every descriptor: then one connection at a time is served with it.
    let mut spare = listener.as_fd().try_clone_to_owned().ok();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                backoff.succeeded();
                let lasts = spare.is_some();
                let served = connection(stream, Rc::clone(&pages), place, lasts);
                if lasts {
                    tokio::task::spawn_local(served);
                } else {
                    served.await;
                    spare = listener.as_fd().try_clone_to_owned().ok();
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if told.failed(Instant::now()).is_some() {
                    tracing::error!(%error, "connections to the admin pages can't be accepted");
                }
                if spare.take().is_none() {
                    tokio::time::sleep(backoff.failed()).await;
                }
            }
        }
    }
}

/// Serves a connection; one that does not last has one request, and little time for it.
async fn connection(
    stream: TcpStream,
    pages: Rc<Pages>,
    _place: OwnedSemaphorePermit,
    lasts: bool,
) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(&request, &pages);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(lasts)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever asked is gone, or too slow: nobody is left to be told.
    let life = if lasts { LIFE } else { SHORT_LIFE };
    let _ = tokio::time::timeout(life, served).await;
}

fn answer<B>(request: &Request<B>, pages: &Pages) -> Response<Full<Bytes>> {
    let refused = guard::check(request.method(), request.uri(), request.headers());
    if let Err(refusal) = refused {
        let mut response = text(refusal.status, format!("{}\n", refusal.why));
        if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        return response;
    }
    let mut response = page(request.uri().path(), pages);
    if request.method() == Method::HEAD {
        *response.body_mut() = Full::default();
    }
    response
}

fn page(path: &str, pages: &Pages) -> Response<Full<Bytes>> {
    match path {
        "/" => text(StatusCode::OK, INDEX),
        "/livez" => text(StatusCode::OK, "alive\n"),
        "/readyz" => match pages.phase() {
            Phase::Ready => text(StatusCode::OK, "ready\n"),
            Phase::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Phase::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        "/metrics" => response(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            pages.metrics().into(),
        ),
        "/plugins" => response(StatusCode::OK, "application/json", pages.plugins()),
        "/config" => response(StatusCode::OK, "application/json", pages.configuration()),
        _ => text(StatusCode::NOT_FOUND, INDEX),
    }
}

const INDEX: &str = "\
/livez    whether the process is alive
/readyz   whether it serves requests
/metrics  figures, in Prometheus' text format
/plugins  filters and their state, as JSON
/config   the configuration in force, as JSON
";

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text.into())
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static("default-src 'none'"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::metrics::Registry;

    fn ask(method: Method, path: &str, pages: &Pages) -> Response<Full<Bytes>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1:9901")
            .body(())
            .unwrap();
        answer(&request, pages)
    }

    #[test]
    fn readiness_follows_the_process() {
        let pages = Pages::new(Arc::new(Registry::new()));
        let status = |path: &str| ask(Method::GET, path, &pages).status().as_u16();
        assert_eq!((status("/livez"), status("/readyz")), (200, 503));
        pages.set_phase(Phase::Ready);
        assert_eq!((status("/livez"), status("/readyz")), (200, 200));
        pages.set_phase(Phase::Draining);
        assert_eq!((status("/livez"), status("/readyz")), (200, 503));
        assert_eq!(status("/other"), 404);
    }

    #[test]
    fn nothing_can_be_changed_and_that_is_said() {
        let pages = Pages::new(Arc::new(Registry::new()));
        let response = ask(Method::POST, "/livez", &pages);
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        assert_eq!(
            ask(Method::HEAD, "/metrics", &pages).status(),
            StatusCode::OK
        );
    }
}
