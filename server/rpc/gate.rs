//! The gate: what stands before every service.
//!
//! It asks the admission about the address, finds the method and a place for the call, demands a key with the method's scope, sets the caller's deadline, and sees to it that every
//! error carries an `ErrorInfo`, also those that tonic itself makes.  Reflection and health need no key, and
//! health may be asked from everywhere.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Request, Response};
use prometheus_client::metrics::counter::Counter;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::address::ClientAddress;
use super::admission::quota::Standing;
use super::admission::{Admission, Door};
use super::auth::{self, Access, Authenticate};
use super::meter::{Meter, Use};
use super::methods::Methods;
use super::origin;
use super::status;
use crate::clock::Stopwatch;
use crate::error::{Error, Kind};
use crate::origin::within;
use crate::telemetry::Metrics;

/// What load balancers ask, from wherever they are.
const HEALTH: &str = "/grpc.health.v1.";
/// What may be asked without a key.
const REFLECTION: &str = "/grpc.reflection.";

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Puts the gate before a service.
#[derive(Clone)]
pub struct GateLayer(Arc<Keeper>);

struct Keeper {
    methods: Arc<Methods>,
    authenticate: Arc<dyn Authenticate>,
    admission: Arc<Admission>,
    meter: Arc<dyn Meter>,
    metrics: Arc<Metrics>,
    /// What counts the answers of each method that are no errors, once there is one.
    answered: Box<[OnceLock<Counter>]>,
}

impl GateLayer {
    /// A gate that knows these methods and keys.
    pub fn new(
        methods: Arc<Methods>,
        authenticate: Arc<dyn Authenticate>,
        admission: Arc<Admission>,
        meter: Arc<dyn Meter>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let answered = methods.all().map(|_| OnceLock::new()).collect();
        Self(Arc::new(Keeper { methods, authenticate, admission, meter, metrics, answered }))
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { keeper: Arc::clone(&self.0), inner }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gate<S> {
    keeper: Arc<Keeper>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one to call.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(Arc::clone(&self.keeper).pass(request, inner))
    }
}

/// The answer to a call, also when what makes it panics: to its caller that is a fault of the server's like any other, and not
/// a stream that is reset.
async fn answered<E>(call: impl Future<Output = Result<Response<Body>, E>>) -> Result<Response<Body>, E> {
    AssertUnwindSafe(call)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Ok(status::to_status(&Error::internal("a method panicked")).into_http()))
}

impl Keeper {
    async fn pass<S, B>(
        self: Arc<Self>,
        mut request: Request<B>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<B>, Response = Response<Body>>,
    {
        let path = request.uri().path();
        if path.starts_with(HEALTH) {
            return inner.call(request).await;
        }
        let address = match self.admission.enter(request.headers(), request.extensions(), Door::Api) {
            Ok(address) => address,
            Err(error) => {
                let status = status::to_status(&error);
                let name = self.methods.find(path).map_or("", |method| method.path);
                self.metrics.request(name, status::code_name(status.code()));
                return Ok(status.into_http());
            }
        };
        if path.starts_with(REFLECTION) {
            return inner.call(request).await;
        }
        let Some(method) = self.methods.find(path) else {
            let error = Error::new(Kind::NotFound, "METHOD_UNKNOWN", format!("there is no method {path}"));
            return Ok(Status::with_details(Code::Unimplemented, error.message(), status::details(&error))
                .into_http());
        };
        // Before anything is done for it: a refusal has to cost next to nothing.
        let mut place = match self.admission.begin(method.class) {
            Ok(place) => place,
            Err(error) => {
                let status = status::to_status(&error);
                self.metrics.request(method.path, status::code_name(status.code()));
                return Ok(status.into_http());
            }
        };
        let scope = method.scope;
        let began = Stopwatch::start();
        if address != ClientAddress::of(request.extensions())
            && let Some(address) = address
        {
            request.extensions_mut().insert(ClientAddress(address));
        }
        let found = self.authenticate(request.headers(), address).await;
        let key_id = found.as_ref().ok().and_then(counted);
        let call = Call { name: method.path, number: method.number, began, address, key_id };
        let admitted = found.and_then(|principal| {
            // Before the key's limits: what is refused here uses up nothing.
            self.admission.claim(&mut place, &principal)?;
            self.admit(principal, scope, request.headers(), address)
        });
        let admitted = admitted.and_then(|(principal, standing)| {
            let origin = origin::read(&principal, request.headers(), address)?;
            Ok((principal, standing, origin))
        });
        let (standing, origin) = match admitted {
            Ok((principal, standing, origin)) => {
                request.extensions_mut().insert(principal);
                request.extensions_mut().insert(Access { scope, address });
                (standing, origin)
            }
            Err(error) => {
                let status = status::to_status(&error);
                self.count(call, status.code());
                return Ok(status.into_http());
            }
        };
        let time = deadline(request.headers());
        let call_it = within(origin, answered(async move { inner.call(request).await }));
        let response = match time {
            None => call_it.await?,
            Some(time) => match tokio::time::timeout(time, call_it).await {
                Ok(response) => response?,
                Err(_) => {
                    let message = "the deadline of the caller has passed";
                    status::to_status(&Error::new(Kind::DeadlineExceeded, "DEADLINE_EXCEEDED", message))
                        .into_http()
                }
            },
        };
        let (mut response, code) = with_details(response);
        if let Some(standing) = standing {
            standing.tell(response.headers_mut());
        }
        self.count(call, code);
        drop(place);
        Ok(response)
    }

    async fn authenticate(
        &self,
        headers: &HeaderMap,
        address: Option<IpAddr>,
    ) -> crate::error::Result<auth::Principal> {
        self.admission.authenticate(&*self.authenticate, auth::key(headers)?, address).await
    }

    fn admit(
        &self,
        principal: auth::Principal,
        scope: &str,
        headers: &HeaderMap,
        address: Option<IpAddr>,
    ) -> crate::error::Result<(auth::Principal, Option<Standing>)> {
        principal.require(scope)?;
        // A key's networks and limits are those of the application behind it.  Its users are elsewhere and many, and none of
        // them is to use up what the application needs: each has a limit of their own.
        let standing = match &principal.user {
            Some(user) => self.admission.admit_user(user).map(|()| None)?,
            None => self.authenticate.admit(auth::key(headers)?, address)?,
        };
        Ok((principal, standing))
    }

    fn count(&self, call: Call, code: Code) {
        let name = status::code_name(code);
        if code == Code::Ok {
            self.answered[call.number].get_or_init(|| self.metrics.requests(call.name, name)).inc();
        } else {
            self.metrics.request(call.name, name);
        }
        if let Some(key_id) = call.key_id {
            let (status, duration) = (status::http_status(code), call.began.elapsed());
            let Call { name: path, address, .. } = call;
            self.meter.used(Use { key_id, path, code: name, status, address, duration });
        }
    }
}

/// The key that a call is counted for: calls of users would tell nothing of the application that made their tokens, whose key
/// would seem to be used from everywhere.
fn counted(principal: &auth::Principal) -> Option<Arc<str>> {
    principal.user.is_none().then(|| Arc::clone(&principal.key_id))
}

/// A call under way.
struct Call {
    name: &'static str,
    number: usize,
    began: Stopwatch,
    address: Option<IpAddr>,
    /// The caller's key; `None` for a user, and when it has none that works.
    key_id: Option<Arc<str>>,
}

/// The deadline that a caller set: digits and a unit (gRPC over HTTP/2, "Timeout").
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Adds an `ErrorInfo` to an error that has none: those that tonic makes for requests that it can not decode.
fn with_details(response: Response<Body>) -> (Response<Body>, Code) {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return (response, Code::Ok);
    };
    let code = status.code();
    if code == Code::Ok || !status.details().is_empty() {
        return (response, code);
    }
    let (kind, reason) = match code {
        Code::OutOfRange | Code::ResourceExhausted => (Kind::ResourceExhausted, "MESSAGE_TOO_LARGE"),
        Code::Unimplemented => (Kind::NotFound, "METHOD_UNKNOWN"),
        _ => (Kind::InvalidArgument, "MESSAGE_INVALID"),
    };
    let code = if code == Code::OutOfRange { Code::ResourceExhausted } else { code };
    let error = Error::new(kind, reason, status.message().to_owned());
    (Status::with_details(code, status.message(), status::details(&error)).into_http(), code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_method_that_panics_is_answered() {
        let answer = answered::<std::convert::Infallible>(async { panic!("a test") }).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("a test") && !status.details().is_empty(), "{status:?}");
    }

    #[test]
    fn deadlines_have_units() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            deadline(&headers)
        };
        assert_eq!(of("100m"), Some(Duration::from_millis(100)));
        assert_eq!(of("2S"), Some(Duration::from_secs(2)));
        assert_eq!(of("1H"), Some(Duration::from_secs(3_600)));
        for bad in ["", "S", "1", "1x", "-1S", "123456789S"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
