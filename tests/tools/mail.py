"""Takes a mail apart the way a mail program does.

Reads one raw mail on standard input and prints it as JSON: {"headers": [[name, value]], "parts": [{"type": text,
"text": text}], "defects": [text]}. Header values and texts are decoded; a multipart's own entry is not among the parts.
"""

import json
import sys
from email import message_from_bytes, policy

mail = message_from_bytes(sys.stdin.buffer.read(), policy=policy.default)
parts = [part for part in mail.walk() if not part.is_multipart()]
answer = {
    "type": mail.get_content_type(),
    "headers": [[name, str(value)] for name, value in mail.items()],
    "parts": [{"type": part.get_content_type(), "text": part.get_content()} for part in parts],
    "defects": [str(defect) for part in mail.walk() for defect in part.defects],
}
print(json.dumps(answer))
