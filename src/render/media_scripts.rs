//! Scripts that media bring along beside kickstarts: made of the kickstart's own and of one of
//! `profiles/media/`, and without any value of a node.

/// The scripts by their path in `profiles/`, beside those of the kickstart.
pub const FILES: [&str; 2] = [PICK, SEED];

const PICK: &str = "media/pick.sh";
const SEED: &str = "media/seed.sh";
/// What stands before [`SEED`].
const BEFORE_SEED: [&str; 4] =
    ["kickstart/lib.sh", "kickstart/fetch.sh", "kickstart/unpack.sh", "kickstart/target.sh"];

/// The scripts of all nodes.
#[derive(Clone, Debug, Default)]
pub struct MediaScripts {
    /// Makes a node of a cloud image; reads the values of the node from the environment.
    pub seed: String,
    /// Finds out which node a machine is, in the installer.
    pub pick: String,
}

impl MediaScripts {
    /// `text_of` gives the texts of [`FILES`] and of the kickstart's files.
    pub fn of<'a>(text_of: impl Fn(&str) -> Option<&'a str>) -> Self {
        let text = |name: &str| text_of(name).unwrap_or_default();
        let seed: String = BEFORE_SEED.iter().chain([&SEED]).map(|name| text(name)).collect();
        Self { seed, pick: text(PICK).to_owned() }
    }
}
