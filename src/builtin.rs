//! The profiles and overlays that the binary brings along.

use std::borrow::Cow;
use std::path::Path;

use include_dir::{Dir, include_dir};

use crate::overlay::{LibraryFile, LibraryFiles};

static PROFILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/profiles");
static OVERLAYS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/overlays");

/// Every built-in file by path, such as `profiles/server.toml`.
pub fn files() -> LibraryFiles {
    let mut files = LibraryFiles::new();
    collect(&PROFILES, "profiles", &mut files);
    collect(&OVERLAYS, "overlays", &mut files);
    files
}

fn collect(dir: &'static Dir<'static>, top: &str, files: &mut LibraryFiles) {
    for file in dir.files() {
        let below = file.path().to_str().expect("the paths of the repository are UTF-8");
        let path = format!("{top}/{below}");
        let shown = Path::new("<builtin>").join(&path);
        files.insert(path, LibraryFile { shown, bytes: Cow::Borrowed(file.contents()) });
    }
    for dir in dir.dirs() {
        collect(dir, top, files);
    }
}
