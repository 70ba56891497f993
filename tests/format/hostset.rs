//! Host sets as DAOS folds them, read by the script's own function.

use std::path::Path;
use std::process::Command;

/// The hosts of each text, or `ValueError`.
fn unfold(texts: &[&str]) -> Vec<String> {
    let program = "
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.SourceFileLoader('script', sys.argv[1])
spec = importlib.util.spec_from_loader('script', loader)
script = importlib.util.module_from_spec(spec)
loader.exec_module(script)
for text in sys.argv[2:]:
    try:
        print(' '.join(script.unfold(text)))
    except ValueError:
        print('ValueError')
";
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("overlays/daos-admin/rootfs/usr/libexec/nodeforge/format");
    let output = Command::new("python3")
        .args(["-B", "-c", program])
        .arg(script)
        .args(texts)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn folded_host_sets_are_unfolded() {
    let rows = [
        ("node0:10001", "node0"),
        ("node0", "node0"),
        ("node[0-2]:10001", "node0 node1 node2"),
        ("node[0-2,5]:10001", "node0 node1 node2 node5"),
        ("node[0,2]:10001", "node0 node2"),
        ("srv[001-003,017]:10001", "srv001 srv002 srv003 srv017"),
        ("srv[8-11]", "srv8 srv9 srv10 srv11"),
        ("srv[08-11]", "srv08 srv09 srv10 srv11"),
        ("node[0-1]:10001,srv[1-2]:10002", "node0 node1 srv1 srv2"),
        ("10.77.0.99:10001", "10.77.0.99"),
        ("10.77.0.[10-12]:10001,node7:10001", "10.77.0.10 10.77.0.11 10.77.0.12 node7"),
        ("r[1-2]n[1-2]-ib", "r1n1-ib r1n2-ib r2n1-ib r2n2-ib"),
        ("node[0-1].lab.local:10001", "node0.lab.local node1.lab.local"),
        ("NODE[0-1]", "node0 node1"),
    ];
    let texts: Vec<&str> = rows.iter().map(|(text, _)| *text).collect();
    for ((text, hosts), unfolded) in rows.iter().zip(unfold(&texts)) {
        assert_eq!(unfolded, *hosts, "of {text:?}");
    }
}

#[test]
fn what_is_no_host_set_is_refused() {
    let texts = [
        "",
        ",",
        "node[",
        "node]",
        "node[]",
        "node[a-b]",
        "node[2-0]",
        "node[0-2",
        "node[[0]]",
        "node[0-9999999999]",
        "a b",
        "node0,",
        "node[1-]",
        "[0-999]x[0-999]",
        "node;rm",
    ];
    for (text, unfolded) in texts.iter().zip(unfold(&texts)) {
        assert_eq!(unfolded, "ValueError", "of {text:?}");
    }
}
