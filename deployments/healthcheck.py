#!/usr/bin/env python3
"""Exit code 0 when the address answers: REFLEXION_HEALTH_URL, else the Prefect server's own health."""

import os
import sys
import urllib.request


def main() -> int:
    """Ask once; the caller repeats."""
    url = os.environ.get("REFLEXION_HEALTH_URL") or f"{os.environ.get('PREFECT_API_URL', '').rstrip('/')}/health"
    try:
        with urllib.request.urlopen(url, timeout=4) as answer:  # noqa: S310 - the address is our own setting
            return 0 if answer.status == 200 else 1
    except (OSError, ValueError) as exc:
        print(f"{url}: {exc}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
