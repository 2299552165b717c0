"""What a worker imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_workers_are_light(home: Path) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom nightloom.serving.app import create_app\n"
        "from nightloom.serving.settings import Settings\n"
        f"home = Path({str(home)!r})\napp = create_app(Settings(home, home / 'shop.db')).app.app\n"
        "from nightloom.serving.api.models import RecommendRequest\n"
        "async def once():\n"
        "    async with app.router.lifespan_context(app):\n"
        "        assert (await app.state.service.answer(RecommendRequest(user_id='u1')))['items']\n"
        "asyncio.run(once())\nimport nightloom.serving.run\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {"torch", "pandas", "pyarrow", "mlflow", "prefect", "great_expectations", "transformers", "duckdb"}
    assert not heavy & found
