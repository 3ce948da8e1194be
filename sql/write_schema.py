"""Writes sql/schema.sql from a database that `migrate` made: `python sql/write_schema.py`.

A test compares the file with such a database, so it always shows each table, view, function and trigger once.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from pipeline_platform import schema  # noqa: E402
from pipeline_platform.local.services.postgres import binaries, start_postgres  # noqa: E402

FILE = ROOT / "sql" / "schema.sql"
_HEAD = """\
-- The whole schema of the current version. Written by sql/write_schema.py: change sql/migrations or sql/functions.
"""
# What says nothing about the schema: settings of the session, and pg_dump's own headings.
_NOISE = re.compile(r"^(SET |SELECT pg_catalog\.set_config|--|\\(un)?restrict).*\n", re.MULTILINE)


def schema_of(url: str) -> str:
    """The definitions of all objects in the database, without the records of migrations."""
    command = [
        str(binaries() / "pg_dump"),
        "--schema-only",
        "--no-owner",
        "--no-privileges",
        "--exclude-schema=public",
        url,
    ]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return _HEAD + re.sub(r"\n{2,}", "\n\n", _NOISE.sub("", dumped)).rstrip() + "\n"


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-schema-") as home,
        start_postgres(Path(home), shared_buffers="128MB", max_wal_size="1GB") as server,
    ):
        schema.migrate(server.url)
        FILE.write_text(schema_of(server.url))


if __name__ == "__main__":
    main()
