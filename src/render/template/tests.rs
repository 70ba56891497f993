use serde_json::json;

use super::*;

fn templates(named: &[(&str, &str)]) -> Templates {
    let mut templates = Templates::new();
    for (name, text) in named {
        templates.add(name, text).unwrap_or_else(|fault| panic!("{fault}"));
    }
    templates
}

fn render(text: &str, context: &Value) -> Result<String, String> {
    templates(&[("t", text)]).render("t", context).map_err(|fault| match &fault.help {
        Some(help) => format!("{fault} ({help})"),
        None => fault.to_string(),
    })
}

fn references(templates: &Templates, name: &str) -> Vec<String> {
    templates.references(name).iter().map(Reference::display).collect()
}

#[test]
fn text_numbers_and_truth_values_are_printed_as_they_are() {
    let context = json!({ "a": "<&>\"'", "b": { "c": [7, true] }, "lines": "x\ny\n" });
    for (text, expected) in [
        ("{{a}}", "<&>\"'"),
        ("{{b.c.[0]}}{{b.c.[1]}}", "7true"),
        ("{{#each b.c}}{{this}} {{@index}}{{#unless @last}},{{/unless}}{{/each}}", "7 0,true 1"),
        ("{{{lines}}}", "x\ny\n"),
        ("{{#with b}}{{#each c}}{{../../a}}{{/each}}{{/with}}", "<&>\"'<&>\"'"),
        ("{{#if (and (eq a a) (not (eq a \"x\")))}}yes{{else}}no{{/if}}", "yes"),
        ("{{!-- {{{a}}} --}}", ""),
    ] {
        assert_eq!(render(text, &context).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_has_no_text_is_an_error_at_its_place() {
    let context = json!({
        "name": "n1", "none": null, "list": ["x"], "table": { "port": 1 }, "lines": "x\ny", "no": false,
    });
    for (text, expected) in [
        ("a\n  {{nam}}", "t:2:5: `nam` is not defined (did you mean `name`?)"),
        ("{{table.prt}}", "t:1:3: `table.prt` is not defined (did you mean `port`?)"),
        ("{{none.x}}", "t:1:3: `none.x` is not defined (nothing lies below it)"),
        ("{{#if nam}}{{/if}}", "t:1:7: `nam` is not defined (did you mean `name`?)"),
        ("{{#unless nam}}{{/unless}}", "t:1:11: `nam` is not defined (did you mean `name`?)"),
        ("{{#if (eq nam 1)}}{{/if}}", "t:1:11: `nam` is not defined (did you mean `name`?)"),
        ("{{#each nam}}{{else}}{{/each}}", "t:1:9: `nam` is not defined (did you mean `name`?)"),
        ("{{#with nam}}{{else}}{{/with}}", "t:1:9: `nam` is not defined (did you mean `name`?)"),
        ("{{sh nam}}", "t:1:6: `nam` is not defined (did you mean `name`?)"),
        ("{{#if no}}{{else if nam}}{{/if}}", "t:1:1: `nam` is not defined (did you mean `name`?)"),
        ("{{none}}", "t:1:1: `none` has no value here: ask with `{{#if}}` first"),
        ("{{{none}}}", "t:1:1: `none` has no value here: ask with `{{#if}}` first"),
        ("{{list}}", "t:1:1: `list` is a list: go through it with `{{#each}}`"),
        ("é {{table}}", "t:1:3: `table` is a table: name one of its fields"),
        ("{{#each name}}{{/each}}", "t:1:1: `name` is no list"),
        (
            "{{lines}}",
            "t:1:1: `lines` holds the control character \\n, which could change what the file means",
        ),
        ("{{> gone}}", "t:1:1: there is no template `gone` to include"),
    ] {
        assert_eq!(render(text, &context).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn what_is_outside_the_language_is_refused_when_it_is_added() {
    for (text, expected) in [
        ("a\n{{#if x}}", "t:2:10: this is no template"),
        ("{{#if x}}{{/each}}", "t:1:10: `{{#if}}` is closed by `{{/each}}`"),
        (
            "{{lookup x y}}",
            "t:1:1: there is no helper `lookup`; expected one of ini, json, sh, unit, yaml",
        ),
        ("{{jsn x}}", "t:1:1: there is no helper `jsn`; did you mean `json`?"),
        ("{{sh}}", "t:1:1: `sh` needs a value: `{{sh path}}`"),
        ("{{sh a b}}", "t:1:1: `sh` takes one value"),
        (
            "{{#list}}{{/list}}",
            "t:1:1: there is no block `#list`; there are `#each`, `#if`, `#unless`, `#with`",
        ),
        (
            "{{#if (len x)}}{{/if}}",
            "t:1:1: `(len …)` is no question; there are `and`, `eq`, `ne`, `not`, `or`",
        ),
        (
            "{{#each x as |y|}}{{/each}}",
            "t:1:1: no `as |name|`: use `this` and `../` inside the block",
        ),
        (
            "{{#*inline \"x\"}}{{/inline}}",
            "t:1:1: only `{{> name}}` includes a template: there are no inline ones",
        ),
        (
            "{{> (lookup x)}}",
            "t:1:1: the name of an included template stands as it is: `{{> name}}`",
        ),
    ] {
        let fault = Templates::new().add("t", text).unwrap_err();
        assert_eq!((fault.to_string().as_str(), fault.fault), (expected, Fault::Syntax), "{text}");
    }
}

#[test]
fn helpers_quote_for_the_file_they_write_into() {
    let context =
        json!({ "x": "it's 100% \"a\u{85}b\"", "plain": "50%", "back": "a\\b", "end": "a " });
    assert_eq!(
        render("{{json plain}} {{sh plain}} {{unit plain}}", &context).unwrap(),
        "\"50%\" '50%' 50%%"
    );
    for (text, fault) in [
        (
            "{{sh x}}",
            "t:1:1: `x` holds the control character \\u{85}, which could change what the file means",
        ),
        (
            "{{ini back}}",
            "t:1:1: `back` is \"a\\\\b\": no backslash and no blank at an end can stand here",
        ),
        (
            "{{unit end}}",
            "t:1:1: `end` is \"a \": no backslash and no blank at an end can stand here",
        ),
    ] {
        assert_eq!(render(text, &context).unwrap_err(), fault);
    }
    assert_eq!(render("{{yaml x}}", &context).unwrap(), "\"it's 100% \\\"a\\u0085b\\\"\"");
    assert_eq!(render("{{sh x}}", &json!({ "x": "it's" })).unwrap(), r"'it'\''s'");
}

#[test]
fn a_template_that_would_include_itself_is_refused_with_the_circle() {
    let mut templates = templates(&[("a", "{{> b}}"), ("b", "x\n{{#if y}}{{> c}}{{/if}}")]);
    let fault = templates.add("c", "\n {{> a}}").unwrap_err();
    assert_eq!(fault.to_string(), "c:2:2: templates include each other: c → a → b → c");
    assert_eq!(fault.fault, Fault::Cycle);
    assert!(!templates.has("c"));
    let fault = templates.add("d", "{{> d}}").unwrap_err();
    assert_eq!(fault.to_string(), "d:1:1: templates include each other: d → d");
    templates.add("c", "end").unwrap();
    assert_eq!(templates.render("a", &json!({ "y": true })).unwrap(), "x\nend");
}

#[test]
fn references_are_traced_back_to_the_root() {
    let templates = templates(&[
        ("section", "{{title}}{{../boot.url}}{{@root.daos.port}}{{name}}"),
        (
            "t",
            "{{cluster.name}}{{#each repos}}{{id}}{{this.url}}{{../os.release}}{{@index}}\
             {{#if gpgcheck}}{{> section name=../node.name}}{{/if}}{{/each}}\
             {{#with node}}{{#each nics}}{{mac}}{{../name}}{{../../hw.cpu}}{{/each}}{{else}}{{x}}{{/with}}\
             {{> section daos}}{{#if (or (eq a 1) b)}}{{else if c}}{{/if}}{{sh \"text\"}}",
        ),
    ]);
    let expected = [
        "cluster.name",
        "repos",
        "repos[].id",
        "repos[].url",
        "os.release",
        "repos[].gpgcheck",
        "node.name",
        "repos[].title",
        "repos[].boot.url",
        "daos.port",
        "node.name",
        "node",
        "node.nics",
        "node.nics[].mac",
        "node.name",
        "hw.cpu",
        "x",
        "daos",
        "daos.title",
        "boot.url",
        "daos.port",
        "daos.name",
        "a",
        "b",
        "c",
    ];
    assert_eq!(references(&templates, "t"), expected);
    let spans: Vec<&str> = templates.references("t")[..4]
        .iter()
        .map(|reference| &templates.texts["t"].text[reference.span.clone()])
        .collect();
    assert_eq!(spans, ["cluster.name", "repos", "id", "this.url"]);
}

#[test]
fn rendering_agrees_with_the_references() {
    let named = [
        ("inner", "{{title}}{{../url}}{{@root.url}}"),
        (
            "t",
            "{{#each list}}{{> inner}}{{#with part}}{{x}}{{../title}}{{/with}}{{/each}}{{> inner part}}",
        ),
    ];
    let templates = templates(&named);
    let context = json!({
        "url": "U", "part": { "title": "P" }, "list": [{ "title": "T", "url": "I", "part": { "x": "X" } }],
    });
    assert_eq!(templates.render("t", &context).unwrap(), "TIUXTPUU");
    assert_eq!(templates.undefined("t", &context, &[]), []);
}

#[test]
fn undefined_names_are_found_in_branches_that_are_not_taken() {
    let templates = templates(&[
        ("part", "{{a.cc}}"),
        ("t", "{{#if no}}\n{{#each list}}{{idd}}{{/each}}{{vars.x}}{{> part}}{{/if}}"),
    ]);
    let data = json!({ "no": false, "a": { "b": 1 }, "list": [{ "id": 1 }], "vars": {} });
    let faults = templates.undefined("t", &data, &["vars"]);
    let texts: Vec<String> = faults
        .iter()
        .map(|fault| format!("{fault} ({})", fault.help.as_deref().unwrap()))
        .collect();
    assert_eq!(
        texts,
        [
            "t:2:17: `list[].idd` is not defined (did you mean `id`?)",
            "part:1:3: `a.cc` is not defined (known here: b)",
        ]
    );
}

#[test]
fn long_lists_are_rendered_as_short_ones_are() {
    let mut templates = Templates::new();
    let text = "{{a}}\n{{#each list}}{{@index}} {{x}}\n{{/each}}{{#each list}}{{sh x}}{{#if y}}y{{/if}}\n{{/each}}end\n";
    templates.add("t", text).unwrap();
    for n_items in [0, 1, 63, 64, 65, 300] {
        let items = || (0..n_items).map(|n| json!({ "x": format!("it's {n}"), "y": n % 2 }));
        let values = Values::of(&json!({ "a": "A", "list": items().collect::<Vec<_>>() }));
        let first = (0..n_items).map(|n| format!("{n} it's {n}\n"));
        let second = (0..n_items).map(|n| format!("'it'\\''s {n}'{}\n", ["", "y"][n % 2]));
        let expected =
            ["A\n".to_owned()].into_iter().chain(first).chain(second).chain(["end\n".to_owned()]);
        assert_eq!(
            templates.render_values("t", &values),
            Ok(expected.collect()),
            "{n_items} items"
        );
        let mut items: Vec<Value> = items().collect();
        if let Some(last) = items.last_mut() {
            *last = json!({ "x": "two\nlines", "y": 0 });
            let values = Values::of(&json!({ "a": "A", "list": items }));
            let fault = templates.render_values("t", &values).unwrap_err();
            assert_eq!((fault.line, fault.fault), (2, Fault::Value), "{n_items} items");
        }
    }
}

#[test]
fn what_settled_gives_what_the_template_gives_whatever_changes() {
    let text = "{{a}} {{sh node.name}} {{{node.text}}}{{#each list}}{{this}}{{/each}}\n\
                {{#if node.serial}}{{node.serial}} of {{a}}{{else}}none{{/if}}\n\
                {{#with node}}{{name}}{{/with}} {{#unless b}}{{ini a}}{{/unless}}\n\
                {{#with node}}{{#if serial}}{{serial}}{{else if text}}{{{text}}}{{/if}}\n\
                {{#with inner}}{{sh x}}{{#unless ../serial}}-{{/unless}}{{/with}}\n\
                {{#with inner}}{{x}}{{#with x}}{{this}}{{/with}}{{else}}{{name}}{{/with}}{{/with}}\n\
                {{#if (eq node.name \"n1\")}}first{{/if}}{{#unless node.serial}}{{a}}{{else}}{{b}}{{/unless}}\n\
                {{#with node.inner}}{{#each ../list}}{{this}}{{/each}}{{x}}{{/with}}\n\
                {{#each node.items}}{{k}}{{#if v}}={{v}}{{else}}{{@index}}{{/if}}\n{{/each}}\
                {{#each node.items}}{{sh k}}{{#each l}}{{this}} {{else}}-{{/each}}{{#unless v}}!{{/unless}}{{/each}}\n\
                {{#each node.table}}{{this}};{{/each}}{{#each node.none}}{{x}}{{else}}nothing{{/each}}\n";
    let mut templates = Templates::new();
    templates.add("t", text).unwrap();
    let values = |name: &str, serial: Value| {
        let inner = if serial.is_null() { Value::Null } else { json!({ "x": "it's" }) };
        let node = json!({ "name": name, "text": "one\ntwo\n", "serial": serial, "inner": inner,
            "items": [{ "k": "a", "v": 1, "l": [1, 2] }, { "k": name, "v": null, "l": [] }],
            "table": { "z": 1, "b": name }, "none": [],
        });
        Values::of(&json!({ "a": "A", "b": false, "list": [1, 2], "node": node }))
    };
    let settled = templates.settle("t", &values("first", Value::Null), &[&["node"]]);
    for values in [values("n1", "S1".into()), values("it's", Value::Null), values("", 7.into())] {
        let whole = templates.render_values("t", &values);
        assert!(whole.is_ok());
        assert_eq!(templates.render_settled(&settled, &values), whole);
    }
    // What cannot be printed is told as the template tells it.
    let broken = values("two\nlines", Value::Null);
    let whole = templates.render_values("t", &broken);
    assert!(whole.is_err());
    assert_eq!(templates.render_settled(&settled, &broken), whole);
}
