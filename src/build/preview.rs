//! What a build would publish, without writing anything.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};

use crate::build::target::Nowhere;
use crate::build::{
    BuildError, BuildInput, base64, is_kickstart_secret, kind_menus, make, shared_boot_files,
};
use crate::changes::{Secret, Side};
use crate::cluster::Node;
use crate::diag::Diagnostic;
use crate::format::digest::Digest;
use crate::manifest::Manifest;
use crate::output::Stored;
use crate::progress::Progress;
use crate::render::install::NodeFiles;
use crate::render::kickstart::EmbeddedFile;
use crate::tree::FileTree;

/// The manifest of a build that is not made. What was made anew for it is kept, as far as there
/// is room, until it is asked for; the rest is rendered again then.
pub struct Preview<'a> {
    input: &'a BuildInput<'a>,
    made: Nowhere<'a>,
    manifest: Manifest,
    trees: BTreeMap<String, FileTree>,
    /// Of each kind's bundle of secrets.
    secrets: Vec<Secret>,
}

impl<'a> Preview<'a> {
    /// Works out what `input` would give. Of the nodes that `old` has and whose inputs are the
    /// same nothing is rendered.
    ///
    /// # Errors
    ///
    /// [`BuildError`], as for a build.
    pub fn new(input: &'a BuildInput<'a>, old: &'a Stored) -> Result<Self, BuildError> {
        let secrets = input.secrets.iter().map(|secrets| match secrets.is_empty() {
            true => Secret::None,
            false if is_kickstart_secret(input.cluster, secrets) => Secret::None,
            false => Secret::Bundle(Digest::of(secrets.bundle())),
        });
        let known = old.inputs();
        let made = Nowhere::beside(old, input.prepared.kickstart_scripts());
        let whole = known.whole.map(|whole| whole.digest);
        let manifest = match input.whole.is_some() && input.whole == whole {
            true => old.manifest().clone(),
            false => make(input, &made, &known, &Progress::hidden())?.0,
        };
        let trees = input.prepared.layers().map_err(BuildError::Problems)?;
        Ok(Self { input, made, manifest, trees, secrets: secrets.collect() })
    }

    fn node_of(&self, name: &str) -> Result<&'a Node> {
        self.input.cluster.node(name).with_context(|| format!("there is no node {name}"))
    }
}

/// What was rendered once and fails now: not the user's to mend.
fn again(problems: Vec<Diagnostic>) -> anyhow::Error {
    let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
    anyhow!("rendering again: {}", messages.join("; "))
}

impl Side for Preview<'_> {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn layer(&self, name: &str) -> Result<FileTree> {
        self.trees.get(name).cloned().with_context(|| format!("there is no layer {name}"))
    }

    fn node(&self, name: &str) -> Result<FileTree> {
        if let Some(tree) = self.made.take_tree(name) {
            return Ok(tree);
        }
        let node = self.node_of(name)?;
        self.input.prepared.nodes_of_kind(node.kind).own_tree(node).map_err(again)
    }

    /// One that is rendered again is without the public archives that may be inside, which
    /// nobody compares.
    fn kickstart(&self, node: &str) -> Result<Option<String>> {
        if let Some(kickstart) = self.made.take_kickstart(node) {
            return Ok(Some(kickstart));
        }
        let node = self.node_of(node)?;
        let secrets = &self.input.secrets[node.kind];
        let is_secret = is_kickstart_secret(self.input.cluster, secrets);
        let embedded = match is_secret {
            true => vec![EmbeddedFile {
                name: "secrets.tar.gz".to_owned(),
                base64: base64(secrets.bundle()),
            }],
            false => Vec::new(),
        };
        let root_hash = secrets.root_hash().filter(|_| is_secret).map(str::to_owned);
        let files = NodeFiles { overlay_sha256: String::new(), embedded, root_hash };
        let mut renderer = self.input.prepared.nodes_of_kind(node.kind);
        renderer.kickstart(node, files).map(Some).map_err(again)
    }

    fn boot_file(&self, node: Option<&str>, path: &str) -> Result<Option<Vec<u8>>> {
        if let Some(text) = self.made.take_boot_file(path) {
            return Ok(Some(text.into_bytes()));
        }
        let files = match node {
            Some(node) => {
                let node = self.node_of(node)?;
                kind_menus(self.input, node.kind).files(node)
            }
            None => shared_boot_files(self.input),
        };
        let files = files.map_err(|fault| again(vec![self.input.prepared.diagnostic(&fault)]))?;
        Ok(files.get(path).map(|text| text.clone().into_bytes()))
    }

    fn secret(&self, node: &str) -> Secret {
        match self.input.cluster.node(node) {
            Some(node) => self.secrets[node.kind],
            None => Secret::None,
        }
    }
}
