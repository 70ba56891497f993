//! The targets of the fuzzer on stable: the corpus replayed, and random bytes.
//!
//! The corpus (tests/fuzz/corpus/<target>/) holds what made the fuzzer see something new, and
//! what once made a target fail. Random inputs are changed corpus files, as random bytes alone
//! hardly pass a first check.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support;

#[path = "fuzz/targets.rs"]
mod targets;

use targets::{TARGETS, Target};

/// Random inputs a target: some two seconds of a debug build altogether.
const N_CASES: u32 = 64;

#[track_caller]
fn corpus_of(target: &str) -> Vec<Vec<u8>> {
    let folder = support::repository().join("tests/fuzz/corpus").join(target);
    let names = support::files_below(&folder, |_| true);
    assert!(names.len() >= 3, "{target} has {} inputs in its corpus", names.len());
    names.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
}

#[test]
fn nothing_in_the_corpus_makes_a_target_panic() {
    for (name, target) in TARGETS {
        corpus_of(name).iter().for_each(|input| target(input));
    }
}

#[test]
fn no_changed_input_makes_a_target_panic() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(move || try_changed(target));
        }
    });
}

/// Bytes of a corpus file with pieces put in the place of others.
fn try_changed((name, target): Target) {
    let corpus = corpus_of(name);
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..8),
        proptest::sample::select(vec![
            "[", "{{", "}}", "\"", "\n", "=", "0", "-1", "/..", "é", "\0"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let change = (any::<prop::sample::Index>(), 0..16_usize, piece);
    let changes = proptest::collection::vec(change, 1..5);
    let input = (0..corpus.len(), changes).prop_map(move |(at, changes)| {
        let mut bytes = corpus[at].clone();
        for (place, n_replaced, piece) in changes {
            let start = place.index(bytes.len() + 1);
            let end = (start + n_replaced).min(bytes.len());
            bytes.splice(start..end, piece);
        }
        bytes
    });
    let config = Config { cases: N_CASES, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tried = runner.run(&input, |bytes| {
        target(&bytes);
        Ok(())
    });
    assert!(tried.is_ok(), "{name}: {}", tried.unwrap_err());
}

#[test]
fn every_target_is_one_of_the_fuzzer_too() {
    let folder = support::repository().join("tests/fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let named: BTreeSet<&str> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .filter(|name| *name != "nodeforge-fuzz")
        .collect();
    let files = support::files_below(&folder.join("fuzz_targets"), |_| true);
    let files: BTreeSet<&str> = files.iter().filter_map(|name| name.strip_suffix(".rs")).collect();
    let ours: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, ours);
    assert_eq!(files, ours);
}
