"""An event pipeline that accounts for every event. This docstring is the map of the package.

The route of one event:

gateway/        1 accept: a request becomes durable, then it is answered
    http_protocol.py    HTTP/1.1 with bounded heads and bodies; deadlines.py closes slow connections
    app.py              the routes of the process; background.py supervises its tasks
    browser_settings.py the settings documents that SDKs in browsers fetch
    ingest.py           one request: write key, body, quota, validation, commit, response
    bodies.py           reads and decompresses a body as a stream that stops at the size limit
    protocol.py         splits a request into events (pure); invalid_json.py does the same for broken JSON
    write_keys.py       the tenant of a write key; quota.py: the lane, or 429; readiness.py: whether events can be stored
    group_commit.py     one transaction for all requests that wait (pending.py); isolation.py finds the bad events of a
                        failed commit; commit_health.py: whether commits succeed
    db_connection.py    a database connection with time limits; db_statement.py: one statement on it
    notifier.py         wakes the workers
    responses.py        what clients are answered
    traced.py           the group commit with traces

queue/          2 hold: accepted events wait, and are kept for 72 hours
    batches.py          encode, accept, claim, read and complete batches
    low_water.py        where a claim starts; claim_notes.py: what each worker holds, in case it dies
    keeper.py           the list of chores; chores.py runs each of them and notes when it was done
    pruning.py          deletes old rejected events and discarded dead letters

worker/         3 process: claim, transform, enrich, load and complete in one transaction
    pool.py             starts worker processes and replaces those that die
    process.py          one worker: waits for work and does chores
    serving.py          one turn of a worker: the lane that is served; lanes.py: their shares; pacing.py: how much, when
    engine.py           one transaction of work, and the isolation of bad events
    transform.py        from bytes to a row (pure)
    enrich.py           adds what the look-ups know; known_traits.py: traits of earlier events of the same claim
    load.py             rows, identity keys and account in one statement
    retry_lane.py       dead letters that are due; replay_lane.py: one chunk of a replay
    suspects.py         work whose worker died, in ever smaller parts
    drain.py            finishes one hour, for Dagster
    traced.py           the engine with traces

dead_letters/   events that could not be processed or accepted
    store.py            writes dead letters and their attempts
    operations.py       list, show, redrive, discard; masking.py: hides personal values in what is shown
    readmit.py          accepts corrected events of the quarantine
    circuit.py          stops all workers when most events would become dead letters; circuit_switch.py closes it

Around the route:

account/        counts events, recounts the rows (audit) and traces single events
replay/         plan, diff, commit and undo; the workers do the work
analytics/      what customers read: roll-ups and exports
erasure/        removes a person
archive/        keeps hours beyond the retention as Parquet files
warehouse/      exports delivered hours as Parquet files and manifests
imports/        brings files of events in: importer.py into hours of the past, sender.py through the gateway
migration/      moves from a legacy pipeline: mirror/ reconcile/ cutover/ recovery/, and simulation/ to try it with
watch/          what people look at and are told: alerts/ console/ reports/, health.py and doctor.py
defs/           Dagster's assets, jobs, schedules, sensors and checks; definitions.py merges them; private_dagster.py: what
                is used of Dagster and is private
celery_runs/    runs of Dagster on several machines, by Celery
cli/            the command line
local/          everything on one machine: services/ (embedded PostgreSQL and Redis), supervisor/ (`up`), web_guard.py,
                instance/ (Dagster's instance: dagster.yaml, storage, run launcher)
lab/            demo/ plays a migration and measures it; bench/ are the benchmarks

What all rooms use:

event/          what an event is: types, reader (validation), json_limits, person_ids, client_time, ndjson
tenants/        who may send: tenants, write_keys, and tombstones of erased people
telemetry/      logs, tracing, metrics/ (catalogue.py names every metric), redaction (what is secret), and text made safe for terminals
settings.py     every setting; errors.py: errors, named by what happens next
disk.py         the room on the disk; stores.py: files at any address (a path, s3://…)
db.py           connections and named queries; connections.py: what a session states; schema.py: migrations
arrays.py       PostgreSQL's binary arrays; halving.py finds the bad items of what is written as a whole
backoff.py      how long to wait before the next try
lookups.py      cached reads; audit_log.py: who did what; kill_points.py: where tests may kill a process

The data plane (gateway, queue, worker, dead_letters, account) never imports Dagster and does not need it. Tables,
functions and queries are in sql/; rules and a dashboard for Prometheus are in observability/.
"""
