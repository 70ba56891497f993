//! What DAOS is told and what it would refuse: its configuration files, its rules with its
//! own codes, its memory formulas.
//!
//! Everything here is pure and reads a resolved [`Cluster`](crate::cluster::Cluster).
//! [`config`] makes the three YAML files and [`rules`] checks what they would say; both use
//! [`memory`] for the formulas and [`versions`] for what differs between releases.
//! [`explain`] is the text behind every code and [`sizing`] what `plan` prints.
//!
//! The facts come from the sources of DAOS at the tags v2.6.0, v2.6.2, v2.6.5 and v2.8.0;
//! paths in comments are relative to its `src/control/`.

pub mod config;
pub mod explain;
pub mod format_plan;
pub mod immutable;
pub mod memory;
pub mod rules;
pub mod sizing;
pub mod versions;
mod yaml;

pub use config::{ServerYaml, agent_yaml, control_yaml, server_yaml};
pub use explain::explain;
pub use format_plan::FormatPlan;
