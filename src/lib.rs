//! nodeforge builds everything a DAOS storage cluster on AlmaLinux 8 needs so that its
//! nodes come up already configured.
//!
//! Data flows one way; each arrow is one function and nothing reaches back:
//!
//! ```text
//! cluster.toml ┐
//! profiles/    ├─ source ─► ClusterDoc ─► Cluster ─► Plan ─► FileTree ─► bytes ─► Artifact ─► Manifest
//! overlays/    ┘  reads     as written    valid      what    what is     format/   on disk,
//!                           + spans       (pure)     to do   in it                 hashed
//! ```
//!
//! Every verb of the command line is a prefix of that pipeline. The modules below stand in
//! layers, in reading order; a module uses its own layer and the ones above it, which
//! `tests/` checks. Start with [`cluster`] for the model and [`commands`] for the verbs.

// Vocabulary (pure): what words mean.
pub mod diag;
pub mod net;
pub mod range;
pub mod tree;
pub mod units;

// Model (pure): what the user wants.
pub mod cluster;
pub mod daos;
pub mod hardware;
pub mod overlay;
pub mod profile;
pub mod toml_doc;

// Plan (pure): which artefacts, from what.
pub mod plan;

// Content (pure): what is in an image.
pub mod render;

// Formats (pure): bytes; they know nothing of nodes.
pub mod format;

// Media (pure): what firmware and installers expect.
pub mod changes;
pub mod manifest;
pub mod media;
pub mod vm;

// Edges: the only code that touches the world.
pub mod build;
pub mod builtin;
pub mod fetch;
pub mod lab;
pub mod output;
pub mod progress;
pub mod remaster;
pub mod repodata;
pub mod rootfs;
pub mod secrets;
pub mod serve;
pub mod signals;
pub mod source;
pub mod tool;

// Program: from arguments to the pipeline.
pub mod cli;
pub mod commands;
