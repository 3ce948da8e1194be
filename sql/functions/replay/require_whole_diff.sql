-- Refuses a diff or a commit with a chunk that was not read completely, whatever statement sets the state.
CREATE OR REPLACE FUNCTION replay.require_whole_diff() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM replay.chunks WHERE replay_id = NEW.replay_id
                                           AND (diffed_at IS NULL OR read_events IS NULL OR read_events < events)) THEN
        RAISE EXCEPTION 'the diff of replay % is not complete', NEW.replay_id
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER whole_diff BEFORE UPDATE OF state ON replay.replays FOR EACH ROW
    WHEN (NEW.state IN ('diffed', 'committing') AND OLD.state <> NEW.state) EXECUTE FUNCTION replay.require_whole_diff();
