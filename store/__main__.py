"""``python -m store migrate``: brings the database's schema up to date."""

from __future__ import annotations

import argparse
import logging

import conf
from store.db import make_engine, migrate

log = logging.getLogger("store")


def main() -> None:
    """Reads the command line; without ``--url`` the database is the configured one."""
    parser = argparse.ArgumentParser(prog="python -m store", description="Looks after the database.")
    commands = parser.add_subparsers(dest="command", required=True)
    upgrade = commands.add_parser("migrate", help="bring the schema up to date")
    upgrade.add_argument("--url", help="of the database; by default the configured one")
    url = parser.parse_args().url or conf.load()["store"]["url"]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    engine = make_engine(url)
    migrate(engine)
    log.info("%s is up to date", engine.url.render_as_string(hide_password=True))
    engine.dispose()


if __name__ == "__main__":
    main()
