"""Verifies DKIM signatures the way a recipient's server does, with a library that is not ours.

Reads one raw mail on standard input; its first argument is the DNS as JSON: {name: TXT value}. Prints a list with an
entry per signature, in the order of the mail: {"domain": text, "selector": text, "algorithm": text, "valid": bool,
"error": text}.
"""

import json
import re
import sys

import dkim

records = json.loads(sys.argv[1])
message = sys.stdin.buffer.read()


def dnsfunc(name, timeout=5):
    """The DNS, as the library asks it."""
    value = records.get(name.decode().rstrip("."))
    return None if value is None else value.encode()


def tag(header, name):
    """The value of a signature's tag, without blanks."""
    found = re.search(rf"(?:^|;)\s*{name}\s*=([^;]*)", header)
    return "".join(found.group(1).split()) if found else ""


verifier = dkim.DKIM(message)
signatures = [value.decode() for name, value in verifier.headers if name.lower() == b"dkim-signature"]
answer = []
for index, signature in enumerate(signatures):
    valid, error = False, ""
    try:
        valid = dkim.DKIM(message).verify(idx=index, dnsfunc=dnsfunc)
    except dkim.DKIMException as problem:
        error = str(problem)
    names = {"domain": "d", "selector": "s", "algorithm": "a"}
    entry = {key: tag(signature, name) for key, name in names.items()}
    answer.append({**entry, "valid": bool(valid), "error": error})
print(json.dumps(answer))
