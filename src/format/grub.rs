//! GRUB on a disk: its two first pieces told where the others are, as grub-install does it.
//!
//! grub-mkimage makes the pieces. A BIOS starts the first sector of the disk, which loads the first
//! sector of the core, which loads the rest of it (GRUB 2.06, util/setup.c, grub-core/boot/i386/pc:
//! boot.S, diskboot.S).

use std::io;

use crate::format::gpt::{BOOT_CODE, SECTOR};
use crate::format::invalid_data;

/// Where in boot.img the core's sector stands, `GRUB_BOOT_MACHINE_KERNEL_SECTOR`.
const CORE_SECTOR: usize = 0x5c;
/// A jump that is left out on hard disks: some BIOSes tell a wrong drive
/// (`GRUB_BOOT_MACHINE_DRIVE_CHECK`).
const DRIVE_CHECK: usize = 0x66;
const NO_OPERATIONS: [u8; 2] = [0x90, 0x90];
/// The last entry of the core's list of blocks: sector, length in sectors, segment.
const BLOCK_LIST: usize = SECTOR as usize - 12;
/// Where the rest of the core is loaded to (`GRUB_BOOT_MACHINE_KERNEL_SEG` and a sector).
const SEGMENT: u16 = 0x820;

/// Returns the beginning of the disk's first sector, of GRUB's `boot.img`, for a core at
/// `core_sector`.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] for something that is no boot.img.
pub fn boot_code(boot_img: &[u8], core_sector: u64) -> io::Result<[u8; BOOT_CODE]> {
    let is_sector = boot_img.len() == SECTOR as usize && boot_img.ends_with(&[0x55, 0xaa]);
    if !is_sector {
        return Err(invalid_data("GRUB's boot.img is not a boot sector".to_owned()));
    }
    let mut code = *boot_img.first_chunk().expect("a sector is longer");
    code[CORE_SECTOR..][..8].copy_from_slice(&core_sector.to_le_bytes());
    code[DRIVE_CHECK..][..2].copy_from_slice(&NO_OPERATIONS);
    Ok(code)
}

/// Tells `core` that it lies in one piece at `core_sector`.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] for a core that is too long, or none.
pub fn place_core(core: &mut [u8], core_sector: u64) -> io::Result<()> {
    let n_rest = core.len().div_ceil(SECTOR as usize).saturating_sub(1);
    let n_rest = u16::try_from(n_rest).ok().filter(|n_rest| *n_rest > 0);
    let n_rest = n_rest.ok_or_else(|| {
        invalid_data(format!("GRUB's core of {} bytes is none, or too long", core.len()))
    })?;
    core[BLOCK_LIST..][..8].copy_from_slice(&(core_sector + 1).to_le_bytes());
    core[BLOCK_LIST + 8..][..2].copy_from_slice(&n_rest.to_le_bytes());
    core[BLOCK_LIST + 10..][..2].copy_from_slice(&SEGMENT.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pieces_say_where_the_next_is() {
        let mut boot_img = vec![1; 512];
        boot_img[510..].copy_from_slice(&[0x55, 0xaa]);
        let code = boot_code(&boot_img, 0x0102_0304).unwrap();
        assert_eq!(code[0x5b..0x69], [1, 4, 3, 2, 1, 0, 0, 0, 0, 1, 1, 0x90, 0x90, 1]);
        assert!(boot_code(&boot_img[..500], 0).is_err());

        let mut core = vec![9; 1200];
        place_core(&mut core, 2048).unwrap();
        assert_eq!(core[499..513], [9, 1, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x20, 8, 9]);
        for n_bytes in [0, 512, 40 << 20] {
            assert!(place_core(&mut vec![0; n_bytes], 0).is_err(), "{n_bytes} bytes");
        }
    }
}
