"""The watch over nights: the page, an artifact, and an event of Prefect for each alarm, on which automations can act."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from nightloom.config import RunConfig
from nightloom.core.errors import InputError, NightloomError
from nightloom.core.files import write_text
from nightloom.core.markup import code_markdown, plain_markdown
from nightloom.core.secrets import hidden
from nightloom.monitoring.page import render
from nightloom.monitoring.watch import Found, watch
from tasks.progress import artifact_key

WEBHOOK = "NIGHTLOOM_WEBHOOK"
"""Address that is told of alarms by a POST of JSON."""
SECONDS = 10.0


@task(name="monitor", cache_policy=NO_CACHE)
def monitor(config: RunConfig, root: Path) -> tuple[Found, Path]:
    """Watch the nights of a recommender; what was found, and its page."""
    found = watch(config, root)
    page = root / "monitor" / config.name / "monitor.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, render(found))
    lines = [f"- {plain_markdown(one)}" for one in found.alarms] or ["Nothing unusual."]
    create_markdown_artifact(
        "\n".join([f"# {plain_markdown(config.name)}", *lines, "", code_markdown(str(page))]), key=artifact_key(config.name, "monitor")
    )
    for one in found.alarms:
        get_run_logger().warning(one)
    if found.alarms:
        emit_event("nightloom.alarm", resource={"prefect.resource.id": f"nightloom.{config.name}"}, payload={"alarms": list(found.alarms)})
        tell(config.name, found.alarms)
    return found, page


def tell(name: str, alarms: object) -> None:
    """Send alarms to the webhook where one is set.

    Raises:
        InputError: it is no HTTP address.
        NightloomError: it does not take them.
    """
    address = os.environ.get(WEBHOOK)
    if not address:
        return
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{WEBHOOK}: it is no HTTP address. Write it as https://host/path.")
    body = json.dumps({"name": name, "alarms": alarms}).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=SECONDS).close()
    except (urllib.error.URLError, OSError) as error:
        raise NightloomError(hidden(f"{WEBHOOK}: the alarms could not be sent ({error}). The page has them.")) from error
