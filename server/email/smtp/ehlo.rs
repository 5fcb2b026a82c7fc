//! What a server says that it can do (RFC 5321, section 4.1.1.1).

/// The extensions that are used here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// PIPELINING (RFC 2920): commands may be sent before the answers to those before them.
    pub pipelining: bool,
    /// SIZE (RFC 1870).
    pub size: bool,
    /// The greatest content that it takes, in bytes; 0 when it does not say.
    pub size_limit: u64,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub utf8: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced: bool,
    /// How one can log in (RFC 4954).
    pub auth: Mechanisms,
}

/// Ways to log in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mechanisms {
    /// PLAIN.
    pub plain: bool,
    /// LOGIN.
    pub login: bool,
    /// XOAUTH2.
    pub xoauth2: bool,
}

impl Mechanisms {
    /// Whether there is any that is known here.
    pub fn any(self) -> bool {
        self.plain || self.login || self.xoauth2
    }
}

impl Extensions {
    /// Reads the bytes of a whole reply to EHLO.  What is not known is skipped.
    pub fn read(reply: &[u8]) -> Self {
        let mut own = Self::default();
        // The first line is the server's name.
        for line in reply.split(|byte| *byte == b'\n').skip(1).filter(|line| line.len() > 4) {
            let line = String::from_utf8_lossy(&line[4..]).trim().to_ascii_uppercase();
            // `AUTH=` is how servers said it before there was a standard.
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            match words.next().unwrap_or_default() {
                "PIPELINING" => own.pipelining = true,
                "STARTTLS" => own.starttls = true,
                "8BITMIME" => own.eight_bit = true,
                "SMTPUTF8" => own.utf8 = true,
                "ENHANCEDSTATUSCODES" => own.enhanced = true,
                "SIZE" => {
                    own.size = true;
                    own.size_limit = words.next().and_then(|limit| limit.parse().ok()).unwrap_or(0);
                }
                "AUTH" => {
                    for mechanism in words {
                        match mechanism {
                            "PLAIN" => own.auth.plain = true,
                            "LOGIN" => own.auth.login = true,
                            "XOAUTH2" => own.auth.xoauth2 = true,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_read_in_any_case_and_order() {
        let read = Extensions::read(
            b"250-PIPELINING.example.com\r\n250-size 1000\r\n250-StartTLS\r\n250-8BITMIME\r\n250-XFOO bar\r\n\
              250-AUTH=LOGIN\r\n250-AUTH PLAIN XOAUTH2 CRAM-MD5\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n",
        );
        let auth = Mechanisms { plain: true, login: true, xoauth2: true };
        let expected = Extensions {
            pipelining: false,
            size: true,
            size_limit: 1000,
            starttls: true,
            eight_bit: true,
            utf8: true,
            enhanced: true,
            auth,
        };
        assert_eq!(read, expected);
        let read = Extensions::read(b"250-x\r\n250-PIPELINING\r\n250 SIZE\r\n");
        assert_eq!(read, Extensions { pipelining: true, size: true, ..Default::default() });
        assert_eq!(Extensions::read(b"250 x\r\n"), Extensions::default());
    }
}
