//! The admin port: is it alive, is it ready, what does it count, what is stuck.

mod health;
pub mod metrics;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

use crate::config::AdminToken;
use crate::relay::status::Progress;
use crate::status::report::Report;
use metrics::{Metrics, OutboxMetrics};

pub use health::{Health, describe, readiness};
pub use status::Process;

/// One outbox as the admin port shows it.
#[derive(Debug, Clone)]
pub struct Shown {
    pub name: String,
    /// As it stands in the leases.
    pub table: String,
    pub progress: Arc<Progress>,
    pub metrics: OutboxMetrics,
}

/// What the admin port answers from.
#[derive(Debug)]
pub struct Admin {
    pub process: Process,
    pub metrics: Metrics,
    pub outboxes: Vec<Shown>,
    /// What whoever asks for metrics or the status must know.
    pub token: Option<AdminToken>,
}

impl Admin {
    /// Listens on `address`.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    /// Brings the gauges up to date, before they are read.
    pub fn refresh(&self) {
        for outbox in &self.outboxes {
            outbox.metrics.refresh();
        }
    }

    /// How everything stands, as far as this process knows.
    pub fn report(&self) -> Report {
        status::report(&self.process, &self.outboxes)
    }

    /// Serves until it is dropped.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        // What a health check says is needed by whoever restarts or replaces a process, and tells a stranger next to
        // nothing; a probe of Kubernetes has nowhere to keep a secret either.
        let open = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz));
        let closed = Router::new()
            .route("/metrics", get(scrape))
            .route("/status", get(status))
            .route_layer(from_fn_with_state(Arc::clone(&self), authorized));
        let router = open.merge(closed).with_state(self);
        axum::serve(listener, router).await
    }
}

/// Lets those in who know the token, if there is one. Comparing takes as long whatever is wrong with theirs.
async fn authorized(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let Some(token) = &admin.token else {
        return next.run(request).await;
    };
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| bearer(value.as_bytes()));
    let is_known = given.is_some_and(|given| given.ct_eq(token.expose().as_bytes()).into());
    match is_known {
        true => next.run(request).await,
        false => {
            let how = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, how, "admin.token is wanted\n").into_response()
        }
    }
}

/// The token of an `Authorization: Bearer …`; the scheme may be written in any case.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// This process works; nothing else is asked, so that an outage of Kafka or Postgres never gets the
/// application restarted or taken out of service along with its sidecar.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let mut status = StatusCode::OK;
    let mut text = String::new();
    for outbox in &admin.outboxes {
        if !readiness(&outbox.progress).is_ready() {
            status = StatusCode::SERVICE_UNAVAILABLE;
        }
        text.push_str(&format!(
            "{}: {}\n",
            outbox.name,
            describe(&outbox.progress)
        ));
    }
    (status, text)
}

async fn scrape(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    admin.refresh();
    match admin.metrics.encode() {
        Ok(text) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    match serde_json::to_string_pretty(&admin.report()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
