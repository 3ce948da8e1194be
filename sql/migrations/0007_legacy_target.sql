-- The old pipeline to move over from: where the mirror sends, and what its output is compared by.
CREATE TABLE control.legacy_target (
    only_row         boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- NULL: nobody is sent anything, and what is mirrored counts as lost at stage mirror.
    forward_url      text,
    headers          jsonb NOT NULL DEFAULT '{}',
    -- Of what it answered with 429 or 5xx; what it may have taken is never sent again.
    retries          integer NOT NULL DEFAULT 0 CHECK (retries BETWEEN 0 AND 10),
    timeout_s        double precision NOT NULL DEFAULT 5 CHECK (timeout_s > 0),
    requests_at_once integer NOT NULL DEFAULT 32 CHECK (requests_at_once BETWEEN 1 AND 1000),
    -- Batches that wait longer are given up, so that an old pipeline that is away for days does not fill the disk.
    give_up_s        double precision NOT NULL DEFAULT 3600 CHECK (give_up_s > 0),
    -- How long after the last mirrored batch it may still deliver.
    settle_s         double precision NOT NULL DEFAULT 300 CHECK (settle_s >= 0),
    -- Columns of legacy.output whose values are compared.
    compared         text[] NOT NULL DEFAULT ARRAY['type', 'name', 'user_id', 'anonymous_id', 'properties', 'traits', 'context'],
    -- The user's own table behind legacy.output; NULL: legacy.events.
    output_table     text,
    configured_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO control.legacy_target DEFAULT VALUES;

-- What a tenant's requests to the old pipeline are authorized with.
CREATE TABLE control.legacy_keys (
    tenant_id integer PRIMARY KEY REFERENCES control.tenants,
    write_key text NOT NULL
);

-- SHA-1 for where pgcrypto is not installed: FIPS 180-4, on bytes.
CREATE FUNCTION legacy.sha1(message bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    mask CONSTANT bigint := 4294967295;
    h bigint[] := ARRAY[1732584193, 4023233417, 2562383102, 271733878, 3285377520];
    w bigint[];
    padded bytea;
    a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; t bigint;
    at integer := 0;
BEGIN
    padded := message || '\x80'::bytea
              || decode(repeat('00', (119 - octet_length(message) % 64) % 64), 'hex')
              || int8send(octet_length(message)::bigint * 8);
    WHILE at < octet_length(padded) LOOP
        FOR i IN 0..15 LOOP
            w[i] := (get_byte(padded, at + 4 * i)::bigint << 24) | (get_byte(padded, at + 4 * i + 1) << 16)
                    | (get_byte(padded, at + 4 * i + 2) << 8) | get_byte(padded, at + 4 * i + 3);
        END LOOP;
        FOR i IN 16..79 LOOP
            t := w[i - 3] # w[i - 8] # w[i - 14] # w[i - 16];
            w[i] := ((t << 1) | (t >> 31)) & mask;
        END LOOP;
        a := h[1]; b := h[2]; c := h[3]; d := h[4]; e := h[5];
        FOR i IN 0..79 LOOP
            IF i < 20 THEN f := (b & c) | (~b & mask & d); k := 1518500249;
            ELSIF i < 40 THEN f := b # c # d; k := 1859775393;
            ELSIF i < 60 THEN f := (b & c) | (b & d) | (c & d); k := 2400959708;
            ELSE f := b # c # d; k := 3395469782;
            END IF;
            t := ((((a << 5) | (a >> 27)) & mask) + f + e + k + w[i]) & mask;
            e := d; d := c; c := ((b << 30) | (b >> 2)) & mask; b := a; a := t;
        END LOOP;
        h := ARRAY[(h[1] + a) & mask, (h[2] + b) & mask, (h[3] + c) & mask, (h[4] + d) & mask, (h[5] + e) & mask];
        at := at + 64;
    END LOOP;
    RETURN decode(lpad(to_hex(h[1]), 8, '0') || lpad(to_hex(h[2]), 8, '0') || lpad(to_hex(h[3]), 8, '0')
                  || lpad(to_hex(h[4]), 8, '0') || lpad(to_hex(h[5]), 8, '0'), 'hex');
END $$;

-- The identity of a messageId, as the gateway makes it: the UUID itself, else its UUIDv5 (RFC 9562) in our namespace.
CREATE FUNCTION legacy.event_id_of(message_id text) RETURNS uuid LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    hash bytea;
BEGIN
    IF message_id ~ '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$' THEN
        RETURN message_id::uuid;
    END IF;
    hash := substr(legacy.sha1('\x6f1f7c0e7a555b0c9d3e2f5f0d1d9a41'::bytea || convert_to(message_id, 'UTF8')), 1, 16);
    hash := set_byte(hash, 6, (get_byte(hash, 6) & 15) | 80);
    hash := set_byte(hash, 8, (get_byte(hash, 8) & 63) | 128);
    RETURN encode(hash, 'hex')::uuid;
END $$;
