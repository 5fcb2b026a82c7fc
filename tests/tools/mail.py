"""Takes a mail apart the way a mail program does.

Reads one raw mail on standard input and prints it as JSON: {"headers": [[name, value]], "parts": [{"type": text,
"text": text}], "defects": [text]}. Header values and texts are decoded; a part that is no text has its size and SHA-256 in
place of it; a multipart's own entry is not among the parts.
"""

import hashlib
import json
import sys
from email import message_from_bytes, policy

mail = message_from_bytes(sys.stdin.buffer.read(), policy=policy.default)


def content(part):
    """The text of a part, or what tells its bytes from others."""
    body = part.get_content()
    if isinstance(body, bytes):
        return {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return {"text": body}


parts = [part for part in mail.walk() if not part.is_multipart()]
answer = {
    "type": mail.get_content_type(),
    "headers": [[name, str(value)] for name, value in mail.items()],
    "parts": [{"type": part.get_content_type(), **content(part)} for part in parts],
    "defects": [str(defect) for part in mail.walk() for defect in part.defects],
}
print(json.dumps(answer))
