"""``python -m api [overrides]``: serves HTTP."""

from __future__ import annotations

import logging
import sys

import uvicorn

import conf
from api.app import create_app

GRACE_SECONDS = 5


def main() -> None:
    """Reads the settings and serves until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        settings = conf.load(*sys.argv[1:])
        app = create_app(settings)
    except ValueError as error:
        logging.error("%s", error)
        sys.exit(2)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings["api"]["host"],
            port=settings["api"]["port"],
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    app.state.stopping = lambda: server.should_exit  # open event streams end with the service
    server.run()


if __name__ == "__main__":
    main()
