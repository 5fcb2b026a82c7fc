"""Checks Ed25519 webhook signatures the way a receiver does that has only the public key, with a library that is not ours.

Reads one JSON object per line: {"body": text, "headers": {name: value}, "secret": public key}; the key is `whpk_` and
base64, or the `x` of a JSON Web Key. Answers each with one line: whether a `v1a` signature of `webhook-signature`
(Standard Webhooks 1.0.0) is the key's.
"""

import base64
import json
import sys

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey


def key_of(text):
    """The public key, in either of its forms."""
    if text.startswith("whpk_"):
        return VerifyKey(base64.b64decode(text.removeprefix("whpk_"), validate=True))
    return VerifyKey(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def accepts(key, signed, signature):
    """Whether the signature is the key's."""
    try:
        key.verify(signed, base64.b64decode(signature, validate=True))
        return True
    except BadSignatureError:
        return False


for line in sys.stdin:
    if not line.strip():
        continue
    case = json.loads(line)
    headers = {name.lower(): value for name, value in case["headers"].items()}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{case['body']}".encode()
    schemes = [one.split(",", 1) for one in headers["webhook-signature"].split(" ")]
    key = key_of(case["secret"])
    print(json.dumps(any(scheme == "v1a" and accepts(key, signed, value) for scheme, value in schemes)), flush=True)
