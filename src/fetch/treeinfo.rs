//! The `.treeinfo` file of an installation tree: which files it has, with their digests.
//!
//! It is unsigned. Read over https it says what the mirror says; read over plain http it
//! guards against accidents only, as whoever changes an image on the way changes the digest
//! too. Images out of a signed ISO are free of that.

use std::collections::BTreeMap;

use crate::format::digest::Digest;

/// What nodeforge reads of a `.treeinfo` (productmd 1.x, `productmd/treeinfo.py`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeInfo {
    /// Such as `8.9`; empty if the file does not say.
    pub version: String,
    /// Such as `x86_64`; empty if the file does not say.
    pub arch: String,
    /// SHA-256 digests by path in the tree; other kinds of digest are left out.
    pub sha256: BTreeMap<String, Digest>,
}

impl TreeInfo {
    /// Reads the INI text of a `.treeinfo`.
    ///
    /// # Errors
    ///
    /// Fails on a SHA-256 digest that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let sections = ini_sections(text);
        let value =
            |section: &str, key: &str| -> Option<&str> { sections.get(section)?.get(key).copied() };
        let mut sha256 = BTreeMap::new();
        for (path, digest) in sections.get("checksums").into_iter().flatten() {
            if let Some(digest) = digest.strip_prefix("sha256:") {
                let digest = digest.trim().parse().map_err(|e| format!("{path}: {e}"))?;
                sha256.insert((*path).to_owned(), digest);
            }
        }
        let first = |places: [(&str, &str); 2]| {
            places.iter().find_map(|(section, key)| value(section, key)).unwrap_or_default()
        };
        Ok(Self {
            version: first([("release", "version"), ("general", "version")]).to_owned(),
            arch: first([("tree", "arch"), ("general", "arch")]).to_owned(),
            sha256,
        })
    }

    /// Whether the tree may be that of `release`.
    ///
    /// Trees of this family write `8.9`, `8.9.0` or just `8`, so only the parts that both
    /// have are compared.
    pub fn may_be_release(&self, release: &str) -> bool {
        let own = self.version.split('.');
        self.version.is_empty() || own.zip(release.split('.')).all(|(own, asked)| own == asked)
    }
}

fn ini_sections(text: &str) -> BTreeMap<&str, BTreeMap<&str, &str>> {
    let mut sections: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with([';', '#']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=') {
            sections.entry(section).or_default().insert(key.trim(), value.trim());
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn treeinfo_gives_version_arch_and_sha256_digests() {
        let text = format!(
            "[checksums]\n\
             images/pxeboot/vmlinuz = sha256:{DIGEST}\n\
             images/old.img = md5:900150983cd24fb0d6963f7d28e17f72\n\
             [general]\n\
             ; WARNING.0 = This section provides compatibility with pre-productmd treeinfos.\n\
             arch = x86_64\n\
             version = 8\n\
             [header]\n\
             version = 1.2\n\
             [release]\n\
             version = 8.9\n\
             [tree]\n\
             arch = x86_64\n"
        );
        let sha256 =
            BTreeMap::from([("images/pxeboot/vmlinuz".to_owned(), DIGEST.parse().unwrap())]);
        assert_eq!(
            TreeInfo::parse(&text),
            Ok(TreeInfo { version: "8.9".to_owned(), arch: "x86_64".to_owned(), sha256 })
        );
    }

    #[test]
    fn a_malformed_digest_is_an_error_with_its_file() {
        assert_eq!(
            TreeInfo::parse("[checksums]\nimages/install.img = sha256:12\n"),
            Err("images/install.img: `12` is not a SHA-256 digest; expected 64 hex digits"
                .to_owned())
        );
    }

    #[test]
    fn releases_agree_if_their_common_parts_do() {
        for (version, release, agrees) in [
            ("8.9", "8.9", true),
            ("8.9.0", "8.9", true),
            ("8", "8.9", true),
            ("", "8.9", true),
            ("8.10", "8.9", false),
            ("8.1", "8.10", false),
            ("9.3", "8.9", false),
        ] {
            let tree = TreeInfo {
                version: version.to_owned(),
                arch: String::new(),
                sha256: BTreeMap::new(),
            };
            assert_eq!(tree.may_be_release(release), agrees, "{version} for {release}");
        }
    }
}
