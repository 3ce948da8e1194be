"""An event pipeline that accounts for every event. This is the map: the route of one event, file by file.

1 accept, gateway/: a request becomes durable, then it is answered
    http_protocol.py    connections and what is no body, bounded; deadlines.py: one timer for all of them
    app.py              the parts of a process and its routes; background.py: its tasks, none of which may end
    browser_settings.py what SDKs in browsers ask for first
    ingest.py           the way of one request: key, body, quota, judgement, commit, answer
    bodies.py           reads and decompresses a body as a stream that stops at the cap
    protocol.py         finds the envelope and its events (pure); salvage.py does for bodies that are no valid JSON
    keys.py             whose write key it is; quota.py: which lane, or "later"; watch.py: is there room
    group_commit.py     requests that wait share the next commit; careful.py after bad data
    link.py             a connection bounded in time; exchange.py: one statement there and back
    notifier.py         wakes the workers
    answers.py          what clients are told
    traced.py           the group commit where traces are asked for

2 hold, queue/: what was accepted waits, and is kept for 72 hours
    batches.py          encode, claim, read, complete
    low_water.py        where a claim may start; claim_notes.py: what each worker holds, in case it dies of it
    keeper.py           the chores: fold the account, count roll-ups, seal, open and drop hours, rotate identity keys
    chores.py           does each chore by itself and notes when it was done
    pruning.py          rejected events and discarded dead letters that are old

3 process, worker/: claim, transform, enrich, load and complete in one transaction
    pool.py             starts worker processes, replaces those that die
    process.py          one worker: woken, first or helping, serves the lanes by their shares (lanes.py), outlives outages
    engine.py           one step: the fast way, and the careful way after bad data
    transform.py        from bytes to a row (pure); enrich.py: what the look-ups add, and
    known_traits.py     what earlier events of the same claim say of a user or group
    load.py             rows, identity keys and account in one statement
    dead_letters.py     what cannot be written; redelivery.py tries it again when it is due
    replaying.py        one chunk of a replay: diffed, committed or undone
    circuit.py          stops all workers when most events would become dead letters
    suspects.py         work whose worker died: alone, then in ever smaller parts
    drain.py            finishes one hour, for Dagster
    traced.py           the engine where traces are asked for

Beside the route, while an installation moves over from an old pipeline:

    mirror/             every accepted event goes to the old pipeline too, once, and never in the way of an answer
    reconcile/          both outputs compared by identity and content, in PostgreSQL
    cutover/            which pipeline is production: phases.py, their gates.py, turning.py, the watch.py after a turn
    recovery/           what the old pipeline dropped is moved into production
    legacy/             an old pipeline, simulated honestly; demo/ plays the whole migration with it and measures

On all of the way: event.py (the types that travel), event_reader.py and json_limits.py (what an event is),
event_ids.py (whose it is), tombstones.py (who was erased), audit_log.py (who did what), client_time.py, lookups.py
(cached reads), tenants.py and write_keys.py, ndjson.py (files of events), errors.py (named by what happens next),
settings.py, connections.py (what a session states), db.py (connections, named queries, migrations), web_guard.py
(which pages may give orders), arrays.py (PostgreSQL's binary arrays), kill_points.py (where tests may kill).

How it is watched: metrics/ (its catalogue.py names all), tracing.py, logs.py; rules and a dashboard in observability/.

Around it: account/ counts, recounts and traces, replay/ plans and steers what the workers process again, history/ brings
the past in, alerts/ tells people what they should know, analytics/ is what customers see (roll-ups, exports), reports/
writes pages, console/ is the live page, operate/ is what operators do, erasure/ removes a person, archive/ keeps hours
beyond the retention, bench/ measures, cli/ is the command line. services/ embeds PostgreSQL and Redis, supervisor/ keeps
all processes running, defs/ and definitions.py show and finish hours in Dagster. The data plane never imports Dagster
and does not need it.
The tables and the queries are in sql/: read sql/migrations first.
"""
