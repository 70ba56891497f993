//! From a cluster to the files of its nodes.

pub mod context;
pub mod overlay;
pub mod template;
