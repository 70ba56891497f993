//! The XML of repository metadata: `repomd.xml`, `primary.xml` and `comps.xml`.
//!
//! Read as a stream, so that memory grows with the names and not with the file. External
//! entities are not resolved, as quick-xml knows none.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{Context, Result, anyhow, bail};
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::Repodata;

/// What `repomd.xml` says of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DataFile {
    /// Relative to the repository.
    pub href: String,
    /// Such as `sha256`.
    pub checksum_kind: String,
    /// Hexadecimal, of the file as it lies there.
    pub checksum: String,
    /// Bytes of the file as it lies there.
    pub size: Option<u64>,
    /// Bytes of the file unpacked.
    pub open_size: Option<u64>,
}

/// Returns the files of a `repomd.xml` by kind (`primary`, `group`, …).
pub(super) fn parse_repomd(xml: impl BufRead) -> Result<BTreeMap<String, DataFile>> {
    let mut files = BTreeMap::new();
    let mut kind = String::new();
    let mut file = DataFile::default();
    walk(xml, "repomd", |path, step| {
        match (path, step) {
            (["repomd", "data"], Step::Open(tag)) => {
                kind = attribute(tag, "type")?.unwrap_or_default();
                file = DataFile::default();
            }
            (["repomd", "data", "location"], Step::Open(tag)) => {
                file.href = attribute(tag, "href")?.unwrap_or_default();
                if let Some(base) = attribute(tag, "xml:base")? {
                    bail!("`{}` lies elsewhere, at {base}; that is not supported", file.href);
                }
            }
            (["repomd", "data", "checksum"], Step::Open(tag)) => {
                file.checksum_kind = attribute(tag, "type")?.unwrap_or_default();
            }
            (["repomd", "data", "checksum"], Step::Close(text)) => file.checksum = text.to_owned(),
            (["repomd", "data", "size"], Step::Close(text)) => file.size = text.parse().ok(),
            (["repomd", "data", "open-size"], Step::Close(text)) => {
                file.open_size = text.parse().ok();
            }
            (["repomd", "data"], Step::Close(_)) => {
                files.insert(std::mem::take(&mut kind), std::mem::take(&mut file));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(files)
}

/// Adds the packages of a `primary.xml`, and what they provide, to `repodata`. Source packages
/// are left out.
pub(super) fn parse_primary(xml: impl BufRead, repodata: &mut Repodata) -> Result<()> {
    let mut name = String::new();
    let mut arch = String::new();
    let mut provides = Vec::new();
    walk(xml, "metadata", |path, step| {
        match (path, step) {
            (["metadata", "package", "name"], Step::Close(text)) => name = text.to_owned(),
            (["metadata", "package", "arch"], Step::Close(text)) => arch = text.to_owned(),
            (["metadata", "package", "format", "rpm:provides", "rpm:entry"], Step::Open(tag)) => {
                provides.extend(attribute(tag, "name")?);
            }
            (["metadata", "package"], Step::Close(_)) => {
                if name.is_empty() {
                    bail!("a package without a name");
                }
                let (name, provides) = (std::mem::take(&mut name), std::mem::take(&mut provides));
                if !matches!(arch.as_str(), "src" | "nosrc") {
                    repodata.packages.insert(name);
                    repodata.provides.extend(provides);
                }
            }
            _ => {}
        }
        Ok(())
    })
}

/// Adds the groups and environments of a `comps.xml` to `repodata`.
pub(super) fn parse_comps(xml: impl BufRead, repodata: &mut Repodata) -> Result<()> {
    let mut is_translated = false;
    walk(xml, "comps", |path, step| {
        let ["comps", kind @ ("group" | "environment"), "id" | "name"] = *path else {
            return Ok(());
        };
        match step {
            Step::Open(tag) => is_translated = attribute(tag, "xml:lang")?.is_some(),
            Step::Close(text) if !is_translated => {
                let names = match kind {
                    "group" => &mut repodata.groups,
                    _ => &mut repodata.environments,
                };
                names.insert(text.to_owned());
            }
            Step::Close(_) => {}
        }
        Ok(())
    })
}

/// One end of an element.
enum Step<'a, 'b> {
    Open(&'a BytesStart<'b>),
    /// With the text that stood in it.
    Close(&'a str),
}

/// The deepest nesting that is followed; real metadata has six levels.
const MAX_DEPTH: usize = 32;

/// Tells `visit` of both ends of every element, with the path to it.
fn walk(
    xml: impl BufRead,
    root: &str,
    mut visit: impl FnMut(&[&str], Step) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::from_reader(xml);
    reader.config_mut().expand_empty_elements = true;
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut is_whole = false;
    let mut buffer = Vec::new();
    loop {
        let position = reader.buffer_position();
        let place = || format!("at byte {position}");
        match reader.read_event_into(&mut buffer).map_err(plain).with_context(place)? {
            Event::Start(tag) => {
                path.push(tag.name().as_ref().to_owned());
                if path.len() > MAX_DEPTH {
                    bail!("its elements are nested too deeply");
                }
                text.clear();
                visit(&names(&path), Step::Open(&tag)).with_context(place)?;
            }
            Event::End(_) => {
                visit(&names(&path), Step::Close(text.trim())).with_context(place)?;
                is_whole |= path.len() == 1 && path[0] == root;
                path.pop();
                text.clear();
            }
            Event::Text(piece) => text.push_str(&piece),
            Event::CData(piece) => text.push_str(&piece),
            Event::GeneralRef(name) => {
                let entity = resolve_predefined_entity(&name)
                    .ok_or_else(|| anyhow!("unknown entity &{};", &*name))?;
                text.push_str(entity);
            }
            Event::Eof if is_whole && path.is_empty() => return Ok(()),
            Event::Eof => bail!("it ends early, there is no whole <{root}>"),
            _ => {}
        }
        buffer.clear();
    }
}

/// `error` without its causes: quick-xml says those in its own message too.
fn plain(error: quick_xml::Error) -> anyhow::Error {
    match error {
        quick_xml::Error::Io(error) => anyhow!("{error}"),
        error => anyhow!("{error}"),
    }
}

fn names(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

fn attribute(tag: &BytesStart, name: &str) -> Result<Option<String>> {
    let attribute = tag.try_get_attribute(name)?;
    attribute
        .map(|attribute| Ok(attribute.normalized_value(XmlVersion::Implicit1_0)?.into_owned()))
        .transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn primary_gives_binary_packages_and_what_they_provide() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
            <metadata xmlns="http://linux.duke.edu/metadata/common"
                xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="2">
            <package type="rpm"><name>a&amp;b</name><arch>x86_64</arch><format>
                <rpm:provides><rpm:entry name="lib&lt;c&gt;" flags="EQ" ver="1"/></rpm:provides>
                <rpm:requires><rpm:entry name="needed"/></rpm:requires></format></package>
            <package type="rpm"><name>source</name><arch>src</arch></package>
            </metadata>"#;
        let mut repodata = Repodata::default();
        parse_primary(xml.as_bytes(), &mut repodata).unwrap();
        let expected =
            Repodata { packages: set(&["a&b"]), provides: set(&["lib<c>"]), ..Repodata::default() };
        assert_eq!(repodata, expected);
    }

    #[test]
    fn comps_gives_ids_and_english_names() {
        let xml = r#"<comps><group><id>core</id><name>Core</name><name xml:lang="de">Kern</name>
            <packagelist><packagereq type="mandatory">bash</packagereq></packagelist></group>
            <category><id>x</id></category>
            <environment><id>minimal-environment</id><name>Minimal Install</name></environment>
            </comps>"#;
        let mut repodata = Repodata::default();
        parse_comps(xml.as_bytes(), &mut repodata).unwrap();
        let expected = Repodata {
            groups: set(&["Core", "core"]),
            environments: set(&["Minimal Install", "minimal-environment"]),
            ..Repodata::default()
        };
        assert_eq!(repodata, expected);
    }

    #[test]
    fn what_is_cut_short_nested_without_end_or_no_metadata_is_refused() {
        let deep = "<metadata>".repeat(40);
        for (xml, message) in [
            ("", "it ends early, there is no whole <metadata>"),
            ("<metadata><package>", "it ends early, there is no whole <metadata>"),
            ("<html></html>", "it ends early, there is no whole <metadata>"),
            ("<metadata>&x;</metadata>", "unknown entity &x;"),
            (&deep, "its elements are nested too deeply"),
        ] {
            let error = parse_primary(xml.as_bytes(), &mut Repodata::default()).unwrap_err();
            assert_eq!(error.to_string(), message, "from {xml:?}");
        }
    }
}
