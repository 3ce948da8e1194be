"""What somebody sees in Dagster who has read nothing: walked over, so that no definition is added without it."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml

import pipeline_platform.defs
from pipeline_platform.definitions import build_defs
from pipeline_platform.defs import columns
from pipeline_platform.defs.launchpad import prefilled
from pipeline_platform.defs.operations.pruning import PruneConfig
from pipeline_platform.defs.summaries import markdown_table
from pipeline_platform.warehouse.files import SCHEMA

_ROOT = Path(__file__).parents[2]
_KEBAB = re.compile(r"""["']([a-z]+(?:-[a-z]+)+)["']""")
_PAGE = re.compile(r"docs/[\w/-]+\.md")


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return build_defs().get_repository_def()


def _jobs(repository: dg.RepositoryDefinition) -> list[dg.JobDefinition]:
    return [job for job in repository.get_all_jobs() if not job.name.startswith("__")]


def test_every_asset_says_what_it_is_who_answers_for_it_and_of_which_code(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        said = {
            "description": node.description,
            "owners": node.owners,
            "kinds": node.kinds,
            "group": node.group_name != "default",
            "code_version": node.code_version or node.group_name == "outside",
        }
        assert all(said.values()), f"{key.to_user_string()} lacks {[name for name, value in said.items() if not value]}"
        assert 40 <= len(node.description or "") <= 600, key


def test_the_columns_of_an_asset_are_those_of_its_table(conn: psycopg.Connection[Any]) -> None:
    named = "SELECT attname, atttypid::regtype::text FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0"
    names = {"timestamp with time zone": "timestamptz"}
    for asset in (columns.EVENTS, columns.ROLLUPS):
        found = conn.execute(named, (asset["dagster/table_name"],)).fetchall()
        described = {column.name: column.type for column in asset["dagster/column_schema"].columns}
        assert described == {name: names.get(kind, kind) for name, kind in found}
    exported = [column.name for column in columns.EXPORTED_FILE["dagster/column_schema"].columns]
    assert exported == list(SCHEMA.names)


def test_assets_show_where_their_code_is_and_whether_they_name_people(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    executable = [graph.get(key) for key in graph.get_all_asset_keys() if graph.get(key).is_executable]
    assert [node.key for node in executable if "dagster/code_references" not in node.metadata] == []
    named = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).tags.get("personal_data")}
    assert named == {
        "accepted_events", "archived_hours", "clients", "dead_letters", "delivered_events", "enriched_events",
        "exported_hours", "legacy_output", "recovered_events", "replay_diffs", "replayed_hours", "warehouse_tables",
    }  # fmt: skip


def test_every_check_job_sensor_and_schedule_is_described_and_owned(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    checks = [(key.name, graph.get_check_spec(key).description) for key in graph.asset_check_keys]
    owned = [*_jobs(repository), *repository.sensor_defs, *repository.schedule_defs]
    described = [*checks, *((each.name, each.description) for each in owned)]
    assert [name for name, description in described if not description or len(description) < 20] == []
    assert [each.name for each in owned if "owner" not in each.metadata] == []


def test_every_op_and_asset_function_says_what_it_does(repository: dg.RepositoryDefinition) -> None:
    ops = {node.definition.name: node.definition for job in _jobs(repository) for node in job.graph.nodes}
    assert [name for name, op in ops.items() if not op.description] == []


def test_pages_that_are_named_are_there() -> None:
    for module in _ROOT.glob("pipeline_platform/defs/**/*.py"):
        lines = module.read_text().splitlines()
        summarized = [line for line in lines if "look_further(" in line or "_words(" in line]
        pages = [f"docs/how-to/{name}.md" for line in summarized for name in _KEBAB.findall(line)]
        for page in [*_PAGE.findall(module.read_text()), *pages]:
            assert (_ROOT / page).exists(), f"{module.name} names {page}"


def _configs() -> Iterator[type[dg.Config]]:
    for found in pkgutil.walk_packages(pipeline_platform.defs.__path__, "pipeline_platform.defs."):
        module = importlib.import_module(found.name)
        for _, value in inspect.getmembers(module, inspect.isclass):
            is_here = issubclass(value, dg.Config) and value.__module__ == module.__name__
            if is_here and not issubclass(value, dg.ConfigurableResource):
                yield value


@pytest.mark.parametrize("config", list(_configs()), ids=lambda config: config.__name__)
def test_every_config_can_be_filled_in_without_reading_code(config: type[dg.Config]) -> None:
    fields = config.model_fields
    for name, field in fields.items():
        assert field.description, f"{config.__name__}.{name} does not say what it is"
    if "dry_run" in fields:
        assert fields["dry_run"].default is True
        # Dagster's own records are not production.
        if config is not PruneConfig:
            assert fields["reason"].is_required(), "who changes production says why"
    if "tenant" in fields or "tenant_id" in fields:
        pytest.fail("tenants are named, and several may be: tenants: list[str]")
    assert list(prefilled("op", config)["ops"]["op"]["config"]) == list(fields)


def test_jobs_of_ops_fill_their_launchpad_with_every_field(repository: dg.RepositoryDefinition) -> None:
    launched = [job for job in _jobs(repository) if not job.asset_layer.executable_asset_keys]
    assert {"commit_replay_job", "undo_replay_job", "redrive_job"} <= {job.name for job in launched}
    for job in launched:
        (node,) = job.graph.nodes
        shown = (job.run_config or {})["ops"][node.name]["config"]
        schema = node.definition.config_schema.config_type
        assert shown.keys() == schema.fields.keys(), job.name  # pyright: ignore


@pytest.mark.parametrize("name", ["replay_job"])
def test_the_config_in_the_description_of_a_job_over_partitions_is_accepted(
    repository: dg.RepositoryDefinition, name: str
) -> None:
    job = repository.get_job(name)
    (shown,) = re.findall(r"```yaml\n(.*?)```", job.description or "", re.DOTALL)
    config: dict[str, Any] = yaml.safe_load(shown)
    assert dg.validate_run_config(job, config)


def test_replays_do_not_take_the_slots_of_the_hourly_runs(repository: dg.RepositoryDefinition) -> None:
    pools = {node.definition.name: node.definition.pools for job in _jobs(repository) for node in job.graph.nodes}
    assert pools["process_hours"] == {"hours"}
    assert pools["replay_hours"] == pools["commit_replay"] == pools["undo_replay"] == {"replays"}


def test_a_cell_cannot_end_a_table() -> None:
    table = markdown_table(["what", "events"], [("a|b\nc", 1_000), (None, 2)])
    assert table == "| what | events |\n| --- | --: |\n| a\\|b c | 1,000 |\n|  | 2 |"
