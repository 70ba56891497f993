//! What every code means: the rule, who says so in which words, and how to obey it.
//!
//! The titles stand in [`codes`]; this is the longer text behind `nodeforge explain CODE`,
//! and [`markdown`] makes docs/codes.md of it. How DAOS words a fault is quoted from its
//! sources at v2.6.0, shortened where values are filled in.

use std::fmt;

use crate::diag::codes::{
    self, ADDRESS_TWICE, BAD_ACCESS_POINTS, BAD_ADDRESS, BAD_CONFIG, BAD_FORMAT, BAD_HASH,
    BAD_HOST_NAME, BAD_MAC, BAD_PATH, BAD_PORT, BAD_RANGE, BAD_URL, BAD_VALUE, BDEV_COUNTS,
    BOOT_NIC, BUSID_RANGE, CONTAINER_OWNER, CONTAINERS_WITHOUT_AGENT, Code, DAOS_VERSION,
    DATA_DISK, DEVICE_PATH, DEVICE_TWICE, DISK_RULE, EMBEDDED_TOO_LARGE, EMPTY_HOST_LIST,
    ENGINE_ROLES, ENGINE_VARIABLE, EVEN_ACCESS_POINTS, EXPRESSION, FABRIC_CLASSES, FACTS,
    FAULT_PATH, FAULT_PATH_AND_CALLBACK, FAULT_PATH_DEPTH, FILE_TOO_LARGE, FORMAT_BY,
    FRACTIONAL_SIZE, GIVEN_TWICE, HELPER_COUNTS, HUGEPAGES_DISABLED, HUGEPAGES_RANGE, IGNORED,
    INCLUDE_CYCLE, INLINE_SECRET, KERNEL_NIC_NAME, LABEL_TWICE, LOG_LEVEL, LOW_MEMORY, MAC_TWICE,
    METADATA_FILESYSTEM, METADATA_NO_PATH, METADATA_WITHOUT_ROLES, MISSING, MIXED_TIERS,
    NAME_TWICE, NO_ADMIN, NO_CERTIFICATES, NO_CLIENT_FABRIC, NO_DOMAIN, NO_ENGINES,
    NO_FABRIC_ADDRESS, NO_IOMMU, NO_PROVIDER, NO_RESERVED_RAM, NO_SUCH_PACKAGE, NO_VM,
    NOT_A_SERVER, NOT_ALLOWED, NOT_EMULATED, NOT_IN_SET, NUMA_IMBALANCE, NUMA_MISMATCH,
    OUT_OF_RANGE, OUTSIDE_SUBNET, OVERLAY, OVERLAY_MODE, PAPER_MEMORY, PARTIAL_CYCLE, PATH_CLASH,
    PATH_TWICE, POOL_OPTIONS, POOL_PROPERTY, POOL_RANKS, PORT_OVERLAP, PROVIDER, RACK,
    RANGE_CONFLICT, REPO_ARCHIVE, RESERVED_ADDRESS, ROLE_CONFLICT, ROLES_MISSING, ROLES_NOT_ONCE,
    ROLES_WITH_DCPM, ROLES_WITHOUT_METADATA, SAME_BDEV, SAME_FABRIC, SAME_LOG_FILE, SAME_PMEM,
    SAME_SCM_MOUNT, SCM_CLASSES, SCM_HUGEPAGES, SCM_TOO_LARGE, SCM_TOO_SMALL, SECRET_UNREADABLE,
    SERIAL_TWICE, SINGLE_ACCESS_POINT, SUPPORT_MATRIX, SURPLUS_ROWS, SWEPT_PATH, SYNTAX,
    SYSTEM_NAME, TARGET_COUNTS, TEMPLATE_SYNTAX, TEMPLATE_VALUE, TIERS_WITHOUT_ROLES,
    TOO_FEW_CORES, TOO_FEW_HUGEPAGES, TOO_MANY_HELPERS, TOO_MANY_TARGETS, TOO_MANY_TIERS,
    TRANSPARENT_HUGEPAGES, UNEVEN_TARGETS, UNKNOWN_CODE, UNKNOWN_KEY, UNKNOWN_NAME,
    UNKNOWN_OVERLAY, UNKNOWN_OWNER, UNKNOWN_PACKAGE, UNKNOWN_ROLE, UNREADABLE, UNSAFE_TEXT,
    UNSIGNED_PACKAGES, UNUSED, UNUSED_VARIABLE, USELESS_VARIABLE, VERBS_WITHOUT_OFED,
    VFIO_DISABLED, VOLATILE_PATH, WAL_DATA_WITHOUT_META, WRONG_SYSTEM, WRONG_TYPE,
};

/// The long text of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub code: Code,
    /// One line, lower case, no full stop.
    pub title: &'static str,
    /// What the rule is and why.
    pub rule: &'static str,
    /// For rules of DAOS: the first version with it, and how DAOS words it.
    pub origin: Option<Origin>,
    pub fix: &'static str,
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The oldest version, of those nodeforge knows, that has the rule.
    pub since: &'static str,
    pub wording: &'static str,
}

/// The explanation of `code`, in any case: `daos-706`.
pub fn explain(code: &str) -> Option<Explanation> {
    all().find(|explanation| explanation.code.as_str().eq_ignore_ascii_case(code))
}

/// Every code there is: nodeforge's own, then DAOS's.
pub fn all() -> impl Iterator<Item = Explanation> {
    codes::MEANINGS.iter().chain(codes::DAOS_MEANINGS).map(|meaning| {
        let text = TEXTS.iter().find(|text| text.code == meaning.code);
        let text = text.expect("a test checks that every code has a text");
        let (title, Text { code, rule, origin, fix }) = (meaning.title, *text);
        Explanation { code, title, rule, origin, fix }
    })
}

/// docs/codes.md.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Codes of diagnostics\n\n\
         Made from src/daos/explain.rs; `nodeforge explain CODE` prints one of them. `DAOS-n` is\n\
         DAOS's own number. Rules (DAOS-n and NF5xx) can be broken\n\
         on purpose: `allow = [\"CODE\"]` at the top of the cluster file.\n",
    );
    for explanation in all() {
        let Explanation { code, title, rule, origin, fix } = explanation;
        page.push_str(&format!("\n## {code}: {title}\n\n{rule}\n\n"));
        if let Some(Origin { since, wording }) = origin {
            page.push_str(&format!("DAOS, since {since}: *{wording}*\n\n"));
        }
        page.push_str(&format!("**Fix:** {fix}\n"));
    }
    page
}

impl Explanation {
    /// As [`Display`](fmt::Display), with lines of at most `width` characters.
    pub fn wrapped(&self, width: usize) -> String {
        let text = self.to_string();
        let lines: Vec<String> = text.lines().map(|line| wrap(line, width)).collect();
        lines.join("\n")
    }
}

/// Breaks a line at spaces; a word that is longer than `width` stays whole.
fn wrap(line: &str, width: usize) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for word in line.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            wrapped.push('\n');
            column = 0;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}\n\n{}\n", self.code, self.title, self.rule)?;
        if let Some(Origin { since, wording }) = self.origin {
            writeln!(f, "DAOS, since {since}: \"{wording}\"\n")?;
        }
        write!(f, "Fix: {}", self.fix)
    }
}

#[derive(Clone, Copy)]
struct Text {
    code: Code,
    rule: &'static str,
    origin: Option<Origin>,
    fix: &'static str,
}

const fn ours(code: Code, rule: &'static str, fix: &'static str) -> Text {
    Text { code, rule, origin: None, fix }
}

/// A rule that DAOS has had since before 2.6.0.
const fn daos(code: Code, rule: &'static str, wording: &'static str, fix: &'static str) -> Text {
    daos_since("2.6.0", code, rule, wording, fix)
}

const fn daos_since(
    since: &'static str,
    code: Code,
    rule: &'static str,
    wording: &'static str,
    fix: &'static str,
) -> Text {
    Text { code, rule, origin: Some(Origin { since, wording }), fix }
}

const TEXTS: &[Text] = &[
    ours(
        SYNTAX,
        "The file must be TOML 1.0. One frequent slip: `nic.mgmt = { … }` and `nic.mgmt.ip = …` in \
         one table, which defines the inner table twice.",
        "Correct the marked place; everything else is checked once the file can be read.",
    ),
    ours(
        UNKNOWN_KEY,
        "The schema is closed, so that a misspelt key is an error and not a setting without effect.",
        "Use the name in the help, or put a value of your own under `vars`.",
    ),
    ours(
        WRONG_TYPE,
        "Each key has one type: a size is a text with a unit, a list is always a list.",
        "Write the value as the example in the help shows.",
    ),
    ours(
        MISSING,
        "Some keys have no default that could be right, such as a node's address.",
        "Add the key; the help names the table it belongs to.",
    ),
    ours(
        NOT_ALLOWED,
        "The key takes one of a few words, or cannot stand where it stands.",
        "Choose one of the words in the help.",
    ),
    ours(
        OUT_OF_RANGE,
        "The number is outside what the setting can mean.",
        "Choose a number within the range in the message.",
    ),
    ours(
        ROLE_CONFLICT,
        "Roles of one node are equals: if two set one value differently, neither can win. Sets \
         (packages, services, ports) are joined instead.",
        "Set the value in the node's own block, which wins over its roles.",
    ),
    ours(
        RANGE_CONFLICT,
        "Of two ranges that set one key, the one with fewer nodes wins; with equally many there is \
         no answer.",
        "Set the key in one of them, or in a narrower range.",
    ),
    ours(
        INCLUDE_CYCLE,
        "An included file is read before the one that names it, so no file can include itself, not \
         even through others.",
        "Take one `include` out of the circle.",
    ),
    ours(
        UNREADABLE,
        "A file that the cluster file names is not there, not readable or not UTF-8. Relative paths \
         start from the folder of the file that says them.",
        "Correct the path or the permissions.",
    ),
    ours(
        BAD_RANGE,
        "Ranges are ClusterShell's: `srv[001-512]`, `n[1,3,7-9]`, `a,b`, `srv[1-9]!srv3`.",
        "Correct the marked range.",
    ),
    ours(
        BAD_FORMAT,
        "`format` says which generation of the schema the file is written for.",
        "Write `format = 1`, or use a newer nodeforge.",
    ),
    ours(
        FACTS,
        "An inventory needs the columns the block names, one row for each of its nodes, and values \
         that can be read.",
        "Correct the CSV file; an empty cell counts as absent.",
    ),
    ours(
        GIVEN_TWICE,
        "One value stands in two places that are equals, so one of them would be silently lost.",
        "Keep one of the two.",
    ),
    ours(
        SURPLUS_ROWS,
        "The inventory has rows for nodes that the cluster file does not name: often a typing error \
         in one of the two.",
        "Add the nodes, or delete the rows.",
    ),
    ours(
        UNUSED_VARIABLE,
        "A value under `vars` that no template mentions does nothing.",
        "Correct its name, or take it out.",
    ),
    ours(
        UNKNOWN_CODE,
        "`allow` takes codes of rules (DAOS-n, NF5xx) that this cluster breaks; one that allows \
         nothing is a leftover, and the next person would trust it.",
        "Take the code out of `allow`.",
    ),
    ours(
        NOT_IN_SET,
        "`{ remove = […] }` names something that is not there to be removed.",
        "Correct the name; `nodeforge why` shows where the set comes from.",
    ),
    ours(
        UNUSED,
        "A hw, role or net that no node uses is usually a misspelt name elsewhere.",
        "Use it, or take it out.",
    ),
    ours(
        EXPRESSION,
        "Braces hold `{index}`, `{rack}` or `{name}`; `{index}` needs a number at the end of the \
         node's name, `{rack}` a rack.",
        "Correct the expression, or name the nodes so that it can be computed.",
    ),
    ours(
        BAD_VALUE,
        "The text cannot be read as what the key stands for, or holds a character that has no place \
         in it.",
        "Write it as the example in the help shows.",
    ),
    ours(
        BAD_HOST_NAME,
        "Host names are lower-case ASCII letters, digits and inner hyphens (RFC 1123): DAOS's rank \
         map and hostnamectl expect that. `localhost` is nobody's name.",
        "Choose another name.",
    ),
    ours(NAME_TWICE, "Two nodes cannot share a name.", "Rename one of them."),
    ours(
        MAC_TWICE,
        "A hardware address selects one node's boot configuration.",
        "Correct one of the two addresses; they stand on the NICs' labels.",
    ),
    ours(
        ADDRESS_TWICE,
        "Two NICs with one address disturb each other.",
        "Correct one of them, or the base of the expression.",
    ),
    ours(
        OUTSIDE_SUBNET,
        "A NIC's address must lie in the subnet of its net.",
        "Correct the address or the subnet.",
    ),
    ours(
        UNKNOWN_NAME,
        "The name refers to something that no part of the file defines.",
        "Use the name in the help, or define it.",
    ),
    ours(
        BAD_MAC,
        "A MAC address is six hex octets, an InfiniBand GUID eight; neither is zero or multicast.",
        "Write it like `52:54:00:aa:bb:cc`.",
    ),
    ours(
        BAD_ADDRESS,
        "IPv4 addresses and subnets are written like `10.20.1.17` and `10.20.0.0/20`.",
        "Correct the address.",
    ),
    ours(
        KERNEL_NIC_NAME,
        "Renaming a NIC into the kernel's own names (eth0, ib0) races with the next probe, so the \
         name may end up on the wrong NIC.",
        "Choose a name of your own, such as `lan0` or `fab0`.",
    ),
    ours(
        BOOT_NIC,
        "Each node boots from exactly one NIC, known by its MAC address or GUID.",
        "Mark one NIC with `boot = true` and give it an address.",
    ),
    ours(
        NO_FABRIC_ADDRESS,
        "An engine that uses a NIC without an address reaches nobody, over InfiniBand too: DAOS \
         exchanges addresses by IP. A NIC below a bond or a VLAN leaves the address to that.",
        "Give the NIC a `net` and an `ip`, or name the bond or VLAN above it.",
    ),
    ours(
        RESERVED_ADDRESS,
        "The network's own, the broadcast, the gateway's and the boot server's address belong to \
         somebody else.",
        "Choose another address.",
    ),
    ours(
        RACK,
        "A range of racks takes its nodes in order, `per` to each; a node is in one rack.",
        "Correct `nodes` or `per`.",
    ),
    ours(
        BAD_URL,
        "URLs begin with http, https, ftp or file and hold neither spaces nor quotes.",
        "Correct the URL.",
    ),
    ours(
        SERIAL_TWICE,
        "A serial number or GUID belongs to one box or port.",
        "Correct one of the two.",
    ),
    ours(
        REPO_ARCHIVE,
        "The build unpacks `archive` for the boot server: a tar archive, plain or gzipped, or an ISO \
         with Rock Ridge names, which holds a folder with repodata/repomd.xml. Until the file is \
         there, check warns and build refuses.",
        "Correct the path or get the file anew; `folder` chooses among several repositories. Where the \
         archive has no repodata/, unpack it, run `createrepo_c` in its folder of packages, and name \
         that folder on a web server as `baseurl`.",
    ),
    ours(
        TEMPLATE_SYNTAX,
        "Templates are strict handlebars.",
        "Correct the marked line of the template.",
    ),
    ours(
        TEMPLATE_VALUE,
        "A name that is not defined would render as nothing, also in `{{#if}}`.",
        "Correct the name, or define it under `vars`.",
    ),
    ours(
        PARTIAL_CYCLE,
        "Templates that include each other never end.",
        "Take one inclusion out of the circle.",
    ),
    ours(
        BAD_PATH,
        "A path must be clean: absolute where a node reads it, relative inside an overlay, without \
         `..`, empty parts, spaces and quotes.",
        "Correct the path.",
    ),
    ours(
        OVERLAY,
        "overlay.toml must describe the files beside it, and only those.",
        "Correct the list or the files.",
    ),
    ours(
        UNKNOWN_OVERLAY,
        "Overlays come from nodeforge itself and from the site's folder (`--site`).",
        "Correct the name, or add the folder.",
    ),
    ours(
        PATH_TWICE,
        "Two overlays of one layer would overwrite each other.",
        "Take the path out of one of them, or move it to another layer.",
    ),
    ours(
        UNSAFE_TEXT,
        "Templates do not escape, so text that could end a line or a string could change what the \
         file means.",
        "Leave the character out.",
    ),
    ours(
        INLINE_SECRET,
        "The cluster file is kept in git; a secret in it would be too.",
        "Write `{ file = … }`, `{ env = … }` or `{ cmd = … }`.",
    ),
    ours(
        SECRET_UNREADABLE,
        "The verb needs a secret and could not get it.",
        "Correct the reference, or provide the file or variable.",
    ),
    ours(
        BAD_HASH,
        "EL8's libxcrypt knows `$6$` and `$5$`; with `$y$` (yescrypt) nobody could log in.",
        "Make the hash with `openssl passwd -6`.",
    ),
    ours(
        NO_CERTIFICATES,
        "`security = \"certificates\"` needs a CA and three certificates, which build never makes in \
         passing: rebuilding would change them.",
        "Run `nodeforge certs init` once.",
    ),
    ours(
        UNKNOWN_PACKAGE,
        "The package is not in nodeforge's list of EL8, EPEL and DAOS packages, which may be older \
         than your repositories.",
        "Check the name; `check --repodata URL` reads the real repositories.",
    ),
    ours(
        NO_SUCH_PACKAGE,
        "No repository whose metadata was read has the package: the installer would stop.",
        "Correct the name, or add the repository.",
    ),
    ours(
        DISK_RULE,
        "The installer takes the one disk that meets every condition; with none or several it stops.",
        "Name the disk by `by_path`, `by_id`, `serial` or its size.",
    ),
    ours(
        DATA_DISK,
        "The install disk would be one of the SSDs that hold DAOS's data.",
        "Choose another disk, or take the SSD out of the data lists.",
    ),
    ours(
        SUPPORT_MATRIX,
        "DAOS 2.6 is validated on EL 8.8 with extended support and on 8.10. Other releases usually \
         work, but nobody has tested them with DAOS.",
        "Use 8.10, or allow NF505.",
    ),
    ours(
        VERBS_WITHOUT_OFED,
        "Providers that speak verbs are validated with MLNX_OFED; with EL8's own drivers DAOS is not \
         supported.",
        "Add `[repo.mlnx_ofed]` with its ISO or tarball as `archive`, or a mirror of its packages as \
         `baseurl`.",
    ),
    ours(
        NO_ADMIN,
        "Somebody must run `dmg storage format` once, from a node with dmg.",
        "Add `admin` to the roles of one node.",
    ),
    ours(
        EMBEDDED_TOO_LARGE,
        "A kickstart with all layers inside must stay below 1 MiB.",
        "Use `boot.overlay = \"http\"`.",
    ),
    ours(
        OVERLAY_MODE,
        "Reserved: nothing gives this code yet. It is for ways to hand over secrets and overlays that \
         do not go together.",
        "None is needed.",
    ),
    ours(
        DAOS_VERSION,
        "Keys, defaults and formulas differ between releases; for a release that was not read, \
         guesses would be worse than a stop.",
        "Name a release of 2.6 or 2.8 in full, like `2.6.0`.",
    ),
    ours(
        NOT_A_SERVER,
        "An access point holds a replica of the management database, which daos_server runs; DAOS \
         itself only notices that nobody answers.",
        "Name a node with the role `server`.",
    ),
    ours(
        SINGLE_ACCESS_POINT,
        "With one replica of the management database, the loss of one server loses the system, \
         although all data is still there.",
        "Name three or five servers in different racks. With fewer than three servers, keep a \
         nightly copy of `daos_control/control_raft` elsewhere.",
    ),
    ours(
        SYSTEM_NAME,
        "DAOS takes 1 to 15 characters (\"invalid system name\"); its documentation advises to keep \
         `daos_server`.",
        "Leave `system_name` out.",
    ),
    ours(
        PROVIDER,
        "DAOS takes exactly one of the providers it has a plugin for; an unknown one stops the \
         engines, two stop daos_server (\"includes more than one provider\").",
        "Choose one of those in the help.",
    ),
    ours(
        BAD_PORT,
        "DAOS only checks that ports are positive: 70000 loads, and the engine then fails. An engine \
         listens on one port for each of its threads, counted from `port`.",
        "Keep the range of each engine below 65536 and away from 10001 and the telemetry port.",
    ),
    ours(
        PORT_OVERLAP,
        "Engines on one interface listen on targets + helpers + 2 ports and a few more, counted from \
         `port`; ranges that overlap may meet.",
        "Put them 1000 apart.",
    ),
    ours(
        FRACTIONAL_SIZE,
        "DAOS's files count in GiB, and its reader cuts 4.5 to 4 without a word.",
        "Use whole GiB.",
    ),
    ours(
        FORMAT_BY,
        "The node that formats needs dmg and the admin's certificate, which only admins get.",
        "Name an admin, or leave `format_by` out: then it is the first one by name.",
    ),
    ours(
        VOLATILE_PATH,
        "What lies there is gone after a reboot. Without its superblocks DAOS takes used SSDs for \
         new ones and wipes them at the next format.",
        "Leave control_metadata at /var/lib/daos and files under /var/daos.",
    ),
    ours(
        SWEPT_PATH,
        "systemd deletes what has not been touched for 30 days from /var/tmp (tmpfiles.d/tmp.conf), \
         and a reinstall does not keep it.",
        "Put files for data under /var/daos.",
    ),
    ours(
        PATH_CLASH,
        "As soon as DAOS mounts the RAM disk, everything below its mount point is hidden.",
        "Choose a path outside the mount point.",
    ),
    ours(
        LOG_LEVEL,
        "Control plane and engines have different levels, and DAOS refuses the other's.",
        "Control plane and agent: DISABLED, TRACE, DEBUG, INFO, NOTICE, ERROR. Engines: DEBUG, INFO, \
         NOTE, WARN, ERR, CRIT, ALRT, EMRG, EMIT.",
    ),
    ours(
        TOO_FEW_HUGEPAGES,
        "DAOS needs 1 GiB of hugepages for each target with block devices and for each engine with a \
         meta role; with fewer it only writes a notice, and engines fail under load.",
        "Leave `nr_hugepages` out: DAOS computes it at every start.",
    ),
    ours(
        PAPER_MEMORY,
        "DAOS computes with MemTotal, which is less than the DIMMs: page structures, firmware, the \
         kernel and crashkernel take their share (about 1.7 % and half a GiB). At the start of an \
         engine MemAvailable must also cover 90 % of its RAM disk.",
        "Give the box more memory, or say what /proc/meminfo shows: `mem_total = \"…\"`.",
    ),
    ours(
        USELESS_VARIABLE,
        "FI_SOCKETS_* are for libfabric's sockets provider, which DAOS 2.6 does not use.",
        "Leave the variable out.",
    ),
    ours(
        UNSIGNED_PACKAGES,
        "Without gpgcheck anybody between the node and the repository can replace DAOS.",
        "Set `gpgcheck = true` and `gpgkey`.",
    ),
    ours(
        TOO_MANY_HELPERS,
        "An engine uses at most two helpers for each target and leaves the rest out with a line in \
         its log.",
        "A helper for every four targets is usual.",
    ),
    ours(
        NO_CLIENT_FABRIC,
        "The agent is told which NICs lead to the engines: those on a network that an engine uses. \
         InfiniBand is not routed, so without one there is no way.",
        "Give the clients a NIC on that network.",
    ),
    ours(IGNORED, "DAOS reads the setting and does nothing with it.", "Leave it out."),
    ours(
        DEVICE_TWICE,
        "DAOS accepts one device in two tiers of one engine and fails later; with two engines \
         daos_server panics.",
        "Give each device to one tier; a tier may have several roles.",
    ),
    ours(
        FILE_TOO_LARGE,
        "Files for data lie on the install disk with the system and control_metadata; DAOS allocates \
         them at format and fails when the disk is full.",
        "Make the files smaller or the disk larger.",
    ),
    ours(
        TOO_FEW_CORES,
        "An engine needs targets + helpers + 2 physical cores, of its own NUMA node if it is pinned \
         (\"cannot start engine with … targets … xs_helpers on … cores\").",
        "Lower targets or helpers; for a lab, `env = [\"DAOS_TARGET_OVERSUBSCRIBE=1\"]`.",
    ),
    ours(
        NUMA_MISMATCH,
        "Every message of the engine would cross the sockets.",
        "Give the engine the NIC and the SSDs of its own NUMA node.",
    ),
    ours(
        UNEVEN_TARGETS,
        "Each target works on one device; where they do not divide evenly, some devices serve more \
         targets than others and all wait for them.",
        "Use a multiple of the number of devices.",
    ),
    ours(
        BUSID_RANGE,
        "Two bus numbers from 0 to 255, decimal or hexadecimal, the lower one first.",
        "Write it like `0x80-0x8f`.",
    ),
    ours(
        NO_DOMAIN,
        "Verbs, Omni-Path and Slingshot find the device by its domain (`mlx5_0`), not by the \
         interface's name, and the agent must be told it.",
        "Add `domain` to the NIC; `fi_info` lists them.",
    ),
    ours(
        DEVICE_PATH,
        "Class kdev takes block devices, which are under /dev.",
        "Name one, or use class file.",
    ),
    ours(
        ENGINE_VARIABLE,
        "daos_server sets PMEMOBJ_CONF and ABT_THREAD_STACKSIZE of its engines itself and does not \
         start where they are set otherwise: from 2.6.2 on `sds.at_create` (never with PMem, never 1 \
         with RAM disks) and stacks below 20480 bytes with PMem, from 2.6.5 on below 32768 with UCX, \
         from 2.8 on below 24576 with Metadata-on-SSD (server/engine/config.go, `UpdatePMDKEnvars`).",
        "Leave the variable out.",
    ),
    ours(
        UNKNOWN_OWNER,
        "Owners are given by name on the node itself, when its packages are installed. A name that \
         nobody creates leaves the file with root.",
        "Correct the name, add the package that creates the user, or let root own the file.",
    ),
    ours(
        TOO_MANY_TARGETS,
        "A device keeps a list of 64 places, and each target takes one for each role of the device: \
         64 targets at most, 21 where it has all three roles (`SMD_MAX_TGT_CNT`, src/bio/smd/; \
         utils/config/daos_server.yml). With more, format ends with an overflow.",
        "Lower the targets, or give the tier more devices or fewer roles.",
    ),
    ours(
        LABEL_TWICE,
        "Labels of pools are unique in the system, those of containers in their pool; the second one \
         would be taken for made already.",
        "Rename one of them.",
    ),
    ours(
        POOL_OPTIONS,
        "dmg takes a ratio of the tiers only with a total size: a share takes as much of every tier \
         (\"size=% may not be mixed with tier-ratio\").",
        "Leave `tier_ratio` out, or give the size in bytes.",
    ),
    ours(
        POOL_RANKS,
        "Ranks are given from 0 in the order in which the engines join, one for each engine of the \
         cluster; `dmg pool create` fails with others.",
        "Leave `ranks` out to use all engines.",
    ),
    ours(
        CONTAINERS_WITHOUT_AGENT,
        "Containers are made with `daos`, which reaches the servers through daos_agent; only clients \
         have both. The admin that formats makes them.",
        "Give that admin the role `client`, too, or make the containers by hand.",
    ),
    ours(
        CONTAINER_OWNER,
        "The admin makes containers as root. DAOS asks the pool's access control list, in which root \
         has no rights of its own, and by default only the owner may make containers.",
        "Add `A::root@:rwc` to `acl`, or leave `user` out and let root own the pool.",
    ),
    ours(
        POOL_PROPERTY,
        "dmg refuses a property it does not know, and the pool is then not made: days after the \
         cluster file was written.",
        "Correct the name; `dmg pool get-prop POOL` lists those of an existing pool.",
    ),
    ours(
        NO_VM,
        "`image` and `lab` make virtual machines. How large the system disk of one is, and that the \
         hw may be one at all, its `vm` says.",
        "Add `vm = { disk = \"48GiB\" }` to the hw, or leave its nodes out with `--node`.",
    ),
    ours(
        NOT_EMULATED,
        "A virtual machine is the planned hardware at the planned PCI addresses, or the first boot \
         would refuse it. QEMU has no InfiniBand, no PCI domain but 0000, and some addresses are \
         its own.",
        "Give virtual machines a hw of their own, or leave these nodes out with `--node`.",
    ),
    daos(
        LOW_MEMORY,
        "MemTotal must hold the hugepages, system_ram_reserved, 1 GiB for each engine (128 MiB for \
         each target, if that is more) and a RAM disk of at least 4 GiB for each engine. \
         `nodeforge plan` writes the sum out.",
        "Total memory (RAM) insufficient for configured ram-disk size, want … RAM but only have …",
        "More memory, fewer targets or engines; for a lab, `system_ram_reserved = \"1GiB\"`.",
    ),
    daos(
        UNKNOWN_ROLE,
        "Roles are wal, meta and data in lower case; nodeforge's schema takes no other (NF104).",
        "unknown option flag given",
        "Correct the word.",
    ),
    daos(
        MIXED_TIERS,
        "An engine has SSDs (class nvme) or emulated devices (file, kdev), not both.",
        "bdev tiers found with both emulated and non-emulated NVMe types specified in config",
        "Use one of the two for all tiers of the engine.",
    ),
    daos(
        ROLES_WITH_DCPM,
        "Metadata-on-SSD replaces persistent memory; an engine that has it needs no roles.",
        "MD-on-SSD roles has been specified in config with scm class set to dcpm",
        "Leave the roles out, or use scm of class ram.",
    ),
    daos(
        ROLES_NOT_ONCE,
        "With Metadata-on-SSD each of wal, meta and data is on exactly one tier.",
        "found … tiers, wanted 1",
        "One tier: all three roles. Two: wal, meta + data, or wal + meta, data. Three: one each.",
    ),
    daos(
        ROLES_MISSING,
        "Every bdev tier has roles, or none has.",
        "bdev tier MD-on-SSD roles have been specified on some but not all bdev tiers in config",
        "Give each tier its roles.",
    ),
    daos(
        TIERS_WITHOUT_ROLES,
        "Without roles there is one tier of block devices, for data.",
        "multiple bdev tiers but MD-on-SSD roles have not been specified",
        "Join the tiers, or give each its roles.",
    ),
    daos(
        TOO_MANY_TIERS,
        "Three roles make at most three tiers.",
        "only 1, 2 or 3 bdev tiers are supported when MD-on-SSD roles are specified",
        "Join tiers.",
    ),
    daos(
        METADATA_WITHOUT_ROLES,
        "nodeforge writes control_metadata if and only if bdev roles are set, so a cluster file \
         cannot break this rule.",
        "using 'control_metadata.path' requires MD-on-SSD roles",
        "In a file of your own: leave control_metadata out.",
    ),
    daos(
        ROLES_WITHOUT_METADATA,
        "nodeforge writes control_metadata if and only if bdev roles are set, so a cluster file \
         cannot break this rule.",
        "'control_metadata.path' is required when MD-on-SSD roles are specified",
        "In a file of your own: add control_metadata with a path.",
    ),
    daos(
        WAL_DATA_WITHOUT_META,
        "Of the ways to put three roles on two tiers, wal + data apart from meta is not supported.",
        "WAL and Data MD-on-SSD roles have been specified on a bdev tier without Meta role",
        "Put meta with wal, or with data.",
    ),
    daos(
        EMPTY_HOST_LIST,
        "daos_control.yml names every server; without one, each dmg command fails.",
        "empty hostlist parameter in configuration",
        "Give nodes the role `server`.",
    ),
    daos(
        NO_IOMMU,
        "daos_server as its own user reaches SSDs through VFIO, which needs an IOMMU: VT-d or AMD-Vi \
         on in the firmware, and not turned off for the kernel.",
        "no IOMMU detected while running as non-root user with NVMe devices",
        "Turn it on, or `run_as = \"root\"` for VMs without one.",
    ),
    daos(
        WRONG_SYSTEM,
        "All three files name one system; nodeforge takes the name from one place, so a cluster file \
         cannot break this rule.",
        "request system does not match running system",
        "In files of your own: write the same `name` in all.",
    ),
    daos(
        FABRIC_CLASSES,
        "All engines of a node are on InfiniBand, or all on Ethernet.",
        "I/O Engine … specifies fabric_iface … that conflicts with the primary server's device class",
        "Choose NICs of one class.",
    ),
    daos(
        VFIO_DISABLED,
        "Without VFIO only root reaches SSDs.",
        "disable_vfio: true in config while running as non-root user with NVMe devices",
        "Leave `disable_vfio` out.",
    ),
    daos_since(
        "2.6.5",
        TRANSPARENT_HUGEPAGES,
        "DAOS manages hugepages itself, and the kernel's transparent ones fragment the memory it \
         needs. Before 2.6.5 it started all the same.",
        "transparent hugepage (THP) enabled on storage server, DAOS requires THP to be disabled",
        "Keep `transparent_hugepage=never` among the kernel arguments, as the profile has it.",
    ),
    daos(
        BAD_CONFIG,
        "The general code: devices, sizes or cores that are missing, or do not go with their class.",
        "insufficient information in configuration",
        "As the message says.",
    ),
    daos(
        BAD_ACCESS_POINTS,
        "Access points are unique host names that resolve everywhere, at least one. Ranges are not \
         expanded in daos_server.yml; nodeforge writes the names out, in one order on all servers: \
         the first one bootstraps the system, and a different order founds two.",
        "invalid list of access points in configuration",
        "Name 1, 3 or 5 servers, each once.",
    ),
    daos(
        EVEN_ACCESS_POINTS,
        "Access points hold the replicas of the management database, which decides by majority: a \
         second replica adds no safety, only one more server that must be up. (Agents take any \
         number, so the mistake shows only on servers.)",
        "non-odd number of access points in configuration",
        "Name 1, 3 or 5 servers.",
    ),
    daos(
        NO_PROVIDER,
        "The schema wants a provider, so a cluster file cannot break this rule.",
        "provider not specified in server configuration",
        "Set `daos.provider`.",
    ),
    daos(
        NO_ENGINES,
        "A daos_server without engines starts for looking around, and stores nothing.",
        "no DAOS IO Engines specified in configuration",
        "Add `[[role.server.engine]]`.",
    ),
    daos(
        SAME_FABRIC,
        "Each engine has its own port, or its own interface.",
        "the fabric configuration in I/O Engine … is a duplicate of I/O Engine …",
        "Leave `port` out: engines are then 1000 apart.",
    ),
    daos(
        SAME_LOG_FILE,
        "Each engine writes its own log.",
        "the log_file value in I/O Engine … is a duplicate of I/O Engine …",
        "Leave `log_file` out.",
    ),
    daos(
        SAME_SCM_MOUNT,
        "Each engine mounts its scm at its own place.",
        "the scm_mount value in I/O Engine … is a duplicate of I/O Engine …",
        "Leave `mount` out.",
    ),
    daos(
        SAME_PMEM,
        "A PMem device belongs to one engine.",
        "the scm_list value in I/O Engine … is a duplicate of I/O Engine …",
        "Name another device.",
    ),
    daos(
        SAME_BDEV,
        "A block device belongs to one engine.",
        "the bdev_list value in engine … overlaps with entries in engine …",
        "Give each engine the SSDs of its own NUMA node.",
    ),
    daos(
        BDEV_COUNTS,
        "Engines with fewer devices fill up first, and pools are as large as the smallest share. \
         DAOS writes a notice and goes on, so this is a warning.",
        "the total number of bdev_list entries in all tiers is not equal across engines",
        "Replace the missing device, or allow DAOS-714.",
    ),
    daos(
        TARGET_COUNTS,
        "Hugepages and memory are shared out evenly over the engines of a node.",
        "the target count is not equal across engines",
        "Give all engines of a node equally many targets.",
    ),
    daos(
        HELPER_COUNTS,
        "All engines of a node have equally many helpers.",
        "the helper stream count is not equal across engines",
        "Give all engines of a node equally many helpers.",
    ),
    daos(
        FAULT_PATH,
        "A fault path begins at the root and has no empty level; nodeforge refuses others when it \
         reads the file (NF121).",
        "invalid fault domain",
        "Write it like `/{rack}/{name}`.",
    ),
    daos(
        FAULT_PATH_AND_CALLBACK,
        "The cluster file has no callback, so it cannot break this rule.",
        "both fault domain and fault path are defined in the configuration",
        "In a file of your own: keep one of the two.",
    ),
    daos(
        FAULT_PATH_DEPTH,
        "A fault path has one or two levels below the root, equally many on all servers.",
        "the fault domain path may have a maximum of 2 levels below the root",
        "Keep what fails together, like `/{rack}/{name}`.",
    ),
    daos(
        HUGEPAGES_RANGE,
        "The number must fit into 31 bits; the schema takes less (NF105).",
        "number of hugepages specified is out of range",
        "Leave `nr_hugepages` out.",
    ),
    daos(
        HUGEPAGES_DISABLED,
        "Block devices are reached through hugepages, emulated ones too. From 2.8 on only SSDs need \
         them.",
        "hugepages cannot be disabled if bdevs have been specified in config",
        "Leave `disable_hugepages` out.",
    ),
    daos(
        NUMA_IMBALANCE,
        "DAOS spreads hugepages evenly over the NUMA nodes with engines, so each of them has equally \
         many engines.",
        "uneven distribution of engines across NUMA nodes",
        "Pin equally many engines to each, or all to one.",
    ),
    daos(
        METADATA_NO_PATH,
        "nodeforge writes no device, as the filesystem is mounted before DAOS starts; a cluster file \
         cannot break this rule.",
        "using a control_metadata device requires a path to use as the mount point",
        "In a file of your own: add the path.",
    ),
    daos(
        SCM_TOO_SMALL,
        "A RAM disk has at least 4 GiB.",
        "configured ram-disk size is lower than the minimum required for SCM",
        "Write `size = \"auto\"`, or 4GiB or more.",
    ),
    daos(
        SCM_TOO_LARGE,
        "The RAM disks of all engines must fit into MemTotal less hugepages, system_ram_reserved and \
         the engines' own reserve.",
        "configured scm tmpfs size is larger than the maximum that total system memory (RAM) will \
         allow",
        "Write `size = \"auto\"`.",
    ),
    daos(
        SCM_CLASSES,
        "All engines of a node have scm of one class.",
        "the SCM class in engine … is different from engine …",
        "Use one class.",
    ),
    daos(
        ENGINE_ROLES,
        "Metadata-on-SSD is for all engines of a node, or for none.",
        "md-on-ssd bdev roles have been set in some but not all engine configs",
        "Set roles on all engines or on none.",
    ),
    daos(
        NO_RESERVED_RAM,
        "DAOS leaves at least 1 GiB to the system; the default is 16 GiB, and 64 GiB from 2.8 on.",
        "`system_ram_reserved` is set to zero in server config",
        "Leave it out; for a lab, 1GiB.",
    ),
    daos_since(
        "2.6.5",
        SCM_HUGEPAGES,
        "All engines of a node mount their RAM disks with hugepages, or none.",
        "the scm_hugepages_disabled in engine … is different from engine …",
        "Set `hugepages_disabled` for all engines or for none.",
    ),
    daos(
        METADATA_FILESYSTEM,
        "daos_server_helper prepares control_metadata with its setuid bit, which nosuid takes away, \
         and a network filesystem would let servers overwrite each other's. /run and /dev/shm are \
         nosuid on EL8.",
        "Configure the control_metadata path to a directory that is not on a networked or nosuid \
         filesystem",
        "Leave it at /var/lib/daos, which gets a filesystem of its own.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_text_and_no_text_is_of_another_code() {
        let codes: Vec<Code> = all().map(|explanation| explanation.code).collect();
        let texts: Vec<Code> = TEXTS.iter().map(|text| text.code).collect();
        assert_eq!(texts, codes);
    }

    #[test]
    fn a_code_is_found_in_any_case() {
        let explanation = explain("daos-706").unwrap();
        assert_eq!(explanation.code, EVEN_ACCESS_POINTS);
        assert_eq!(explain("DAOS-9999"), None);
        assert_eq!(
            explain("NF534").unwrap().to_string(),
            "NF534: targets that do not spread evenly over the devices\n\n\
             Each target works on one device; where they do not divide evenly, some devices serve \
             more targets than others and all wait for them.\n\n\
             Fix: Use a multiple of the number of devices."
        );
    }

    #[test]
    fn lines_end_before_the_terminal_does_and_lose_no_word() {
        for explanation in all() {
            let wrapped = explanation.wrapped(80);
            let longest = wrapped.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(80), "{wrapped}");
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&wrapped), words(&explanation.to_string()));
        }
        assert_eq!(wrap("a bb ccc dddddd e", 6), "a bb\nccc\ndddddd\ne");
        assert_eq!(wrap("", 6), "");
    }

    #[test]
    fn the_page_has_a_heading_for_each_code() {
        let page = markdown();
        for explanation in all() {
            let heading = format!("\n## {}: {}\n", explanation.code, explanation.title);
            assert_eq!(page.matches(&heading).count(), 1, "{heading}");
        }
    }
}
