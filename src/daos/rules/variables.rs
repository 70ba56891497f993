//! Rules about the environment of engines: what daos_server sets itself, and refuses to find
//! set otherwise.

use crate::cluster::{Cluster, Engine, ScmClass, Sited};
use crate::daos::rules::Findings;
use crate::daos::versions::{self, PmemobjConf};
use crate::diag::{Diagnostic, codes};

pub(super) fn check(cluster: &Cluster, engine: &Engine, findings: &mut Findings<'_>) {
    check_pmemobj_conf(cluster, engine, findings);
    check_stack_size(cluster, engine, findings);
}

/// The last setting of `name` and its value: the one that counts (`common/env_utils.go`,
/// `MergeKeyValues`).
fn setting<'a>(engine: &'a Engine, name: &str) -> Option<(&'a Sited<String>, &'a str)> {
    let found = engine.env.iter().rev().find_map(|variable| {
        let (key, value) = variable.split_once('=')?;
        (key == name).then_some((variable, value))
    })?;
    // An empty one is dropped.
    (!found.1.is_empty()).then_some(found)
}

/// DAOS decides on PMDK's shutdown state: on for PMem, off for RAM disks.
fn check_pmemobj_conf(cluster: &Cluster, engine: &Engine, findings: &mut Findings<'_>) {
    let release = versions::find_or_oldest(&cluster.daos.version);
    let Some((variable, value)) = setting(engine, "PMEMOBJ_CONF") else { return };
    if release.engine_variables.pmemobj_conf == PmemobjConf::Unchecked {
        return;
    }
    let (is_refused, class, help) = match engine.scm.class.value {
        ScmClass::Dcpm => (
            value.contains("sds.at_create"),
            "dcpm",
            "leave `sds.at_create` out: DAOS keeps the shutdown state for PMem",
        ),
        ScmClass::Ram => (
            value.contains("sds.at_create=1"),
            "ram",
            "leave `sds.at_create` out: DAOS sets it to 0 for RAM disks",
        ),
    };
    if is_refused {
        let message =
            format!("PMEMOBJ_CONF={value} keeps an engine with scm of class {class} down");
        findings.push(
            Diagnostic::error(codes::ENGINE_VARIABLE, message)
                .at(variable.span)
                .also(engine.scm.class.span, "the class")
                .help(help),
        );
    }
}

/// The stacks of Argobots' threads; DAOS sets the least size itself where nothing is said.
fn check_stack_size(cluster: &Cluster, engine: &Engine, findings: &mut Findings<'_>) {
    const NAME: &str = "ABT_THREAD_STACKSIZE";
    let Some((variable, value)) = setting(engine, NAME) else { return };
    let rules = versions::find_or_oldest(&cluster.daos.version).engine_variables;
    let is_ucx = cluster.daos.provider.starts_with("ucx+");
    let asked = [
        (engine.scm.class.value == ScmClass::Dcpm, rules.min_stack_dcpm, "scm of class dcpm"),
        (is_ucx, rules.min_stack_ucx, "a provider of UCX"),
        (engine.has_meta_role(), rules.min_stack_md_on_ssd, "Metadata-on-SSD"),
    ];
    let asked = asked.into_iter().filter(|(applies, least, _)| *applies && *least > 0);
    let Some((_, least, why)) = asked.max_by_key(|(_, least, _)| *least) else { return };
    let message = match value.parse::<u64>() {
        Ok(size) if size >= least => return,
        Ok(size) => format!("{NAME}={size} keeps engines down: with {why} it is {least} or more"),
        Err(_) => format!("{NAME}={value} keeps engines down: it is no number"),
    };
    findings.push(
        Diagnostic::error(codes::ENGINE_VARIABLE, message)
            .at(variable.span)
            .help(format!("leave it out: DAOS then sets {least} bytes itself")),
    );
}
