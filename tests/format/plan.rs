//! What the formatting admin is given: /etc/nodeforge/format.json and its unit.

use std::path::Path;

use serde_json::{Value, json};

use crate::examples::printed;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where systemd looks for what the boot starts.
const LINK: &str = "multi-user.target.wants/nodeforge-format.service";

#[test]
fn the_unit_is_started_on_the_one_admin_that_formats() {
    let listing = |node| printed(repository(), &["show", "examples/titan.toml", node]);
    for (node, has_unit, is_started) in
        [("adm1", true, true), ("adm2", true, false), ("srv001", false, false)]
    {
        let listing = listing(node);
        assert_eq!(listing.contains("system/nodeforge-format.service"), has_unit, "{node}");
        assert_eq!(listing.contains(LINK), is_started, "{node}");
    }
}

/// format.json of a cluster file of the corpus that has nothing to complain about.
fn plan_of(file: &str, node: &str) -> Value {
    let path = format!("tests/corpus/daos/{file}.toml");
    let text = printed(repository(), &["show", &path, node, "/etc/nodeforge/format.json"]);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_plan_holds_what_dmg_and_daos_are_told() {
    let plan = plan_of("nf554-containers-in-a-users-pool-ok", "node0");
    assert_eq!(plan["format_by"], "node0");
    assert_eq!(plan["deadline_seconds"], 86_400);
    assert_eq!(
        plan["servers"][1],
        json!({
            "name": "node1", "address": "192.168.3.11", "addresses": ["192.168.3.11"],
            "engines": 1,
        })
    );
    assert_eq!(
        plan["pools"],
        json!([{
            "label": "tank", "size": "90%", "tier_ratio": null, "ranks": null,
            "properties": null, "user": "alice@", "group": null,
            "acl": ["A::OWNER@:rw", "A::root@:rwc"],
            "containers": [{ "label": "home", "type": "POSIX", "properties": null }],
        }])
    );
    let plan = plan_of("nf550-pool-label-twice-ok", "node0");
    assert_eq!(plan["pools"][1]["size"], "10737418240B");
    assert_eq!(plan["pools"][1]["tier_ratio"], "10,90");
    let plan = plan_of("nf555-unknown-pool-property-ok", "node0");
    assert_eq!(plan["pools"][0]["properties"], "rd_fac:0,reclaim:lazy,space_rb:5");
}
