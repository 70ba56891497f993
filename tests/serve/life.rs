//! The life of a node, played through: reboots, power cuts and lost reports at every stage.

use nodeforge::format::digest::Digest;
use nodeforge::serve::machine::{
    ArmError, Boot, Event, Grant, INSTALL_SECS, Install, Limits, Origin, Record, State, There, Time,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const LIMITS: Limits = Limits { attempts: 5 };

/// A machine with a disk, and what has happened to it.
struct World {
    record: Record,
    now: Time,
    /// The number on the disk of an installation that ended.
    stored: Option<u64>,
    /// Events that the installed system has still to deliver: its grant, and what.
    spool: Vec<(u64, Event)>,
    seq: u32,
    is_network_first: bool,
    /// The numbers of all grants ever given, and how often each was installed with.
    given: Vec<u64>,
    n_installs: Vec<(u64, u32)>,
    log: Vec<String>,
    chances: Chances,
}

/// Bytes from the test's runner: each chance takes one.
struct Chances {
    bytes: Vec<u8>,
    at: usize,
    /// No crash and no loss any more.
    is_calm: bool,
}

impl Chances {
    fn hit(&mut self, percent: u8) -> bool {
        self.at += 1;
        !self.is_calm && self.bytes[self.at % self.bytes.len()] % 100 < percent
    }
}

fn token(what: &str, grant: u64) -> Digest {
    Digest::of(format!("{what} {grant}").as_bytes())
}

fn grant(id: u64, now: Time) -> Grant {
    Grant {
        id,
        armed: now,
        expires: now + 86_400,
        mac: None,
        wipe_daos: false,
        overwrite: false,
        daos: None,
        secret: token("secret", id),
        event: token("event", id),
        attempts: 0,
        last_attempt: 0,
        is_heard: false,
        before: State::Unknown,
        reason_before: None,
        generation: 0,
    }
}

fn event(origin: Origin, step: &str, state: &str, boot_id: String) -> Event {
    Event { origin, step: step.into(), state: state.into(), message: "why".into(), boot_id }
}

impl World {
    fn new(bytes: Vec<u8>, is_network_first: bool) -> Self {
        Self {
            record: Record::default(),
            now: 1_000_000,
            stored: None,
            spool: Vec::new(),
            seq: 0,
            is_network_first,
            given: Vec::new(),
            n_installs: Vec::new(),
            log: Vec::new(),
            chances: Chances { bytes, at: 0, is_calm: false },
        }
    }

    fn arm(&mut self) {
        let id = self.given.len() as u64 + 1;
        match self.record.arm(grant(id, self.now), self.now) {
            Ok(()) => {
                self.log.push(format!("armed {id}"));
                self.given.push(id);
            }
            Err(ArmError::Installing) => self.log.push("busy".into()),
        }
    }

    /// The machine is switched on and runs until it goes down.
    fn power_on(&mut self) {
        self.now += 60;
        // Whoever armed a node that boots its disk first chooses the network for it, as a rule.
        let is_chosen =
            self.record.grant.is_some() && (self.chances.is_calm || self.chances.hit(50));
        if self.stored.is_some() && !self.is_network_first && !is_chosen {
            return self.run_system();
        }
        let boot = self.record.start_boot(There::default(), 1, LIMITS, self.now);
        if self.chances.hit(20) {
            // PXELINUX and GRUB may ask twice.
            let again = self.record.start_boot(There::default(), 1, LIMITS, self.now + 2);
            assert_eq!(again, boot);
        }
        self.log.push(format!("boot {boot:?}"));
        match boot {
            Boot::Install(install) => self.run_installer(&install),
            Boot::Disk if self.stored.is_some() => self.run_system(),
            // Without a system the firmware finds nothing; halted, it waits for a person.
            Boot::Disk | Boot::Halt { .. } => {}
        }
    }

    fn run_installer(&mut self, install: &Install) {
        let id = install.grant;
        if self.chances.hit(15) || !self.record.may_install(self.now) {
            return;
        }
        self.record.kickstart_taken(self.now);
        if self.chances.hit(15) {
            return;
        }
        if self.stored.is_some_and(|stored| stored >= id) {
            self.report(
                id,
                &event(Origin::Installer, "boot-from-disk", "started", String::new()),
                30,
            );
            return self.run_system();
        }
        if self.chances.hit(5) {
            self.report(id, &event(Origin::Installer, "disk", "refused", String::new()), 30);
            return;
        }
        self.report(id, &event(Origin::Installer, "disk", "ended", String::new()), 30);
        assert!(
            self.record.opens_secrets(&token("secret", id), self.now)
                || self.record.grant.is_none()
        );
        // From here on what was on the disk is gone.
        self.stored = None;
        self.spool.clear();
        if self.chances.hit(15) {
            return;
        }
        self.now += 600;
        self.stored = Some(id);
        match self.n_installs.iter_mut().find(|(grant, _)| *grant == id) {
            Some((_, count)) => *count += 1,
            None => self.n_installs.push((id, 1)),
        }
        self.log.push(format!("installed with {id}"));
        if self.chances.hit(15) {
            return;
        }
        self.report(id, &event(Origin::Installer, "finish", "ended", String::new()), 40);
    }

    fn run_system(&mut self) {
        let id = self.stored.expect("a system is there");
        self.seq += 1;
        let boot_id = self.seq.to_string();
        for (step, state) in [("10-owners", "started"), ("10-owners", "done"), ("ready", "ready")] {
            if self.chances.hit(15) {
                return;
            }
            self.spool.push((id, event(Origin::Node, step, state, boot_id.clone())));
            self.deliver();
        }
        self.log.push("up".into());
        self.now += 3600;
        self.deliver();
    }

    /// Sends the spool in order until one is lost; that one is sent again later.
    fn deliver(&mut self) {
        while let Some((id, event)) = self.spool.first().cloned() {
            if self.chances.hit(30) || !self.record.may_report(&token("event", id)) {
                return;
            }
            self.record.event(&event, self.now);
            self.spool.remove(0);
        }
    }

    fn report(&mut self, id: u64, event: &Event, percent_lost: u8) {
        if !self.chances.hit(percent_lost) && self.record.may_report(&token("event", id)) {
            self.record.event(event, self.now);
        }
    }

    /// One installation for each grant at the most, and none without.
    fn require_no_unintended_install(&self) {
        for (id, count) in &self.n_installs {
            assert!(self.given.contains(id) && *count == 1, "{:#?}", self.log);
        }
    }
}

#[test]
fn reboots_crashes_and_lost_reports_never_reinstall_and_never_leave_a_node_stuck() {
    let mut runner =
        TestRunner::new(Config { cases: 3000, failure_persistence: None, ..Config::default() });
    let sequences = (proptest::collection::vec(any::<u8>(), 400), any::<bool>());
    runner
        .run(&sequences, |(bytes, is_network_first)| {
            let mut world = World::new(bytes, is_network_first);
            for _ in 0..30 {
                if world.chances.hit(12) {
                    world.arm();
                } else if world.chances.hit(4) {
                    world.record.disarm(world.now);
                    world.log.push("disarmed".into());
                } else if world.chances.hit(2) {
                    world.now += 90_000;
                    world.record.expire(world.now);
                }
                world.power_on();
                world.require_no_unintended_install();
            }
            // From now on nothing goes wrong: who was given a grant gets there.
            world.chances.is_calm = true;
            if world.record.state != State::Installing {
                world.arm();
            }
            let installs_before = world.n_installs.len();
            for _ in 0..8 {
                world.power_on();
                let is_halted = matches!(
                    world.record.boot(There::default(), LIMITS, world.now + 60),
                    Boot::Halt { .. }
                );
                if is_halted {
                    world.arm();
                }
            }
            world.require_no_unintended_install();
            assert_eq!(world.record.state, State::Ready, "{:#?} {:#?}", world.record, world.log);
            assert!(world.n_installs.len() <= installs_before + 2, "{:#?}", world.log);
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_event_of_the_installed_system_closes_the_grant() {
    for state in ["started", "done", "warning", "failed", "waiting", "reboot", "ready"] {
        let mut record = Record::default();
        record.arm(grant(7, 100), 100).unwrap();
        record.start_boot(There::default(), 1, LIMITS, 200);
        record.event(&event(Origin::Node, "10-owners", state, "b".into()), 300);
        assert_eq!(record.boot(There::default(), LIMITS, 400), Boot::Disk, "{state}");
        assert!(!record.opens_secrets(&token("secret", 7), 400), "{state}");
        assert!(record.may_report(&token("event", 7)), "{state}");
    }
}

#[test]
fn a_grant_expires_and_leaves_what_was() {
    let mut record = Record::default();
    record.arm(grant(1, 100), 100).unwrap();
    record.start_boot(There::default(), 1, LIMITS, 200);
    record.event(&event(Origin::Node, "ready", "ready", "b".into()), 300);
    record.arm(grant(2, 1000), 1000).unwrap();
    assert!(!record.expire(1000 + 86_399));
    assert_eq!(record.boot(There::default(), LIMITS, 1000 + 86_400), Boot::Disk);
    assert!(!record.opens_secrets(&token("secret", 2), 1000 + 86_400));
    assert!(record.expire(1000 + 86_400));
    assert_eq!(record.state, State::Ready);
    assert!(record.may_report(&token("event", 1)), "the system that is there reports on");
    assert!(!record.may_report(&token("event", 2)));
}

#[test]
fn an_installation_that_began_in_time_may_end() {
    let mut record = Record::default();
    record.arm(grant(1, 100), 100).unwrap();
    let begin = 100 + 86_399;
    record.start_boot(There::default(), 1, LIMITS, begin);
    let end = begin + INSTALL_SECS;
    assert!(record.may_install(end - 1) && !record.expire(end - 1));
    assert!(matches!(record.boot(There::default(), LIMITS, end - 1), Boot::Install(_)));
    assert!(!record.may_install(end) && record.expire(end));
    assert_eq!(record.state, State::Failed);
    assert!(record.reason.unwrap().ends_with("arm it again"));
}

#[test]
fn arming_and_disarming_leaves_a_machine_its_voice() {
    let mut record = Record::default();
    record.arm(grant(1, 100), 100).unwrap();
    record.start_boot(There::default(), 1, LIMITS, 200);
    record.event(&event(Origin::Installer, "disk", "refused", String::new()), 300);
    record.arm(grant(2, 400), 400).unwrap();
    assert!(record.may_report(&token("event", 2)));
    assert!(record.disarm(500));
    assert!(record.may_report(&token("event", 1)));
}

#[test]
fn a_clock_that_went_back_does_not_make_two_boots_one() {
    let mut record = Record::default();
    record.arm(grant(1, 100), 100).unwrap();
    for now in [300, 200, 150] {
        record.start_boot(There::default(), 1, LIMITS, now);
    }
    assert_eq!(record.grant.unwrap().attempts, 3);
}

#[test]
fn a_grant_that_is_not_used_leaves_the_reason_of_a_failure() {
    let mut record = Record::default();
    record.arm(grant(1, 100), 100).unwrap();
    record.start_boot(There::default(), 1, LIMITS, 200);
    record.event(&event(Origin::Node, "storage", "failed", "b".into()), 300);
    let reason = record.reason.clone();
    assert!(reason.is_some());
    for id in [2, 3] {
        record.arm(grant(id, 400), 400).unwrap();
        assert_eq!(record.reason, None);
    }
    assert!(record.disarm(500));
    assert_eq!((record.state, &record.reason), (State::Failed, &reason));
}

#[test]
fn a_failed_step_stays_failed_until_it_is_done_or_the_next_boot() {
    let mut record = Record::default();
    let mut say = |step: &str, state: &str, boot: &str| {
        record.event(&event(Origin::Node, step, state, boot.into()), 100);
        (record.state, record.reason.clone())
    };
    let failed = (State::Failed, Some("why".to_owned()));
    assert_eq!(say("90-preflight", "failed", "1"), failed);
    assert_eq!(say("ready", "waiting", "1"), failed);
    assert_eq!(say("90-preflight", "done", "1"), (State::Firstboot, None));
    assert_eq!(say("90-preflight", "failed", "1"), failed);
    assert_eq!(say("10-owners", "started", "2"), (State::Firstboot, None));
    assert_eq!(say("ready", "ready", "2"), (State::Ready, None));
    assert_eq!(say("clock", "warning", "2"), (State::Ready, None));
}
