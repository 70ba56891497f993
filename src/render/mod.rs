//! From a cluster to the files of its nodes.

pub mod context;
pub mod install;
pub mod kickstart;
pub mod media_scripts;
pub mod node_plan;
pub mod overlay;
mod owners;
pub mod prepared;
pub mod template;
