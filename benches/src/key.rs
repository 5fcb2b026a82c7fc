//! Keys of the right form, and of no worth to anybody: the admin key that the server is given, and as many others as are needed.

/// The digits of a key's checksum.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX: &str = "benchmark00";
const SECRET: &str = "TheServerThatThisKeyOpensIsGoneInSeconds000";

/// A key: `swb_`, 11 characters, `_`, 43 characters, and the checksum over all of that.
pub fn admin_key() -> String {
    with_checksum(format!("swb_{PREFIX}_{SECRET}"))
}

/// The key with this number.
pub fn numbered(number: u64) -> String {
    with_checksum(format!("swb_{}{number:07}_{SECRET}", &PREFIX[..4]))
}

/// A key of everything before its checksum.
pub fn with_checksum(body: String) -> String {
    let checksum = base62(crc32fast::hash(body.as_bytes()));
    body + &checksum
}

/// A number as six digits, the most significant first.
fn base62(mut number: u32) -> String {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_has_the_form_that_the_server_demands() {
        let key = admin_key();
        assert_eq!(key.len(), 4 + 11 + 1 + 43 + 6);
        assert_eq!((PREFIX.len(), SECRET.len()), (11, 43));
        assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        for key in [key, numbered(0), numbered(9_999_999)] {
            assert!(switchboard::apikey::key::is_well_formed(&key), "{key}");
        }
    }

    #[test]
    fn numbers_are_padded() {
        assert_eq!(base62(0), "000000");
        assert_eq!(base62(61), "00000z");
        assert_eq!(base62(62), "000010");
        assert_eq!(base62(u32::MAX), "4gfFC3");
    }
}
