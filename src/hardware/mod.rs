//! What a real box is, from what its own tools say, as an `hw.NAME` block of the cluster file.
//!
//! [`capture`] recognises outputs of the field's usual tools by their content and adds what
//! they say to [`Facts`]; [`choose`] decides what of it an operator would write down, and
//! [`block`] writes that as TOML, with a comment wherever only a person can decide.
//! [`COLLECT`] is the script that gathers all outputs on the box.

mod block;
mod capture;
mod choose;
mod daos;
mod disks;
mod facts;
mod links;
mod machine;
mod nics;
mod pci;

pub use block::block;
pub use capture::{CaptureError, Outcome, Reading, TOOLS, read};
pub use choose::{Choice, choose};
pub use facts::{Disk, Facts, Nic, PciDevice, Rdma};

/// The script that prints everything [`read`] makes use of as one text.
pub const COLLECT: &str = include_str!("collect.sh");
