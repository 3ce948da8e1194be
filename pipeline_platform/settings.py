"""Every setting, read once from the environment (prefix ``PIPELINE_``).

A value that cannot be used is a `ConfigError` that names all such values at once. `docs/reference/settings.md`
lists them; a test holds the two together.
"""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from pipeline_platform.errors import ConfigError

_ESCAPED = "in a password @ / : ? # and % are written as %40 %2F %3A %3F %23 and %25"
_NO_POSTGRESQL = f"not an address of PostgreSQL, like postgresql://USER:PASSWORD@HOST:5432/DATABASE; {_ESCAPED}"
_NO_REDIS = f"not an address of Redis, like redis://:PASSWORD@HOST:6379/0; {_ESCAPED}"


class Settings(BaseSettings):
    """All settings. Counts are integers, durations end in their unit, sizes are bytes."""

    # A value may be a secret, so no error shows one.
    model_config = SettingsConfigDict(
        env_prefix="PIPELINE_", frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    home: Path = Field(
        default=Path(".pipeline"), description="Where state lives: embedded servers, logs, endpoints.json."
    )
    database_url: str = Field(default="", description="PostgreSQL of your own; empty: an embedded one under home.")
    redis_url: str = Field(default="", description="Redis of your own; empty: an embedded one under home.")

    log_format: Literal["text", "json"] = Field(
        default="text", description="How processes log: text for people, json: an object a line."
    )

    gateway_host: str = Field(default="127.0.0.1", description="Address the gateway listens on.")
    gateway_port: int = Field(default=8080, ge=0, le=65535, description="Port of the gateway; 0: any free one.")
    dagster_port: int = Field(default=3000, ge=0, le=65535, description="Port of the Dagster UI; 0: any free one.")
    console_host: str = Field(default="127.0.0.1", description="Address the console listens on.")
    console_port: int = Field(default=8081, ge=0, le=65535, description="Port of the console; 0: any free one.")
    console_token: str = Field(
        default="", description="Token that the console asks for; empty: allowed only on an address of this machine."
    )
    workers: int = Field(default=2, ge=1, le=256, description="Worker processes of the pool.")

    body_bytes_max: int = Field(
        default=5 << 20, ge=1024, description="Largest request body, decompressed (413 beyond)."
    )
    bodies_bytes_max: int = Field(
        default=256 << 20, ge=1024, description="All request bodies held at once; 429 beyond."
    )
    connections_max: int = Field(default=4_096, ge=1, description="Connections open at once in a gateway; 429 beyond.")
    event_bytes_max: int = Field(default=256 << 10, ge=256, description="Largest event (quarantined beyond).")
    request_events_max: int = Field(default=2_500, ge=1, description="Most events a request (413 beyond).")
    nesting_max: int = Field(default=64, ge=4, description="Deepest nesting of an event (quarantined beyond).")
    id_bytes_max: int = Field(
        default=1_024, ge=64, le=2_000, description="Longest id or name in UTF-8 (quarantined beyond)."
    )
    body_timeout_s: float = Field(default=5.0, gt=0, description="Longest wait for the next piece of a request body.")
    answer_timeout_s: float = Field(
        default=4.5, gt=0, description="Longest wait for a commit before the answer is 429."
    )
    commit_events_max: int = Field(default=5_000, ge=1, description="Most events one group commit takes.")
    committers: int = Field(default=2, ge=1, le=64, description="Commits under way at once, in each gateway process.")
    pending_events_max: int = Field(
        default=50_000, ge=1, description="Events waiting for a commit in a gateway; 429 beyond."
    )
    queue_events_max: int = Field(default=20_000_000, ge=1, description="Events waiting in the queue; 429 beyond.")
    disk_free_bytes_min: int = Field(
        default=1 << 30, ge=0, description="Free space under home below which the answer is 429."
    )
    tenant_events_per_s: int = Field(
        default=20_000, ge=1, description="A tenant's rate beyond which its events overflow."
    )
    tenant_events_per_s_max: int = Field(
        default=100_000, ge=1, description="A tenant's rate beyond which the answer is 429."
    )
    tenant_bytes_per_s_max: int = Field(
        default=64 << 20,
        ge=1024,
        description="A tenant's bytes a second, decompressed, beyond which the answer is 429.",
    )
    key_refresh_s: float = Field(default=5.0, gt=0, description="Longest time a revoked write key still works.")

    circuit_ratio: float = Field(
        default=0.5, gt=0, le=1, description="Part of the events that become dead letters at which all workers stop."
    )
    circuit_events: int = Field(
        default=200,
        ge=1,
        description="Events that all workers together process in half a minute before that is judged.",
    )
    claim_events_max: int = Field(
        default=4_000, ge=1, description="Events after which a worker takes no further batch in a transaction."
    )
    lookup_ttl_s: float = Field(default=30.0, gt=0, description="How long a cached look-up is served.")
    redis_timeout_ms: int = Field(default=20, ge=1, description="Longest wait for one Redis command.")
    attempts_max: int = Field(default=5, ge=1, le=100, description="Attempts before a dead letter is exhausted.")
    retry_base_s: float = Field(default=2.0, gt=0, description="Wait before the second attempt; doubles with each.")
    retry_max_s: float = Field(default=900.0, gt=0, description="Longest wait between two attempts.")
    retention_h: int = Field(default=72, ge=1, description="Hours a sealed hour's batches are kept for replay.")
    quarantine_d: int = Field(
        default=30, ge=1, description="Days that rejected events and discarded dead letters are kept."
    )
    dagster_runs_d: int = Field(
        default=30, ge=1, description="Days that Dagster's finished runs and their event logs are kept."
    )
    dagster_hours_a_run: int = Field(
        default=0, ge=0, description="Hours of a backfill that one run takes, to spread it over machines; 0: all."
    )
    files_url: str = Field(
        default="",
        description="Where pages and files that people read are written: reports, reconciliation (a path, s3://…); "
        "empty: the home.",
    )
    archive_url: str = Field(
        default="", description="Where hours are archived before they are dropped (a path, s3://…); empty: nowhere."
    )
    warehouse_url: str = Field(
        default="", description="Where delivered hours are exported for a warehouse (a path, s3://…); empty: nowhere."
    )
    warehouse_days: int = Field(default=0, ge=0, description="Days that exported hours are kept; 0: for ever.")
    key_generation_h: int = Field(default=24, ge=1, description="Hours a generation of identity keys stays open.")
    hour_wait_s: float = Field(
        default=60.0, gt=0, description="Longest wait of a Dagster run for an import or a worker that holds its hour."
    )
    legacy_port: int = Field(
        default=8090, ge=0, le=65535, description="Port of the simulated old pipeline; 0: any free one."
    )
    legacy_capacity_per_s: float = Field(
        default=400.0, ge=10, description="Events a second that the simulated old pipeline can look up."
    )
    parity_h: float = Field(
        default=24.0, ge=0, description="Hours without a difference that the cutover to the platform asks for."
    )
    parity_events_min: int = Field(
        default=100, ge=1, description="Matched events that the cutover to the platform asks for."
    )
    parity_tenants_min: int = Field(
        default=1, ge=1, description="Tenants with matched events that the cutover to the platform asks for."
    )
    cutover_watch_h: float = Field(default=48.0, ge=0, description="Hours that a cutover is watched for anomalies.")
    latency_p95_ms_max: float = Field(
        default=250.0,
        gt=0,
        description="Latency (p95) from acceptance to delivery over which a cutover's gate stays shut and its watch "
        "sees an anomaly. What is promised is PIPELINE_OBJECTIVE_LATENCY_P95_MS.",
    )
    alert_urls: str = Field(
        default="",
        description="Channels that alerts go to, parted by spaces, as apprise writes them (slack://…, pagerduty://…, "
        "mailto://…, jsons://…); empty: they are only shown.",
    )
    alert_runbooks_url: str = Field(
        default="docs/runbooks", description="Where the runbooks are; an alert names its page there."
    )
    alert_heartbeat_url: str = Field(
        default="",
        description="Fetched while alerts are looked for and can be told, for a dead-man switch; empty: none.",
    )
    alert_heartbeat_s: float = Field(default=60.0, gt=0, description="Time between two heartbeats.")
    alert_every_s: float = Field(default=5.0, gt=0, description="Time between two looks for alerts.")
    alert_quiet_s: float = Field(
        default=60.0, ge=0, description="How long a cause must be gone before its alert is resolved."
    )
    alert_queue_stopped_s: float = Field(
        default=60.0, gt=0, description="Time in which work waits and none is done: the queue has stopped."
    )
    alert_transaction_age_s: float = Field(default=600.0, gt=0, description="Age at which a transaction is an alert.")
    alert_disk_free_bytes_min: int = Field(
        default=5 << 30, ge=0, description="Free space under home below which there is an alert."
    )
    alert_hours_ahead_min: int = Field(
        default=2, ge=0, le=3, description="Partitions ahead below which there is an alert; the keeper makes 3."
    )
    alert_sensor_silent_s: float = Field(
        default=300.0, gt=0, description="Time without a tick (or three of its intervals) at which a sensor is silent."
    )
    alert_run_silent_s: float = Field(
        default=3_600.0, gt=0, description="Time without an event of a Dagster run under way at which it is an alert."
    )
    alert_run_waits_s: float = Field(
        default=1_800.0, gt=0, description="Time that a Dagster run waits in its queue at which there is an alert."
    )
    alert_rejected_ratio: float = Field(
        default=0.1, gt=0, le=1, description="Part of a tenant's events that are rejected at which there is an alert."
    )
    alert_mirror_lag_s: float = Field(
        default=300.0, gt=0, description="Time that an event waits for the old pipeline at which there is an alert."
    )
    alert_channel_down_s: float = Field(
        default=300.0, gt=0, description="Time after which a channel that fails is an alert in the others."
    )
    alert_database_away_s: float = Field(
        default=30.0, gt=0, description="Time after which a PostgreSQL that does not answer is an alert."
    )
    objective_delivered_ratio: float = Field(
        default=0.9999, gt=0, lt=1, description="Part of a tenant's events that is to be delivered."
    )
    objective_window_h: int = Field(
        default=1, ge=1, description="Hours before this one over which that part is judged for an alert."
    )
    objective_events_min: int = Field(
        default=1_000, ge=1, description="Events of a tenant in that time below which it is not judged."
    )
    objective_latency_p95_ms: float = Field(
        default=12.0, gt=0, description="Latency from acceptance to delivery that 95% of the events are to keep."
    )
    objective_latency_window_s: float = Field(
        default=60.0, gt=0, description="Length of a window over which the latency is judged."
    )
    objective_latency_windows: int = Field(
        default=5, ge=1, description="Windows with events, one after the other, that miss it before there is an alert."
    )
    objective_lag_s: float = Field(default=60.0, gt=0, description="Longest time that an event is to wait.")
    lane_shares: dict[str, float] = Field(
        default={"live": 0.7, "overflow": 0.1, "retry": 0.1, "replay": 0.1},
        description="Minimum share of a busy worker's time, by lane (JSON).",
    )
    lane_caps: dict[str, float] = Field(
        default={"live": 1.0, "overflow": 1.0, "retry": 0.3, "replay": 0.1},
        description="Largest share of a worker's time, by lane (JSON).",
    )

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: str) -> str:
        try:
            host = str(conninfo_to_dict(url).get("host", ""))
        except psycopg.Error:
            raise ValueError(_NO_POSTGRESQL) from None
        if "@" in host:
            raise ValueError(_NO_POSTGRESQL)
        return url

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        if not url:
            return url
        try:
            parts = urlsplit(url)
            # Reading the port raises the error for a wrong one.
            quoted = parts.netloc.count("@") < 2 and "@" not in parts.path and parts.port != 0
        except ValueError:
            raise ValueError(_NO_REDIS) from None
        if parts.scheme not in ("redis", "rediss", "unix") or not quoted:
            raise ValueError(_NO_REDIS)
        return url

    @property
    def retention(self) -> timedelta:
        return timedelta(hours=self.retention_h)

    @classmethod
    def read(cls) -> Self:
        """Read the environment. Raises ConfigError naming every setting that is wrong."""
        try:
            return cls()
        except ValidationError as error:
            wrong = "; ".join(
                f"PIPELINE_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
                for item in error.errors()
            )
            raise ConfigError(f"wrong settings: {wrong}. See docs/reference/settings.md") from None
        except SettingsError as error:
            raise ConfigError(f"wrong settings: {error}. See docs/reference/settings.md") from None
