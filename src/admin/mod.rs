//! The admin port: is it alive, is it ready, what does it count, what is stuck.

mod health;
pub mod metrics;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

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
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(scrape))
            .route("/status", get(status))
            .with_state(self);
        axum::serve(listener, router).await
    }
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
