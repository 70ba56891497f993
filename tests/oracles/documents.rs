//! YAML as DAOS reads it, and TOML against the JSON Schema that editors get.

use std::path::Path;

use serde_json::Value;

use crate::support;

/// The YAML files at `paths`, each read by a YAML 1.1 reader that refuses duplicate keys and
/// tabs; or what it says. One process reads them all.
pub fn yaml11(paths: &[&Path]) -> Vec<Result<Value, String>> {
    let output = support::run_judge("yaml11.py", paths);
    let said = support::spoken_lines(&output);
    assert!(output.status.success() && said.len() == paths.len(), "yaml11.py: {said:#?}");
    let answer = |(path, line): (&&Path, &String)| {
        let answer: Value = serde_json::from_str(line).expect("yaml11.py prints JSON");
        match &answer["fault"] {
            Value::String(fault) => Err(format!("{}: {fault}", path.display())),
            _ => Ok(answer["read"].clone()),
        }
    };
    paths.iter().zip(&said).map(answer).collect()
}

/// What is wrong with `schema` itself, or with the TOML `documents` by it.
pub fn json_schema(schema: &Path, documents: &[&Path]) -> Vec<String> {
    let arguments: Vec<&Path> = [schema].into_iter().chain(documents.iter().copied()).collect();
    let output = support::run_judge("json_schema.py", &arguments);
    let mut found = support::spoken_lines(&output);
    if found.is_empty() && !output.status.success() {
        found.push(format!("json_schema.py: {}", output.status));
    }
    found
}

#[test]
fn yaml_is_read_as_1_1_reads_it() {
    if support::lacks(&["python"]) {
        return;
    }
    let folder = support::scratch();
    let path = folder.path().join("x.yml");
    std::fs::write(&path, "name: daos_server\nport: 10001\na: yes\nb: 'yes'\nc: 0x1f\nd: [1, x]\n")
        .unwrap();
    assert_eq!(
        yaml11(&[&path, &path]),
        [(); 2].map(|()| Ok(serde_json::json!({"name": "daos_server", "port": 10001, "a": true, "b": "yes", "c": 31, "d": [1, "x"]})))
    );
    for (text, finding) in [
        ("a: 1\nb: 2\na: 3\n", "the key 'a' stands twice"),
        ("e:\n- {x: 1, x: 2}\n", "the key 'x' stands twice"),
        ("on: 1\n", "the key True is read as a bool"),
        ("a: 'b\tc'\n", "line 1: a tab"),
        ("a: [\n", "while parsing a flow node"),
        ("a: 2024-01-01\n", "not JSON serializable"),
    ] {
        std::fs::write(&path, text).unwrap();
        let found = yaml11(&[&path]).remove(0).unwrap_err();
        assert!(found.contains(finding), "{text}: {found}");
    }
}

#[test]
fn documents_are_judged_by_their_schema() {
    if support::lacks(&["python"]) {
        return;
    }
    let folder = support::scratch();
    let [schema, document] = ["schema.json", "x.toml"].map(|name| folder.path().join(name));
    let rules = r#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": {"port": {"type": "integer"}}, "additionalProperties": false}"#;
    std::fs::write(&schema, rules).unwrap();
    std::fs::write(&document, "port = 1\n").unwrap();
    assert_eq!(json_schema(&schema, &[&document]), [""; 0]);

    std::fs::write(&document, "port = \"1\"\nprot = 1\n").unwrap();
    let name = document.display();
    assert_eq!(
        json_schema(&schema, &[&document]),
        [
            format!("{name}: $: Additional properties are not allowed ('prot' was unexpected)"),
            format!("{name}: $.port: '1' is not of type 'integer'"),
        ]
    );
    std::fs::write(&schema, rules.replace("integer", "intger")).unwrap();
    let found = json_schema(&schema, &[&document]);
    assert!(found[0].contains("'intger' is not valid"), "{found:?}");
}
