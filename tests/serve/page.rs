//! The status page, looked at by Chromium.

use super::*;

#[test]
fn the_page_follows_three_nodes_and_shows_a_thousand() {
    if support::lacks(&["python", "/usr/bin/chromium-headless-shell"]) {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve();
    let screenshots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&screenshots).unwrap();
    let output = support::command("python")
        .arg(support::repository().join("tests/serve/page.py"))
        .arg(&server.url)
        .arg(lab.path())
        .arg(nodeforge())
        .arg(&screenshots)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", support::spoken_lines(&output).join("\n"));
}

#[test]
fn the_page_asks_nobody_but_its_server() {
    let page = fs::read_to_string(support::repository().join("src/serve/page/index.html")).unwrap();
    for outside in ["http://", "https://", "//cdn", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}
