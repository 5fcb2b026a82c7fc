//! What mail servers answer.

use super::ehlo::Extensions;
use super::reply::{LINE_COUNT, LINE_LIMIT, Malformed, Reply, find};

/// Any bytes from a server: a reply is found wherever it is cut, is bounded, and says the same when it is written again.
pub fn smtp_reply(data: &[u8]) {
    let found = find(data);
    // What comes in pieces is what came at once.
    for cut in [data.len() / 2, data.len().saturating_sub(1)] {
        match (find(&data[..cut]), found) {
            (Ok(None), _) => {}
            (partial, whole) => assert_eq!(partial, whole, "cut at {cut}"),
        }
    }
    let Ok(Some(found)) = found else {
        assert!(found.is_err() || data.len() <= LINE_COUNT * LINE_LIMIT, "it waits for ever");
        return;
    };
    assert!((200..600).contains(&found.code));
    let bytes = &data[..found.length];
    assert!(found.length <= LINE_COUNT * LINE_LIMIT && bytes.ends_with(b"\n"));
    let reply = Reply::read(found.code, bytes);
    assert!(reply.text.len() <= 2_048 && !reply.text.chars().any(char::is_control), "{reply:?}");
    assert!(reply.enhanced.is_none_or(|enhanced| u16::from(enhanced.class) == found.code / 100));
    assert_eq!(reply.is_positive(), (200..300).contains(&found.code));
    let written = format!("{reply}\r\n");
    if written.len() < LINE_LIMIT {
        let again = find(written.as_bytes()).expect("it is one").expect("it is whole");
        assert_eq!((again.code, again.length), (found.code, written.len()));
        assert_eq!(Reply::read(again.code, written.as_bytes()).text, reply.text, "{written:?}");
    }
    let extensions = Extensions::read(bytes);
    assert!(extensions.size || extensions.size_limit == 0);
    let mixed: Vec<u8> = bytes.iter().map(u8::to_ascii_lowercase).collect();
    assert_eq!(Extensions::read(&mixed), extensions, "upper and lower case are the same");
    // Behind a whole reply stands the next one, whatever it is.
    let next = [bytes, b"999 nonsense\r\n"].concat();
    assert_eq!(find(&next), Ok(Some(found)));
    assert_eq!(find(&next[found.length..]), Err(Malformed::Code));
}
