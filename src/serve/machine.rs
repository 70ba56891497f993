//! What becomes of a node: one record a node, and what each event makes of it. Pure, so that
//! thousands of reboots with crashes and lost reports can be played through in a test.
//!
//! ```text
//! unknown ─arm─► armed ─boot script─► installing ─%post─► installed ─► firstboot ─► ready
//!    ▲             │                       │                  any of the last four ─► failed
//!    └──disarm, expiry                     └─ too often: failed, and it halts
//! ```
//!
//! A grant is the permission to install once. Its number is on the kernel line of the installer
//! and ends on the node's disk, where `%pre` finds it: so a report that never arrives costs a
//! boot of the installer, never an installation.

use serde::{Deserialize, Serialize};

use crate::format::digest::Digest;

/// Seconds since the Unix epoch.
pub type Time = i64;

/// Boot scripts that are asked for within this many seconds are those of one boot: no
/// machine gets through its firmware twice in that time, and boot loaders ask twice.
pub const SAME_BOOT_SECS: Time = 15;

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Never installed from here, as far as is known.
    Unknown,
    /// Gets the installer at its next network boot.
    Armed,
    /// Was given the installer.
    Installing,
    /// `%post` has ended.
    Installed,
    /// Its first boot, or a later one, is at work.
    Firstboot,
    Ready,
    Failed,
}

impl State {
    /// In the order in which a node goes through them.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Armed,
        Self::Installing,
        Self::Installed,
        Self::Firstboot,
        Self::Ready,
        Self::Failed,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Armed => "armed",
            Self::Installing => "installing",
            Self::Installed => "installed",
            Self::Firstboot => "firstboot",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// The permission to install a node once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Higher than every earlier one; at most 18 digits.
    pub id: u64,
    pub armed: Time,
    /// Until when an installation may begin.
    pub expires: Time,
    /// Of the NIC that the node boots by: what is armed is a machine, and names may go to another
    /// one. `None` of grants before this was kept.
    #[serde(default)]
    pub mac: Option<String>,
    /// Gives up DAOS's filesystems too.
    pub wipe_daos: bool,
    /// Gives up what else is on the install disk.
    pub overwrite: bool,
    /// The version of DAOS that it was given for; `None` of a node that is no server.
    pub daos: Option<String>,
    /// Digests of the two tokens.
    pub secret: Digest,
    pub event: Digest,
    /// How often the installer was started with it.
    pub attempts: u32,
    pub last_attempt: Time,
    /// The node was heard of since its last attempt began.
    pub is_heard: bool,
    /// The state to go back to if it is never used.
    pub before: State,
    /// Why it was in that state.
    #[serde(default)]
    pub reason_before: Option<String>,
    /// The generation that the running attempt installs.
    pub generation: u64,
}

/// What the boot tree has for a node, which a grant must fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct There<'a> {
    /// The version of DAOS, of a server.
    pub daos: Option<&'a str>,
    /// As the manifest has them.
    pub macs: &'a [String],
}

/// How long an installation may take once it has begun, in seconds: mirrors are slow.
pub const INSTALL_SECS: Time = 6 * 3600;

impl Grant {
    /// Why a node is not installed with what is in the boot tree.
    fn refusal_of(&self, there: There<'_>) -> Option<String> {
        if let Some(mac) = self.mac.as_ref().filter(|mac| !there.macs.contains(mac)) {
            return Some(format!(
                "armed for the machine with MAC {mac}, but the boot tree has {}: disarm, and arm again",
                there.macs.join(", ")
            ));
        }
        let version = |daos: Option<&str>| match daos {
            Some(daos) => format!("DAOS {daos}"),
            None => "no server of DAOS".to_owned(),
        };
        (self.daos.as_deref() != there.daos).then(|| {
            format!(
                "armed for {}, but the boot tree has {}: disarm, and arm all servers",
                version(self.daos.as_deref()),
                version(there.daos),
            )
        })
    }

    /// When it ends: what has begun in time may go on.
    pub fn ends(&self) -> Time {
        match self.attempts {
            0 => self.expires,
            _ => self.expires.max(self.last_attempt + INSTALL_SECS),
        }
    }

    /// What is kept of it when nothing installs with it any more.
    fn used(self) -> Installed {
        Installed { grant: self.id, daos: self.daos, event: self.event }
    }
}

/// What an installation that ended left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub grant: u64,
    pub daos: Option<String>,
    /// The digest of the token that this installation reports with.
    pub event: Digest,
}

/// All that is remembered of one node, but its timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub state: State,
    pub since: Time,
    pub reason: Option<String>,
    /// What it was at when it was last heard of.
    pub step: String,
    pub grant: Option<Grant>,
    pub installed: Option<Installed>,
    /// The highest number of a grant ever given to it.
    pub last_grant: u64,
    /// The boot of the installed system that its last event came from.
    pub boot_id: String,
    /// The step that made this boot a failed one.
    pub failed_step: String,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            state: State::Unknown,
            since: 0,
            reason: None,
            step: String::new(),
            grant: None,
            installed: None,
            last_grant: 0,
            boot_id: String::new(),
            failed_step: String::new(),
        }
    }
}

/// What a machine that asks over the network is to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    Install(Install),
    Disk,
    /// Nothing, until a person comes.
    Halt {
        message: String,
    },
}

/// What an installation says on its kernel line, besides the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    pub grant: u64,
    pub wipe_daos: bool,
    pub overwrite: bool,
}

/// What a server holds for all nodes alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How often the installer is started with one grant.
    pub attempts: u32,
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `%pre`, `%post` or `%onerror`.
    Installer,
    /// The installed system.
    Node,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub origin: Origin,
    pub step: String,
    pub state: String,
    pub message: String,
    /// Empty from the installer.
    pub boot_id: String,
}

/// Why a node cannot be armed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    #[error("it is being installed: disarm it first")]
    Installing,
}

impl Record {
    fn enter(&mut self, state: State, now: Time) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }

    /// Gives the node `grant`, in place of one that it has not used.
    ///
    /// # Errors
    ///
    /// Fails while the installer runs on it.
    pub fn arm(&mut self, grant: Grant, now: Time) -> Result<(), ArmError> {
        if self.state == State::Installing {
            return Err(ArmError::Installing);
        }
        let before = match &self.grant {
            Some(unused) if unused.attempts == 0 => unused.before,
            _ => self.state,
        };
        let reason_before = match self.grant.take() {
            Some(unused) if unused.attempts == 0 => unused.reason_before,
            Some(used) => {
                // If the new one is taken away unused, what the machine says counts again.
                self.installed = Some(used.used());
                self.reason.take()
            }
            None => self.reason.take(),
        };
        self.last_grant = grant.id;
        self.grant = Some(Grant { before, reason_before, ..grant });
        self.reason = None;
        self.step = "armed".to_owned();
        self.enter(State::Armed, now);
        Ok(())
    }

    /// Takes the grant away; whether there was one.
    pub fn disarm(&mut self, now: Time) -> bool {
        self.end_grant("disarmed", "", now)
    }

    /// Takes away a grant whose time is over; whether there was one.
    pub fn expire(&mut self, now: Time) -> bool {
        self.has_expired(now) && self.end_grant("its grant expired", ": arm it again", now)
    }

    /// Whether the node has a grant whose time is over.
    pub fn has_expired(&self, now: Time) -> bool {
        self.grant.as_ref().is_some_and(|grant| now >= grant.ends())
    }

    fn end_grant(&mut self, why: &str, remedy: &str, now: Time) -> bool {
        let Some(grant) = self.grant.take() else { return false };
        if grant.attempts == 0 {
            self.reason = grant.reason_before;
            self.step = why.to_owned();
            self.enter(grant.before, now);
        } else {
            // Its token stays: what the machine has to say is still of interest.
            self.installed = Some(grant.used());
            self.reason = Some(format!("{why} before the installation ended{remedy}"));
            self.enter(State::Failed, now);
        }
        true
    }

    /// What the node would get if it asked now. Changes nothing.
    ///
    /// `there` is what the boot tree has for it.
    pub fn boot(&self, there: There<'_>, limits: Limits, now: Time) -> Boot {
        let Some(grant) = self.grant.as_ref().filter(|grant| now < grant.ends()) else {
            return Boot::Disk;
        };
        if let Some(message) = grant.refusal_of(there) {
            return Boot::Halt { message };
        }
        if grant.attempts >= limits.attempts && !self.is_same_boot(grant, now) {
            return Boot::Halt {
                message: format!(
                    "the installation did not end {} times: look for the cause, then arm again; \
                     or disarm it, if it is installed and only its reports are lost",
                    grant.attempts
                ),
            };
        }
        Boot::Install(Install {
            grant: grant.id,
            wipe_daos: grant.wipe_daos,
            overwrite: grant.overwrite,
        })
    }

    fn is_same_boot(&self, grant: &Grant, now: Time) -> bool {
        grant.attempts > 0
            && !grant.is_heard
            // A clock may have gone back.
            && (0..SAME_BOOT_SECS).contains(&now.saturating_sub(grant.last_attempt))
    }

    /// Hands out a boot script: an attempt begins, unless this is still the last one.
    pub fn start_boot(
        &mut self,
        there: There<'_>,
        generation: u64,
        limits: Limits,
        now: Time,
    ) -> Boot {
        let boot = self.boot(there, limits, now);
        match &boot {
            Boot::Disk => {}
            Boot::Halt { message } => {
                self.reason = Some(message.clone());
                self.enter(State::Failed, now);
            }
            Boot::Install(_) => {
                let is_same =
                    self.grant.as_ref().is_some_and(|grant| self.is_same_boot(grant, now));
                let grant = self.grant.as_mut().expect("only who has a grant installs");
                if !is_same {
                    grant.attempts += 1;
                    grant.last_attempt = now;
                    grant.is_heard = false;
                    grant.generation = generation;
                    self.reason = None;
                    self.step = "boot script".to_owned();
                }
                self.enter(State::Installing, now);
            }
        }
        boot
    }

    /// What the node gets that asks for its kickstart: as for its boot script, but the attempt that
    /// runs goes on, which may be the last one. Changes nothing.
    pub fn kickstart(&self, there: There<'_>, limits: Limits, now: Time) -> Boot {
        match self.state {
            State::Installing => self.boot(there, Limits { attempts: u32::MAX }, now),
            _ => self.boot(there, limits, now),
        }
    }

    /// Whether what an installation needs may be given to it: its secrets.
    pub fn may_install(&self, now: Time) -> bool {
        self.grant.as_ref().is_some_and(|grant| now < grant.ends())
    }

    /// The generation that an installation which has begun takes its files from.
    pub fn installs_from(&self) -> Option<u64> {
        self.grant.as_ref().filter(|grant| grant.attempts > 0).map(|grant| grant.generation)
    }

    /// Whether `token` opens the node's secrets now.
    pub fn opens_secrets(&self, token: &Digest, now: Time) -> bool {
        self.may_install(now) && self.grant.as_ref().is_some_and(|grant| grant.secret == *token)
    }

    /// Whether `token` may add to the node's events now.
    pub fn may_report(&self, token: &Digest) -> bool {
        let event = match (&self.grant, &self.installed) {
            (Some(grant), _) => Some(&grant.event),
            (None, installed) => installed.as_ref().map(|installed| &installed.event),
        };
        event == Some(token)
    }

    /// The installer has asked for its kickstart, or somebody else, who says so less than a boot
    /// script does: a failure stays one until that is asked for, or the installer reports.
    pub fn kickstart_taken(&mut self, now: Time) {
        let Some(grant) = &mut self.grant else { return };
        grant.is_heard = true;
        if self.state != State::Failed {
            self.step = "kickstart".to_owned();
            self.enter(State::Installing, now);
        }
    }

    /// Takes in what the node, known by its token, says.
    pub fn event(&mut self, event: &Event, now: Time) {
        if let Some(grant) = &mut self.grant {
            grant.is_heard = true;
        }
        let is_up = matches!(self.state, State::Installed | State::Firstboot | State::Ready);
        match event.origin {
            // It comes late, or twice.
            Origin::Installer if is_up && self.grant.is_none() => {}
            Origin::Installer => {
                self.step.clone_from(&event.step);
                self.installer_event(event, now);
            }
            Origin::Node => {
                self.step.clone_from(&event.step);
                self.node_event(event, now);
            }
        }
    }

    fn installer_event(&mut self, event: &Event, now: Time) {
        match (event.step.as_str(), event.state.as_str()) {
            (_, "refused") => {
                self.reason = Some(event.message.clone());
                self.enter(State::Failed, now);
            }
            // `boot-from-disk`: it was installed already, and the report was lost.
            ("finish", "ended") | ("boot-from-disk", _) => {
                self.close_grant();
                self.reason = None;
                self.enter(State::Installed, now);
            }
            // What follows a refusal is its consequence, until the machine starts anew.
            _ if self.grant.is_some() && self.state != State::Failed => {
                self.reason = None;
                self.enter(State::Installing, now);
            }
            _ => {}
        }
    }

    fn node_event(&mut self, event: &Event, now: Time) {
        self.close_grant();
        let is_new_boot = self.boot_id != event.boot_id;
        self.boot_id.clone_from(&event.boot_id);
        match (event.state.as_str(), self.state) {
            ("ready", _) => self.go_on(State::Ready, now),
            ("failed", _) => {
                self.reason = Some(event.message.clone());
                self.failed_step.clone_from(&event.step);
                self.enter(State::Failed, now);
            }
            // One step's failure is not undone by what the others have to say.
            (_, State::Failed) if !is_new_boot && self.failed_step != event.step => {}
            (_, State::Ready) if !is_new_boot => {}
            _ => self.go_on(State::Firstboot, now),
        }
    }

    fn go_on(&mut self, state: State, now: Time) {
        self.reason = None;
        self.failed_step.clear();
        self.enter(state, now);
    }

    /// The installation is on the disk: nothing installs with this grant any more.
    fn close_grant(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.installed = Some(grant.used());
        }
    }
}
