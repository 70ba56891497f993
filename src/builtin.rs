//! The profiles and overlays that the binary brings along.

use include_dir::{Dir, include_dir};

static PROFILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/profiles");
static OVERLAYS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/overlays");

/// Every built-in file by path, such as `profiles/server.toml`.
pub fn files() -> impl Iterator<Item = (String, &'static [u8])> {
    let below = |dir: &'static Dir<'static>, prefix: &'static str| {
        let mut files = Vec::new();
        collect(dir, &mut files);
        files.into_iter().map(move |(path, bytes)| (format!("{prefix}/{path}"), bytes))
    };
    below(&PROFILES, "profiles").chain(below(&OVERLAYS, "overlays"))
}

fn collect(dir: &'static Dir<'static>, files: &mut Vec<(&'static str, &'static [u8])>) {
    for file in dir.files() {
        let path = file.path().to_str().expect("the paths of the repository are UTF-8");
        files.push((path, file.contents()));
    }
    for dir in dir.dirs() {
        collect(dir, files);
    }
}
