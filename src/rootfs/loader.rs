//! GRUB for BIOS and UEFI, made by its own grub-mkimage with all modules in it. Both look for
//! `/boot/grub/grub.cfg` on the third partition of the disk that they were started from, whatever
//! other disks there are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::format::fat;
use crate::output::disk::named;
use crate::tool;

/// Where distributions have GRUB's modules.
const MODULES: &str = "/usr/lib/grub";
/// Debian's name and EL8's.
const PROGRAMS: [&str; 2] = ["grub-mkimage", "grub2-mkimage"];
/// From the partition that GRUB was loaded from to that of the root.
const PREFIX: &str = "(,gpt3)/boot/grub";
const COMMON: [&str; 9] =
    ["part_gpt", "ext2", "normal", "linux", "serial", "terminal", "echo", "test", "all_video"];
/// The number of the EFI system partition's FAT volume.
const VOLUME: u32 = 0x4e46_4546;

/// What firmware starts.
pub struct Loader {
    /// The first sector of a BIOS disk.
    pub boot_img: Vec<u8>,
    /// The rest of GRUB for a BIOS.
    pub core: Vec<u8>,
    /// The EFI system partition.
    pub efi_system: Vec<u8>,
}

/// What keeps a boot loader from being made on this host, each with what mends it.
pub fn lacks() -> Vec<String> {
    let folder = |name: &str| Path::new(MODULES).join(name).is_dir();
    let mut lacks = Vec::new();
    if program().is_none() {
        lacks.push(
            "grub-mkimage is not there: install grub-common (EL8: grub2-tools-extra)".to_owned(),
        );
    }
    for (name, debian, el8) in [
        ("i386-pc", "grub-pc-bin", "grub2-pc-modules"),
        ("x86_64-efi", "grub-efi-amd64-bin", "grub2-efi-x64-modules"),
    ] {
        if !folder(name) {
            lacks.push(format!("{MODULES}/{name} is not there: install {debian} (EL8: {el8})"));
        }
    }
    lacks
}

fn program() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| tool::find(program).is_some())
}

/// Makes GRUB, in the folder `spool`, and an EFI system partition of `n_bytes` with it.
///
/// # Errors
///
/// Fails with what grub-mkimage says.
pub fn make(spool: &Path, n_bytes: usize) -> Result<Loader> {
    let core = image(spool, "i386-pc", "biosdisk")?;
    let program = image(spool, "x86_64-efi", "fat")?;
    let efi_system = fat::efi_system_partition(VOLUME, n_bytes, &program)
        .context("laying out the EFI system partition")?;
    let boot_img = Path::new(MODULES).join("i386-pc/boot.img");
    let boot_img = fs::read(&boot_img).with_context(|| named("reading", &boot_img))?;
    Ok(Loader { boot_img, core, efi_system })
}

fn image(spool: &Path, platform: &str, module: &str) -> Result<Vec<u8>> {
    let path: PathBuf = spool.join(platform);
    let mut arguments = vec!["-O".to_owned(), platform.to_owned()];
    arguments.extend(["-p".to_owned(), PREFIX.to_owned(), "-o".to_owned()]);
    arguments.push(path.display().to_string());
    arguments.extend(COMMON.into_iter().chain([module]).map(str::to_owned));
    let program = program().context("grub-mkimage is not there")?;
    tool::output_of(&tool::found(program), &arguments)
        .with_context(|| format!("making GRUB for {platform}"))?;
    let image = fs::read(&path).with_context(|| named("reading", &path))?;
    ensure!(!image.is_empty(), "{program} made an empty image");
    Ok(image)
}
