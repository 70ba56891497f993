//! The boot configurations of an installer's ISO, changed so that the machine installs a node
//! unattended, and read to see whether they do.
//!
//! Two languages: ISOLINUX's (syslinux 6, doc/syslinux.txt, doc/menu.txt) and GRUB's, as lorax
//! 28.14 writes them (share/templates.d/99-generic/config_files/x86). What is not about booting
//! the installer stays as it is.

use std::fmt::Write;

/// The kickstart in the installer's initrd.
const KICKSTART: &str = "inst.ks=file:/ks.cfg";
/// Tenths of a second that ISOLINUX waits for a key, seconds that GRUB does.
const ISOLINUX_TIMEOUT: &str = "timeout 30";
const GRUB_TIMEOUT: &str = "set timeout=3";

/// What a boot configuration is to say.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The label of the volume, by which the installer finds its second stage.
    pub label: &'a str,
    /// The further initrd, by its path from the top of the volume.
    pub initrd: &'a str,
    /// Kernel arguments beside those of the kickstart: `console=ttyS0,115200`.
    pub arguments: &'a [String],
}

/// The language of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Isolinux,
    Grub,
}

/// Why a configuration cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no entry at the top of its menu starts the installer (inst.stage2= or inst.repo= with an initrd)"
)]
pub struct NoInstallEntry;

/// One entry of a menu that starts the installer or its rescue system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// As the menu names it.
    pub title: String,
    /// The path of the kernel, as it is written.
    pub kernel: Option<String>,
    /// The kernel's arguments, without initrd=.
    pub arguments: Vec<String>,
    /// The paths of the initrds, as they are written.
    pub initrds: Vec<String>,
}

impl Entry {
    /// The value of the argument `name`, the last one as for the kernel.
    pub fn argument(&self, name: &str) -> Option<&str> {
        let values = self.arguments.iter().filter_map(|word| word.split_once('='));
        values.filter(|(found, _)| *found == name).map(|(_, value)| value).next_back()
    }

    pub fn is_installer(&self) -> bool {
        is_installer(&self.arguments)
    }
}

/// Returns `text` changed to install unattended: every entry of the installer gets the kickstart
/// and the further initrd, the first of them is the default and starts after three seconds, and
/// none checks the medium, as its checksum does not fit any more. Doing so twice changes
/// nothing more.
///
/// # Errors
///
/// [`NoInstallEntry`]
pub fn changed(
    text: &str,
    language: Language,
    wanted: &Wanted<'_>,
) -> Result<String, NoInstallEntry> {
    match language {
        Language::Isolinux => isolinux(text, wanted),
        Language::Grub => grub(text, wanted),
    }
}

/// The entries of `text` that have a kernel line of the installer, rescue among them.
pub fn entries(text: &str, language: Language) -> Vec<Entry> {
    let mut entries = vec![Entry::default()];
    for line in text.lines() {
        let (directive, rest) = directive(line);
        let entry = entries.last_mut().expect("it begins with one");
        match (language, directive.as_str()) {
            (Language::Isolinux, "label") | (Language::Grub, "menuentry") => {
                entries.push(Entry { title: title(rest), ..Entry::default() });
            }
            (Language::Isolinux, "kernel" | "linux") => {
                entry.kernel = Some(rest.trim().to_owned());
            }
            (Language::Isolinux, "append") => {
                for word in rest.split_whitespace() {
                    match word.strip_prefix("initrd=") {
                        Some(paths) => entry.initrds.extend(paths.split(',').map(str::to_owned)),
                        None => entry.arguments.push(word.to_owned()),
                    }
                }
            }
            (Language::Isolinux, "initrd") => {
                entry.initrds.extend(rest.trim().split(',').map(str::to_owned));
            }
            (Language::Grub, "linux" | "linuxefi" | "linux16") => {
                let mut words = rest.split_whitespace().map(str::to_owned);
                entry.kernel = words.next();
                entry.arguments.extend(words);
            }
            (Language::Grub, "initrd" | "initrdefi" | "initrd16") => {
                entry.initrds.extend(rest.split_whitespace().map(str::to_owned));
            }
            _ => {}
        }
    }
    entries.retain(|entry| is_of_installer(&entry.arguments));
    entries
}

/// The labels by which `text` has GRUB look for its volume.
pub fn searched_labels(text: &str) -> Vec<String> {
    let searches = text.lines().map(directive).filter(|(directive, _)| directive == "search");
    let words = searches.filter_map(|(_, rest)| shlex::split(rest));
    words
        .filter_map(|words| {
            let at = words.iter().position(|word| is_label_option(word))?;
            words.get(at + 1).cloned()
        })
        .collect()
}

/// A label as the kernel's command line has it: spaces are escaped as udev does it.
pub fn escaped_label(label: &str) -> String {
    label.replace(' ', "\\x20")
}

fn isolinux(text: &str, wanted: &Wanted<'_>) -> Result<String, NoInstallEntry> {
    let first = first_label(text).ok_or(NoInstallEntry)?;
    let labels = labels(text);
    let mut changed = String::with_capacity(text.len() + 512);
    let mut has_timeout = false;
    for block in blocks(text) {
        let arguments: Vec<String> = block.iter().flat_map(|line| append_words(line)).collect();
        for line in block {
            let indent = &line[..line.len() - line.trim_start().len()];
            let (directive, rest) = directive(line);
            match directive.as_str() {
                "timeout" => {
                    has_timeout = true;
                    push_line(&mut changed, "", ISOLINUX_TIMEOUT);
                }
                // What else would start without a person.
                "ontimeout" | "totaltimeout" => {}
                "default" if labels.iter().any(|label| label == rest.trim()) => {
                    push_line(&mut changed, "", &format!("default {first}"));
                }
                "menu" if rest.trim().eq_ignore_ascii_case("default") => {}
                "label" if rest.trim() == first => {
                    push_line(&mut changed, "", line);
                    push_line(&mut changed, "  ", "menu default");
                }
                "append" if is_of_installer(&arguments) => {
                    let append = changed_append(rest, &arguments, wanted);
                    push_line(&mut changed, indent, &format!("append {append}"));
                }
                "initrd" if is_installer(&arguments) => {
                    let paths = with_initrd(rest.trim().split(','), wanted.initrd);
                    push_line(&mut changed, indent, &format!("initrd {}", paths.join(",")));
                }
                _ => push_line(&mut changed, "", line),
            }
        }
    }
    Ok(match has_timeout {
        true => changed,
        false => format!("{ISOLINUX_TIMEOUT}\n{changed}"),
    })
}

/// The lines of `text` in blocks, each but the first beginning with a `label`.
fn blocks(text: &str) -> Vec<Vec<&str>> {
    let mut blocks = vec![Vec::new()];
    for line in text.lines() {
        if directive(line).0 == "label" {
            blocks.push(Vec::new());
        }
        blocks.last_mut().expect("it begins with one").push(line);
    }
    blocks
}

fn labels(text: &str) -> Vec<String> {
    let labels = text.lines().map(directive).filter(|(directive, _)| directive == "label");
    labels.map(|(_, rest)| rest.trim().to_owned()).collect()
}

/// The label of the first entry that starts the installer.
fn first_label(text: &str) -> Option<String> {
    let is_first = |block: &Vec<&str>| {
        let arguments: Vec<String> = block.iter().flat_map(|line| append_words(line)).collect();
        is_installer(&arguments)
    };
    let blocks = blocks(text);
    let block = blocks.iter().skip(1).find(|block| is_first(block))?;
    Some(directive(block[0]).1.trim().to_owned())
}

fn append_words(line: &str) -> Vec<String> {
    match directive(line) {
        (directive, rest) if directive == "append" => words(rest),
        _ => Vec::new(),
    }
}

fn changed_append(rest: &str, arguments: &[String], wanted: &Wanted<'_>) -> String {
    let mut words = changed_arguments(&words(rest), wanted);
    if is_installer(arguments) {
        for word in &mut words {
            if let Some(paths) = word.strip_prefix("initrd=") {
                *word =
                    format!("initrd={}", with_initrd(paths.split(','), wanted.initrd).join(","));
            }
        }
    }
    words.join(" ")
}

fn grub(text: &str, wanted: &Wanted<'_>) -> Result<String, NoInstallEntry> {
    let default = default_of_grub(text).ok_or(NoInstallEntry)?;
    let mut changed = String::with_capacity(text.len() + 512);
    let (mut has_default, mut has_timeout, mut installs) = (false, false, false);
    for line in text.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let (directive, rest) = directive(line);
        match directive.as_str() {
            "set" if rest.trim().starts_with("default=") => {
                has_default = true;
                push_line(&mut changed, "", &format!("set default=\"{default}\""));
            }
            "set" if rest.trim().starts_with("timeout=") => {
                has_timeout = true;
                push_line(&mut changed, "", GRUB_TIMEOUT);
            }
            "search" => push_line(&mut changed, indent, &changed_search(line, rest, wanted.label)),
            "linux" | "linuxefi" | "linux16" if is_of_installer(&words(rest)) => {
                let arguments = words(rest);
                installs = is_installer(&arguments);
                let arguments = changed_arguments(&arguments, wanted).join(" ");
                push_line(&mut changed, indent, &format!("{directive} {arguments}"));
            }
            "initrd" | "initrdefi" | "initrd16" if installs => {
                let paths = with_initrd(rest.split_whitespace(), wanted.initrd).join(" ");
                push_line(&mut changed, indent, &format!("{directive} {paths}"));
            }
            "menuentry" => {
                installs = false;
                push_line(&mut changed, "", line);
            }
            _ => push_line(&mut changed, "", line),
        }
    }
    let mut first = String::new();
    if !has_default {
        writeln!(first, "set default=\"{default}\"").expect("a string takes all that is written");
    }
    if !has_timeout {
        push_line(&mut first, "", GRUB_TIMEOUT);
    }
    Ok(first + &changed)
}

/// The place of the first entry of the menu, submenus counted as one, that starts the installer.
fn default_of_grub(text: &str) -> Option<usize> {
    let (mut depth, mut n_entries) = (0_usize, 0_usize);
    let mut is_in_top_entry = false;
    for line in text.lines() {
        let (directive, rest) = directive(line);
        match directive.as_str() {
            "menuentry" | "submenu" if depth == 0 => {
                n_entries += 1;
                is_in_top_entry = directive == "menuentry";
            }
            "linux" | "linuxefi" | "linux16" if is_in_top_entry && is_installer(&words(rest)) => {
                return Some(n_entries - 1);
            }
            _ => {}
        }
        if !line.trim_start().starts_with('#') {
            let is_end = line.trim() == "}";
            depth += usize::from(line.trim_end().ends_with('{'));
            depth = depth.saturating_sub(usize::from(is_end));
        }
    }
    None
}

fn changed_search(line: &str, rest: &str, label: &str) -> String {
    let Some(mut words) = shlex::split(rest) else { return line.trim_start().to_owned() };
    let at = words.iter().position(|word| is_label_option(word));
    let Some(value) = at.and_then(|at| words.get_mut(at + 1)) else {
        return line.trim_start().to_owned();
    };
    *value = format!("'{label}'");
    format!("search {}", words.join(" "))
}

fn is_label_option(word: &str) -> bool {
    matches!(word, "-l" | "--label" | "--fs-label")
}

/// The words of a kernel line, with the kickstart and without what is in its way.
fn changed_arguments(words: &[String], wanted: &Wanted<'_>) -> Vec<String> {
    let is_replaced = |word: &str| {
        let name = word.split('=').next().unwrap_or(word);
        let is_console =
            name == "console" && wanted.arguments.iter().any(|it| it.starts_with("console="));
        matches!(name, "inst.ks" | "ks" | "rd.live.check") || is_console
    };
    let mut changed: Vec<String> = words
        .iter()
        .filter(|word| !is_replaced(word) && !wanted.arguments.contains(word))
        .map(|word| match word.split_once("=hd:LABEL=") {
            Some((name, rest)) => {
                let path =
                    rest.split_once(':').map_or(String::new(), |(_, path)| format!(":{path}"));
                format!("{name}=hd:LABEL={}{path}", escaped_label(wanted.label))
            }
            None => (*word).clone(),
        })
        .collect();
    if is_installer(words) {
        changed.push(KICKSTART.to_owned());
        changed.extend(wanted.arguments.iter().cloned());
    }
    changed
}

/// The initrds with ours behind them; once.
fn with_initrd<'a>(paths: impl Iterator<Item = &'a str>, initrd: &str) -> Vec<String> {
    let others = paths.filter(|path| *path != initrd).map(str::to_owned);
    others.chain([initrd.to_owned()]).collect()
}

/// Whether a kernel line starts the installer or its rescue system.
fn is_of_installer(words: &[String]) -> bool {
    words.iter().any(|word| word.starts_with("inst.stage2=") || word.starts_with("inst.repo="))
}

fn is_installer(words: &[String]) -> bool {
    is_of_installer(words) && !words.iter().any(|word| word == "inst.rescue" || word == "rescue")
}

/// The first word of a line in small letters, and what follows it.
fn directive(line: &str) -> (String, &str) {
    let line = line.trim_start();
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    (line[..end].to_ascii_lowercase(), &line[end..])
}

fn title(rest: &str) -> String {
    let quoted = rest.trim().strip_prefix('\'').and_then(|rest| rest.split('\'').next());
    quoted.unwrap_or(rest.trim()).to_owned()
}

fn words(rest: &str) -> Vec<String> {
    rest.split_whitespace().map(str::to_owned).collect()
}

fn push_line(text: &mut String, indent: &str, line: &str) {
    text.push_str(indent);
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISOLINUX: &str = "\
default vesamenu.c32
timeout 600
display boot.msg
label linux
  menu label ^Install AlmaLinux 8.9
  kernel vmlinuz
  append initrd=initrd.img inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd quiet
label check
  menu label Test this ^media & install AlmaLinux 8.9
  menu default
  kernel vmlinuz
  append initrd=initrd.img inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd rd.live.check quiet inst.ks=http://old/ks
menu begin ^Troubleshooting
label rescue
  kernel vmlinuz
  append initrd=initrd.img inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd inst.rescue quiet
label local
  menu label Boot from ^local drive
  localboot 0xffff
menu end
";

    const GRUB: &str = "\
set default=\"1\"
function load_video {
  insmod all_video
}
set timeout=60
search --no-floppy --set=root -l 'AlmaLinux-8-9-x86_64-dvd'
menuentry 'Install AlmaLinux 8.9' --class fedora {
\tlinuxefi /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd quiet
\tinitrdefi /images/pxeboot/initrd.img
}
menuentry 'Test this media & install' --class fedora {
\tlinuxefi /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd rd.live.check quiet
\tinitrdefi /images/pxeboot/initrd.img
}
submenu 'Troubleshooting -->' {
\tmenuentry 'Rescue' --class fedora {
\t\tlinuxefi /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd inst.rescue quiet
\t\tinitrdefi /images/pxeboot/initrd.img
\t}
}
";

    fn wanted(arguments: &[String]) -> Wanted<'_> {
        Wanted { label: "MY DISC", initrd: "/isolinux/node.img", arguments }
    }

    #[test]
    fn isolinux_installs_unattended() {
        let arguments = ["console=ttyS0,115200".to_owned()];
        let changed = changed(ISOLINUX, Language::Isolinux, &wanted(&arguments)).unwrap();
        assert_eq!(
            changed,
            "\
default vesamenu.c32
timeout 30
display boot.msg
label linux
  menu default
  menu label ^Install AlmaLinux 8.9
  kernel vmlinuz
  append initrd=initrd.img,/isolinux/node.img inst.stage2=hd:LABEL=MY\\x20DISC quiet inst.ks=file:/ks.cfg console=ttyS0,115200
label check
  menu label Test this ^media & install AlmaLinux 8.9
  kernel vmlinuz
  append initrd=initrd.img,/isolinux/node.img inst.stage2=hd:LABEL=MY\\x20DISC quiet inst.ks=file:/ks.cfg console=ttyS0,115200
menu begin ^Troubleshooting
label rescue
  kernel vmlinuz
  append initrd=initrd.img inst.stage2=hd:LABEL=MY\\x20DISC inst.rescue quiet
label local
  menu label Boot from ^local drive
  localboot 0xffff
menu end
"
        );
        assert_eq!(
            super::changed(&changed, Language::Isolinux, &wanted(&arguments)).unwrap(),
            changed
        );
    }

    #[test]
    fn grub_installs_unattended() {
        let changed = changed(GRUB, Language::Grub, &wanted(&[])).unwrap();
        assert_eq!(
            changed,
            "\
set default=\"0\"
function load_video {
  insmod all_video
}
set timeout=3
search --no-floppy --set=root -l 'MY DISC'
menuentry 'Install AlmaLinux 8.9' --class fedora {
\tlinuxefi /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=MY\\x20DISC quiet inst.ks=file:/ks.cfg
\tinitrdefi /images/pxeboot/initrd.img /isolinux/node.img
}
menuentry 'Test this media & install' --class fedora {
\tlinuxefi /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=MY\\x20DISC quiet inst.ks=file:/ks.cfg
\tinitrdefi /images/pxeboot/initrd.img /isolinux/node.img
}
submenu 'Troubleshooting -->' {
\tmenuentry 'Rescue' --class fedora {
\t\tlinuxefi /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=MY\\x20DISC inst.rescue quiet
\t\tinitrdefi /images/pxeboot/initrd.img
\t}
}
"
        );
        assert_eq!(super::changed(&changed, Language::Grub, &wanted(&[])).unwrap(), changed);
        assert_eq!(searched_labels(&changed), ["MY DISC"]);
    }

    #[test]
    fn entries_are_read_as_the_loaders_read_them() {
        let rescue = |kernel: &str, initrd: &str, title: &str| Entry {
            title: title.to_owned(),
            kernel: Some(kernel.to_owned()),
            arguments: ["inst.stage2=hd:LABEL=AlmaLinux-8-9-x86_64-dvd", "inst.rescue", "quiet"]
                .map(str::to_owned)
                .into(),
            initrds: vec![initrd.to_owned()],
        };
        let isolinux = entries(ISOLINUX, Language::Isolinux);
        assert_eq!(isolinux.len(), 3);
        assert_eq!(isolinux[2], rescue("vmlinuz", "initrd.img", "rescue"));
        assert_eq!(isolinux[1].argument("inst.ks"), Some("http://old/ks"));
        let grub = entries(GRUB, Language::Grub);
        assert_eq!(grub.len(), 3);
        assert_eq!(
            grub[2],
            rescue("/images/pxeboot/vmlinuz", "/images/pxeboot/initrd.img", "Rescue")
        );
    }

    #[test]
    fn a_menu_without_the_installer_is_refused() {
        for (text, language) in [
            ("label local\n  localboot 0\n", Language::Isolinux),
            ("menuentry 'x' {\n  linux /vmlinuz quiet\n}\n", Language::Grub),
            ("", Language::Grub),
        ] {
            assert_eq!(changed(text, language, &wanted(&[])), Err(NoInstallEntry), "of {text:?}");
        }
    }

    #[test]
    fn what_is_missing_in_a_menu_is_added() {
        let text = "label a\n append initrd=i inst.repo=cdrom\n";
        assert_eq!(
            changed(text, Language::Isolinux, &wanted(&[])).unwrap(),
            "timeout 30\nlabel a\n  menu default\n append initrd=i,/isolinux/node.img inst.repo=cdrom inst.ks=file:/ks.cfg\n"
        );
        let text = "menuentry 'a' {\n linux /k inst.repo=cdrom\n initrd /i\n}\n";
        assert_eq!(
            changed(text, Language::Grub, &wanted(&[])).unwrap(),
            "set default=\"0\"\nset timeout=3\nmenuentry 'a' {\n linux /k inst.repo=cdrom inst.ks=file:/ks.cfg\n initrd /i /isolinux/node.img\n}\n"
        );
    }
}
