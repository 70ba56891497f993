//! Randomness of the operating system.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use super::SecretText;

/// Fills `bytes` from getrandom(2), which waits until the kernel's pool is ready.
pub(super) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Characters that read the same in every font and sit on the same keys of most layouts'
/// consoles: no `0o1il`, no `yz`, and 32 of them, so that 5 bits choose one evenly.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwx23456789ACE";

/// A password of 25 random characters in groups of five: 125 bits, typable at a console.
///
/// # Errors
///
/// Fails only if the kernel gives no randomness.
pub fn random_password() -> io::Result<SecretText> {
    let mut bytes = Zeroizing::new([0; 25]);
    fill(&mut *bytes)?;
    let mut password = String::with_capacity(29);
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 && at % 5 == 0 {
            password.push('-');
        }
        password.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    Ok(SecretText::new(password))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_alphabet_has_no_character_twice() {
        assert_eq!(ALPHABET.iter().collect::<BTreeSet<_>>().len(), 32);
    }

    #[test]
    fn random_passwords_have_five_groups_and_never_repeat() {
        let passwords: BTreeSet<String> =
            (0..100).map(|_| random_password().unwrap().expose().to_owned()).collect();
        assert_eq!(passwords.len(), 100);
        for password in &passwords {
            let groups: Vec<usize> = password.split('-').map(str::len).collect();
            assert_eq!(groups, [5; 5], "{password}");
            assert!(password.bytes().all(|b| b == b'-' || ALPHABET.contains(&b)), "{password}");
        }
    }
}
