//! From a cluster to the files of its nodes.

pub mod template;
