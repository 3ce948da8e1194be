-- Copies identity keys of a generation into the open one if an unresolved dead letter has the identity, for the next
-- `most` letters. Returns true when there are no more. The caller holds key_lock exclusively, so that no letter is
-- being written.
CREATE OR REPLACE FUNCTION analytics.carry_keys(a_generation integer, most integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    looked_at bigint;
    last_letter bigint;
BEGIN
    WITH letter AS MATERIALIZED (
        SELECT dead_letter_id, tenant_id, event_id FROM queue.dead_letters
        WHERE state IN ('waiting', 'exhausted')
          AND dead_letter_id > (SELECT letters_until FROM analytics.key_generations WHERE generation = a_generation)
        ORDER BY dead_letter_id
        LIMIT most
    ), carried AS (
        INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
        SELECT DISTINCT ON (l.tenant_id, l.event_id) (SELECT max(generation) FROM analytics.key_generations),
               l.tenant_id, l.event_id, k.received_at
        FROM letter AS l
        CROSS JOIN LATERAL (SELECT received_at FROM analytics.keys AS own
                            WHERE own.tenant_id = l.tenant_id AND own.event_id = l.event_id
                              AND own.generation = a_generation OFFSET 0) AS k
        ORDER BY l.tenant_id, l.event_id
        ON CONFLICT DO NOTHING
    )
    SELECT count(*), max(dead_letter_id) INTO looked_at, last_letter FROM letter;
    UPDATE analytics.key_generations SET letters_until = coalesce(last_letter, letters_until)
    WHERE generation = a_generation;
    RETURN looked_at < most;
END $$;
