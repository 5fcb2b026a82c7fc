"""Takes many mails apart the way a mail program does, and looks for what does not belong there.

Reads a JSON list of {"raw": base64} on standard input and prints a list with one entry each: {"type": text,
"headers": [[name, value]], "raw_headers": [[name, text]], "parts": [{"type": text, "headers": [name], "text": text,
"filename": text, "content_id": text}], "recipients": [address], "controls": [text], "defects": [text]}. Values are
decoded; "controls" names the headers, of the mail or of a part, with a control character in the decoded value or, line
ends of folding aside, in the raw one. "recipients" are the addresses in To, Cc and Bcc.
"""

import base64
import json
import sys
import unicodedata
from email import message_from_bytes, policy
from email.header import decode_header, make_header


def has_control(text):
    """Whether a text has a character that could end a line or hide another."""
    return any(unicodedata.category(letter) == "Cc" or letter in "\u2028\u2029" for letter in text)


def controls(part):
    """Headers of a part with control characters, however they got there."""
    found = []
    for name, value in part.raw_items():
        raw = str(value).replace("\r\n ", " ").replace("\n ", " ").replace("\r\n\t", " ").replace("\n\t", " ")
        decoded = str(make_header(decode_header(raw)))
        if has_control(raw) or has_control(decoded) or has_control(name):
            found.append(name)
    for name, value in part.items():
        if has_control(str(value)):
            found.append(name)
    return found


def content(part):
    """A part's text, or nothing for a file."""
    if part.get_content_maintype() != "text":
        return ""
    return part.get_content()


def read(raw):
    """One mail."""
    mail = message_from_bytes(raw, policy=policy.default)
    parts = [part for part in mail.walk() if not part.is_multipart()]
    addresses = []
    for name in ("to", "cc", "bcc"):
        for header in mail.get_all(name, []):
            addresses.extend(address.addr_spec for address in header.addresses)
    return {
        "type": mail.get_content_type(),
        "headers": [[name, str(value)] for name, value in mail.items()],
        "raw_headers": [[name, str(value)] for name, value in mail.raw_items()],
        "parts": [
            {
                "type": part.get_content_type(),
                "headers": list(part.keys()),
                "text": content(part),
                "filename": part.get_filename() or "",
                "content_id": str(part.get("content-id", "")),
            }
            for part in parts
        ],
        "recipients": addresses,
        "controls": [name for part in mail.walk() for name in controls(part)],
        "defects": [str(defect) for part in mail.walk() for defect in part.defects],
    }


print(json.dumps([read(base64.b64decode(one["raw"])) for one in json.load(sys.stdin)]))
