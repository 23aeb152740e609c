//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::SharedMetrics;

/// Says why the server is not ready; `None` when it is.
pub(crate) type Readiness = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Brings metrics up to date that nobody keeps so all the time.
pub(crate) type Refresh = Arc<dyn Fn() + Send + Sync>;

/// The routes of the operations port.
pub(crate) fn router(readiness: Readiness, metrics: SharedMetrics, refresh: Refresh) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(text).with_state((metrics, refresh)))
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    match readiness() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn text(State((metrics, refresh)): State<(SharedMetrics, Refresh)>) -> impl IntoResponse {
    refresh();
    // The type that the OpenMetrics text format asks for.
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.text())
}
