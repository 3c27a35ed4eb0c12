"""The health check of an image: exits 0 when the service's /readyz says it is ready, and prints what it waits for.

Standard library only, so that a probe costs no more than the interpreter's start.
"""

from __future__ import annotations

import http.client
import os
import sys

_TIMEOUT_S = 2


def main() -> int:
    """Return the exit status."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["PENSTOCK_METRICS_PORT"]), timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read().decode().strip())
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}")
        return 1
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
