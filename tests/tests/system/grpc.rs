//! gRPC end to end: a real tonic client and server with the proxy between them, in all four shapes of a call.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::Guest;
use tidegate_tests::wait::within;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::MetadataValue;
use tonic::server::{
    ClientStreamingService, NamedService, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(uint32, tag = "2")]
    number: u32,
}

fn note(text: &str, number: u32) -> Note {
    Note {
        text: text.to_owned(),
        number,
    }
}

type Notes = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;

/// The service, once for each shape of a call.
#[derive(Clone, Copy)]
struct Echo;

/// `Say` sends a note back with one added to its number; an empty text is refused.
impl UnaryService<Note> for Echo {
    type Response = Note;
    type Future = BoxFuture<Response<Note>, Status>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        Box::pin(async move {
            let token = request.metadata().get("x-token").cloned();
            let note = request.into_inner();
            if note.text.is_empty() {
                return Err(Status::failed_precondition("an empty note, \u{fc}bel"));
            }
            let mut response = Response::new(self::note(&note.text, note.number + 1));
            if let Some(token) = token {
                response.metadata_mut().insert("x-token", token);
            }
            Ok(response)
        })
    }
}

/// `Count` sends as many notes as the number says, then fails if the text says so.
impl ServerStreamingService<Note> for Echo {
    type Response = Note;
    type ResponseStream = Notes;
    type Future = BoxFuture<Response<Notes>, Status>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        Box::pin(async move {
            let wish = request.into_inner();
            let fails = wish.text == "fail";
            let notes = (1..=wish.number).map(move |number| Ok(note(&wish.text, number)));
            let end = fails.then(|| Err(Status::aborted("that is enough")));
            let notes: Notes = Box::pin(stream::iter(notes.chain(end)));
            Ok(Response::new(notes))
        })
    }
}

/// `Sum` adds up the numbers of all notes.
impl ClientStreamingService<Note> for Echo {
    type Response = Note;
    type Future = BoxFuture<Response<Note>, Status>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        Box::pin(async move {
            let mut notes = request.into_inner();
            let mut sum = 0;
            while let Some(note) = notes.message().await? {
                sum += note.number;
            }
            Ok(Response::new(note("sum", sum)))
        })
    }
}

/// `Talk` answers each note as it comes.
impl StreamingService<Note> for Echo {
    type Response = Note;
    type ResponseStream = Notes;
    type Future = BoxFuture<Response<Notes>, Status>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        Box::pin(async move {
            let notes = request.into_inner();
            let answers: Notes = Box::pin(
                notes.map(|said| said.map(|said| note(&format!("re: {}", said.text), said.number))),
            );
            Ok(Response::new(answers))
        })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Note, Note>::default());
            Ok(match request.uri().path() {
                "/test.Echo/Say" => grpc.unary(Echo, request).await,
                "/test.Echo/Count" => grpc.server_streaming(Echo, request).await,
                "/test.Echo/Sum" => grpc.client_streaming(Echo, request).await,
                "/test.Echo/Talk" => grpc.streaming(Echo, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// A server on a port of its own, as an endpoint.
async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("h2c://{}", listener.local_addr().unwrap());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        Server::builder()
            .add_service(Echo)
            .serve_with_incoming(incoming),
    );
    endpoint
}

/// A client's side of the same service.
struct Client(tonic::client::Grpc<Channel>);

impl Client {
    async fn through(gateway: &Gateway) -> Self {
        let url = format!("http://{}", gateway.http());
        let endpoint = Channel::from_shared(url).unwrap();
        let channel = within("a channel", endpoint.connect()).await;
        Client(tonic::client::Grpc::new(channel.unwrap()))
    }

    async fn ready(&mut self) {
        self.0.ready().await.unwrap();
    }

    async fn say(&mut self, request: Request<Note>) -> Result<Response<Note>, Status> {
        self.ready().await;
        let call = self.0.unary(request, method("Say"), codec());
        within("an answer", call).await
    }

    async fn count(&mut self, wish: Note) -> Result<Vec<Result<Note, Status>>, Status> {
        self.ready().await;
        let call = self
            .0
            .server_streaming(Request::new(wish), method("Count"), codec());
        let notes = within("an answer", call).await?.into_inner();
        Ok(within("all notes", notes.collect()).await)
    }

    async fn sum(&mut self, notes: Vec<Note>) -> Result<Response<Note>, Status> {
        self.ready().await;
        let notes = Request::new(stream::iter(notes));
        let call = self.0.client_streaming(notes, method("Sum"), codec());
        within("an answer", call).await
    }

    async fn talk(
        &mut self,
        notes: ReceiverStream<Note>,
    ) -> Result<Response<Streaming<Note>>, Status> {
        self.ready().await;
        let call = self
            .0
            .streaming(Request::new(notes), method("Talk"), codec());
        within("an answer", call).await
    }
}

fn method(name: &str) -> PathAndQuery {
    format!("/test.Echo/{name}").parse().unwrap()
}

fn codec() -> ProstCodec<Note, Note> {
    ProstCodec::default()
}

/// Filters that touch heads and log, as most do; none asks for a body.
fn before(endpoint: &str) -> Setup {
    Setup::with_upstream("echo", endpoint)
        .filter(
            "mark",
            Guest::new()
                .sets_request_field("x-marked", "yes")
                .sets_response_field("x-marked", "yes")
                .build(),
        )
        .route("/test.Echo/*", "echo", &["mark"])
}

#[tokio::test]
async fn a_unary_call_with_metadata_goes_through() {
    let gateway = before(&server().await).start().await;
    let mut client = Client::through(&gateway).await;
    let mut request = Request::new(note("hello", 41));
    let token = MetadataValue::from_static("secret");
    request.metadata_mut().insert("x-token", token.clone());
    let response = client.say(request).await.unwrap();
    assert_eq!(response.metadata().get("x-token"), Some(&token));
    assert_eq!(response.metadata().get("x-marked").unwrap(), "yes");
    assert_eq!(response.into_inner(), note("hello", 42));
}

#[tokio::test]
async fn a_status_in_the_trailers_arrives() {
    let gateway = before(&server().await).start().await;
    let mut client = Client::through(&gateway).await;
    let status = client.say(Request::new(note("", 0))).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "an empty note, \u{fc}bel");

    let mut notes = client.count(note("fail", 2)).await.unwrap();
    let status = notes.pop().unwrap().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Aborted, "that is enough")
    );
    assert_eq!(notes.len(), 2);
}

#[tokio::test]
async fn a_stream_of_the_server_goes_through() {
    let gateway = before(&server().await).start().await;
    let mut client = Client::through(&gateway).await;
    let notes = client.count(note("n", 1000)).await.unwrap();
    let notes: Vec<Note> = notes.into_iter().map(Result::unwrap).collect();
    assert_eq!(notes.len(), 1000);
    assert_eq!(notes[999], note("n", 1000));
}

#[tokio::test]
async fn a_stream_of_the_client_goes_through() {
    let gateway = before(&server().await).start().await;
    let mut client = Client::through(&gateway).await;
    let notes = (1..=1000).map(|number| note("n", number)).collect();
    let response = client.sum(notes).await.unwrap();
    assert_eq!(response.into_inner(), note("sum", 500_500));
}

#[tokio::test]
async fn a_stream_in_both_directions_is_not_held_back() {
    let gateway = before(&server().await).start().await;
    let mut client = Client::through(&gateway).await;
    let (say, said) = mpsc::channel(1);
    say.send(note("first", 0)).await.unwrap();
    let mut answers = client
        .talk(ReceiverStream::new(said))
        .await
        .unwrap()
        .into_inner();
    let first = within("an answer", answers.next()).await.unwrap().unwrap();
    assert_eq!(first, note("re: first", 0));
    for number in 1..10 {
        // The next note is said only when the last one was answered.
        say.send(note("more", number)).await.unwrap();
        let answer = within("an answer", answers.next()).await.unwrap().unwrap();
        assert_eq!(answer, note("re: more", number));
    }
    drop(say);
    assert!(within("the end", answers.next()).await.is_none());
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let gateway = before(&server().await).start().await;
    let client = Client::through(&gateway).await;
    let calls = (0..50).map(|number| {
        let mut client = Client(client.0.clone());
        async move { client.say(Request::new(note("n", number))).await }
    });
    for (number, answer) in (0..).zip(futures_util::future::join_all(calls).await) {
        assert_eq!(answer.unwrap().into_inner(), note("n", number + 1));
    }
}

#[tokio::test]
async fn a_refusal_by_a_filter_is_a_status() {
    let gateway = Setup::with_upstream("echo", &server().await)
        .filter("no", Guest::new().answers(403, "not you").build())
        .filter("who", Guest::new().answers(401, "who are you").build())
        .toml("[[route]]\npath = \"/test.Echo/Say\"\nupstream = \"echo\"\nfilters = [\"no\"]")
        .toml("[[route]]\npath = \"/test.Echo/Count\"\nupstream = \"echo\"\nfilters = [\"who\"]")
        .start()
        .await;
    let mut client = Client::through(&gateway).await;
    let status = client.say(Request::new(note("a", 1))).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = client.count(note("a", 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_upstream_that_is_gone_is_unavailable() {
    let nobody = tidegate_tests::upstream::DeadEnd::new();
    let gateway = before(&nobody.url().replace("http:", "h2c:")).start().await;
    let mut client = Client::through(&gateway).await;
    let status = client.say(Request::new(note("a", 1))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}
