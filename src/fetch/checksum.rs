//! The `CHECKSUM` file beside ISOs: digests in the form of BSD's `sha256`.

use std::collections::BTreeMap;

use crate::format::digest::Digest;

/// Returns the SHA-256 digest of every file that `text` names, such as
/// `SHA256 (AlmaLinux-8.9-x86_64-boot.iso) = ab86…`. Other lines are left out.
///
/// Give it only text whose signature was found good.
///
/// # Errors
///
/// Fails on a digest that is none, and if one name has two digests.
pub fn parse(text: &str) -> Result<BTreeMap<String, Digest>, String> {
    let mut digests = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        let Some((name, digest)) =
            line.strip_prefix("SHA256 (").and_then(|rest| rest.rsplit_once(") = "))
        else {
            continue;
        };
        let digest: Digest = digest.parse().map_err(|e| format!("{name}: {e}"))?;
        let before = digests.insert(name.to_owned(), digest);
        if before.is_some_and(|before| before != digest) {
            return Err(format!("{name} stands there with two different digests"));
        }
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const B: &str = "ab861d80c8b68634f3c16d414a4141759a082548ad7b251d8924675fa09decab";

    #[test]
    fn bsd_lines_give_digests_by_name() {
        let text = format!("# AlmaLinux: 7 bytes\r\nSHA256 (a.iso) = {A}\r\nMD5 (a.iso) = 00\r\n");
        assert_eq!(parse(&text), Ok(BTreeMap::from([("a.iso".to_owned(), A.parse().unwrap())])));
    }

    #[test]
    fn two_digests_of_one_name_and_bad_digests_are_errors() {
        let twice = format!("SHA256 (a.iso) = {A}\nSHA256 (a.iso) = {B}\n");
        assert_eq!(parse(&twice), Err("a.iso stands there with two different digests".to_owned()));
        assert_eq!(
            parse("SHA256 (a.iso) = 12\n"),
            Err("a.iso: `12` is not a SHA-256 digest; expected 64 hex digits".to_owned())
        );
    }
}
