//! (being written)
pub mod http_request;
