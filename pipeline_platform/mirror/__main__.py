"""Runs the mirror: `python -m pipeline_platform.mirror`."""

import logging

import uvloop

from pipeline_platform.mirror.process import Mirror
from pipeline_platform.services.endpoints import connected
from pipeline_platform.settings import Settings


async def _run() -> None:
    await Mirror(connected(Settings.read())).run()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    uvloop.run(_run())


if __name__ == "__main__":
    main()
