//! Profiles: what a role means, one file each (`profiles/server.toml`).

use crate::cluster::schema::PROFILE_FILE;
use crate::diag::{Problems, SourceId, SourceMap, Span};
use crate::toml_doc::{self, Missing, Table};

/// A profile as written: the lowest layer of the nodes that have its role.
#[derive(Clone, Debug)]
pub struct Profile {
    pub source: SourceId,
    pub table: Table,
}

/// Reads the text of `source`; what is wrong with it becomes a problem.
pub fn parse(sources: &SourceMap, source: SourceId, problems: &mut Problems) -> Profile {
    let table = toml_doc::parse(sources, source, problems);
    toml_doc::check(&table, PROFILE_FILE, Missing::At(Span::new(source, 0..0)), problems);
    Profile { source, table }
}
