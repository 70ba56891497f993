//! What the files say of themselves: a digest proves that a file is the mirror's, these prove
//! that the mirror's file is a kernel, an initramfs, an installer image or an ISO.

use std::io::{self, Read, Seek, SeekFrom};

/// Whether `file` is a Linux kernel that boot loaders can start: the boot sector's signature
/// and `HdrS` (kernel `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header").
pub fn is_linux_kernel(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    Ok(bytes_at(file, 0x1fe)? == Some([0x55, 0xaa]) && bytes_at(file, 0x202)? == Some(*b"HdrS"))
}

/// Whether `file` begins like an initramfs: a cpio archive or one compressed in a way that
/// the kernel knows (`lib/decompress.c`; EL8's kernel reads all of these but zstd).
pub fn is_initramfs(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    const KNOWN: [&[u8]; 8] = [
        b"\x1f\x8b",
        b"\xfd7zXZ\0",
        b"BZh",
        b"\x5d\0\0",
        b"\x89LZO",
        b"\x02\x21\x4c\x18",
        b"070701",
        b"070702",
    ];
    let start: Option<[u8; 6]> = bytes_at(file, 0)?;
    Ok(start.is_some_and(|start| KNOWN.iter().any(|magic| start.starts_with(magic))))
}

/// Whether `file` begins like a squashfs image, which anaconda's stage 2 is.
pub fn is_squashfs(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    Ok(bytes_at(file, 0)? == Some(*b"hsqs"))
}

/// Whether `file` has an ISO 9660 volume descriptor (ECMA-119 8.1, sector 16).
pub fn is_iso9660(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    Ok(bytes_at(file, 16 * 2048 + 1)? == Some(*b"CD001"))
}

/// Whether `file` begins like a tar archive with the magic of POSIX or of GNU tar.
pub fn is_tar(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    Ok(bytes_at(file, 257)? == Some(*b"ustar"))
}

/// Whether `file` begins like gzip's output (RFC 1952 §2.3.1).
pub fn is_gzip(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    Ok(bytes_at(file, 0)? == Some([0x1f, 0x8b]))
}

/// The `N` bytes at `offset`, or `None` if the file ends before them.
fn bytes_at<const N: usize>(
    file: &mut (impl Read + Seek),
    offset: u64,
) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(offset))?;
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn kernel() -> Vec<u8> {
        let mut kernel = vec![0; 0x300];
        kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel
    }

    #[test]
    fn a_kernel_has_its_header_where_boot_loaders_look() {
        let mut shifted = kernel();
        shifted.insert(0, 0);
        for (bytes, is_kernel) in [
            (kernel(), true),
            (shifted, false),
            (kernel()[..0x204].to_vec(), false),
            (b"<html>404".to_vec(), false),
        ] {
            let length = bytes.len();
            assert_eq!(
                is_linux_kernel(&mut Cursor::new(bytes)).unwrap(),
                is_kernel,
                "{length} bytes"
            );
        }
    }

    #[test]
    fn an_initramfs_is_cpio_or_compressed_as_the_kernel_reads_it() {
        for (start, is_initramfs_start) in [
            (&b"\x1f\x8b\x08\0\0\0"[..], true),
            (b"\xfd7zXZ\0\0\x04", true),
            (b"0707010000", true),
            (b"\x02\x21\x4c\x18\0\0", true),
            (b"\x28\xb5\x2f\xfd\0\0", false),
            (b"<html>", false),
            (b"", false),
        ] {
            assert_eq!(
                is_initramfs(&mut Cursor::new(start)).unwrap(),
                is_initramfs_start,
                "of {start:?}"
            );
        }
    }
}
