"""Checks webhook signatures the way a receiver written in Python does.

Reads one JSON object per line: {"body": text, "headers": {name: value}, "secret": text}. Answers each with one line:
{"seed": bool, "standard": bool}. "seed" is the hexadecimal HMAC in X-Webhook-Signature, with the secret taken exactly
as it was shown, prefix and all. "standard" is what the published Standard Webhooks library says.
"""

import hashlib
import hmac
import json
import sys

from standardwebhooks import Webhook


def header(headers, name):
    """A header's value; names are not case-sensitive."""
    for candidate, value in headers.items():
        if candidate.lower() == name.lower():
            return value
    return ""


def seed_accepts(body, signature, secret):
    """Whether the signature is the body's HMAC-SHA256 under the secret, as `sha256=` and hexadecimal digits."""
    digest = hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
    # As bytes, because a signature that is not ASCII has to be refused and not to raise an error.
    return hmac.compare_digest(f"sha256={digest}".encode(), signature.encode())


def standard_accepts(body, headers, secret):
    """Whether the published library verifies the request; it raises its own error, or a decoding one, if not."""
    try:
        Webhook(secret).verify(body, headers)
    except Exception as error:  # pylint: disable=broad-except
        print(f"standardwebhooks: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    return True


for line in sys.stdin:
    if not line.strip():
        continue
    case = json.loads(line)
    answer = {
        "seed": seed_accepts(case["body"], header(case["headers"], "X-Webhook-Signature"), case["secret"]),
        "standard": standard_accepts(case["body"], case["headers"], case["secret"]),
    }
    print(json.dumps(answer), flush=True)
