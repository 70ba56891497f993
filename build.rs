//! Files that are added to overlays/ or profiles/ must come into the binary, too: what
//! `include_dir!` embeds, cargo watches only file by file.

fn main() {
    println!("cargo::rerun-if-changed=overlays");
    println!("cargo::rerun-if-changed=profiles");
}
