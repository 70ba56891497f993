//! Sections, keys and values, as unit files, .link files and keyfiles have them.

/// One `key=value` and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Counted from 1.
    pub line: usize,
    pub section: String,
    pub key: String,
    pub value: String,
}

/// The settings of `text`, and what is not one, as findings that begin with `name`.
///
/// A backslash at the end of a line continues it; comments begin with `#` or `;`.
pub fn parse(name: &str, text: &str) -> (Vec<Setting>, Vec<String>) {
    let (mut settings, mut found) = (Vec::new(), Vec::new());
    let mut section = None;
    let mut continued: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let is_comment = line.trim_start().starts_with(['#', ';']);
        if is_comment || line.trim().is_empty() && continued.is_none() {
            continue;
        }
        let (first, mut joined) = continued.take().unwrap_or((number, String::new()));
        if let Some(part) = line.strip_suffix('\\') {
            joined.push_str(part);
            joined.push(' ');
            continued = Some((first, joined));
            continue;
        }
        joined.push_str(line);
        let whole = joined.trim();
        if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(name.to_owned());
        } else if let (Some((key, value)), Some(section)) = (whole.split_once('='), &section) {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            settings.push(Setting { line: first, section: section.clone(), key, value });
        } else {
            found.push(format!("{name}:{first}: not a setting in a section: {whole}"));
        }
    }
    if let Some((first, _)) = continued {
        found.push(format!("{name}:{first}: the last line is continued"));
    }
    (settings, found)
}

#[test]
fn settings_have_section_line_and_joined_value() {
    let text = "# c\n[A]\nk = v\n; c\nlong = a \\\n  b\n[B]\nk=\nstray\n";
    let setting = |line, section: &str, key: &str, value: &str| Setting {
        line,
        section: section.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let (settings, found) = parse("x", text);
    assert_eq!(
        settings,
        [setting(3, "A", "k", "v"), setting(5, "A", "long", "a    b"), setting(8, "B", "k", "")]
    );
    assert_eq!(found, ["x:9: not a setting in a section: stray"]);
    assert_eq!(parse("x", "k=v\n").1, ["x:1: not a setting in a section: k=v"]);
}
