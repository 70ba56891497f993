//! The cluster: what the user wants, resolved until nothing is left to check.
//!
//! [`model`] holds the types everything after the resolver uses. A [`Cluster`] exists only
//! if every name in the file resolves, addresses are unique and defaults are filled.

pub mod doc;
mod expr;
mod merge;
pub mod model;
mod resolve;
pub mod schema;
mod secret_ref;
mod text;

pub use model::*;
pub use resolve::{Resolved, Rule, Said, Why, WhyError, why};
pub use secret_ref::{SecretRef, SecretRefError};
