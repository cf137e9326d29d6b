"""What every command shares: its options, the client it speaks through, how it prints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic_core import to_json
from rich.console import Console, RenderableType

import conf
from api.client import Client, connect

PLAIN_WIDTH = 160  # of output that goes to a file

Sweep = Annotated[int, typer.Argument(help="Number of the sweep.", min=1)]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


@dataclass(frozen=True)
class Options:
    """What holds for every command."""

    url: str | None
    token: str | None


def client(context: typer.Context) -> Client:
    """A client of the service that the options name; it is closed with the command."""
    given: Options = context.obj
    settings = conf.load()["api"]
    made = connect(given.url or settings["url"], given.token or settings["token"])
    context.call_on_close(made.http.close)
    return made


def console() -> Console:
    """Where a command prints."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def show_found(found: Any, json: bool, rendered: Callable[[], RenderableType]) -> None:
    """Prints an answer as JSON or as a table."""
    if json:
        print_json(found)
    else:
        console().print(rendered())


def print_json(found: Any) -> None:
    """Prints an answer as JSON; what is not finite is null."""
    typer.echo(to_json(found, indent=2, inf_nan_mode="null"))
