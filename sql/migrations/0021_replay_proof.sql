-- A replay proves that it read what it judges, and holds the hours that it reads for as long as it reads them.
ALTER TABLE replay.replays ADD COLUMN paused_because text;
ALTER TABLE replay.chunks
    -- Events that the diff found in the chunk's batches, whether the replay wants them or not; NULL before it has.
    ADD COLUMN read_events bigint,
    -- At the commit of added rows: no batch with a lower id was processed later. NULL: unknown.
    ADD COLUMN seen_batches bigint;
-- Not taken back: since the commit the event was delivered or sent again, or its person was erased.
ALTER TABLE replay.before_images ADD COLUMN kept_newer boolean NOT NULL DEFAULT false;
CREATE INDEX dead_letters_of_an_event ON queue.dead_letters (tenant_id, event_id);

-- What earlier versions diffed without that proof is diffed again before it is committed.
DELETE FROM replay.scratch WHERE replay_id IN (SELECT replay_id FROM replay.replays WHERE state IN ('diffing', 'diffed'));
DELETE FROM replay.counts WHERE replay_id IN (SELECT replay_id FROM replay.replays WHERE state IN ('diffing', 'diffed'));
UPDATE replay.replays SET state = 'planned', is_paused = false WHERE state IN ('diffing', 'diffed');
UPDATE replay.chunks SET read_events = events WHERE diffed_at IS NOT NULL;

-- Accepted events of an hour that its batches do not hold: 0 where all are kept.
CREATE FUNCTION replay.missing_events(an_hour timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT sum(accepted) FROM account.funnel WHERE hour = an_hour AND lane <> 'replay'), 0)::bigint
           - coalesce((SELECT sum(events) FROM queue.batches
                       WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour'), 0)::bigint
$$;

-- Hours of a replay, of those chunks that are not done or of all, whose batches hold less than was planned. An hour that
-- is searched for rows to remove has to hold all that was accepted.
CREATE FUNCTION replay.unreadable_hours(a_replay bigint, all_chunks boolean)
RETURNS TABLE (hour timestamptz, planned bigint, kept bigint) LANGUAGE sql STABLE AS $$
    SELECT need.hour, greatest(need.planned, found.kept + lost.events), found.kept
    FROM (SELECT c.hour, sum(c.events) FILTER (WHERE NOT c.is_sweep)::bigint AS planned, bool_or(c.is_sweep) AS is_swept
          FROM replay.chunks AS c
          WHERE c.replay_id = a_replay AND (all_chunks OR EXISTS (
              SELECT FROM replay.chunks AS o WHERE o.replay_id = a_replay AND o.hour = c.hour AND NOT o.is_done))
          GROUP BY c.hour) AS own
    CROSS JOIN LATERAL (SELECT own.hour, coalesce(own.planned, 0) AS planned, own.is_swept) AS need
    JOIN replay.replays AS r ON r.replay_id = a_replay
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(b.events), 0)::bigint AS kept FROM queue.batches AS b
        WHERE b.received_at >= need.hour AND b.received_at < need.hour + interval '1 hour'
          AND (r.tenant_ids IS NULL OR b.tenant_ids && r.tenant_ids)) AS found
    CROSS JOIN LATERAL (
        SELECT CASE WHEN need.is_swept THEN replay.missing_events(need.hour) ELSE 0 END AS events) AS lost
    LEFT JOIN queue.hours AS h ON h.hour = need.hour
    WHERE found.kept < need.planned OR lost.events <> 0 OR h.dropped_at IS NOT NULL
    ORDER BY need.hour
$$;

-- Whatever sets it: no diff is done, and none is committed, of which a chunk was not read whole.
CREATE FUNCTION replay.require_whole_diff() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM replay.chunks WHERE replay_id = NEW.replay_id
                                           AND (diffed_at IS NULL OR read_events IS NULL OR read_events < events)) THEN
        RAISE EXCEPTION 'the diff of replay % is not complete', NEW.replay_id
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER whole_diff BEFORE UPDATE OF state ON replay.replays FOR EACH ROW
    WHEN (NEW.state IN ('diffed', 'committing') AND OLD.state <> NEW.state) EXECUTE FUNCTION replay.require_whole_diff();

-- Whether an event was erased, or says that it is of a person who was erased after it was received. As in
-- control.is_theirs, an anonymous id counts only where nobody was logged in.
CREATE FUNCTION replay.is_erased(a_tenant integer, an_event uuid, a_received_at timestamptz, a_row jsonb)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM control.erased_events WHERE tenant_id = a_tenant AND event_id = an_event)
        OR EXISTS (
            SELECT FROM (VALUES ('user', a_row ->> 'user_id'), ('user', a_row ->> 'previous_id'),
                                ('anonymous', a_row ->> 'previous_id'),
                                ('anonymous', CASE WHEN a_row ->> 'user_id' IS NULL THEN a_row ->> 'anonymous_id' END))
                AS id(kind, value)
            JOIN control.tombstones AS t
              ON t.tenant_id = a_tenant AND t.kind = id.kind AND t.id_hash = control.id_hash(a_tenant, id.value)
            WHERE a_received_at < t.erased_at)
$$;

-- As before, and not while a diff reads the hour's batches, however long it takes or is paused. A plan holds nothing: its
-- diff is refused where the hours are gone.
CREATE OR REPLACE FUNCTION queue.why_kept(an_hour timestamptz, retention interval) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT format('was not sealed %s ago', retention) FROM queue.hours
         WHERE hour = an_hour AND (sealed_at IS NULL OR sealed_at + retention > clock_timestamp())),
        (SELECT format('still has %s pieces of work', count(*)) FROM queue.work
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0),
        (SELECT format('still has %s batches for the mirror', count(*)) FROM queue.mirror
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0),
        (SELECT format('is needed by the diff of replay %s', r.replay_id)
         FROM replay.replays AS r
         WHERE r.state = 'diffing'
           AND EXISTS (SELECT FROM replay.chunks AS c WHERE c.replay_id = r.replay_id AND c.hour = an_hour)
         ORDER BY r.replay_id LIMIT 1))
$$;
