"""What a shop's backend does with recsys-client (clients/python): an event in, what comes next out.

    RECSYS_KEY=… python python_client.py http://127.0.0.1:8000 visitor-1 P0001 P0042

posts a view of each product for that session and prints what comes next.
"""

from __future__ import annotations

import os
import sys

from recsys_client import Recsys, RecsysError


def main(base: str, session: str, *items: str) -> None:
    with Recsys(base, os.environ["RECSYS_KEY"]) as recsys:
        for item in items:
            recsys.track(item, session_id=session)
        recsys.flush()
        try:
            answer = recsys.recommend(session_id=session, k=5)
        except RecsysError as error:
            sys.exit(str(error))
    for found in answer["items"]:
        title = (found["item"] or {}).get("title") or found["item_id"]
        print(f"{found['rank']:>2}  {title:<40} {found['source']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
