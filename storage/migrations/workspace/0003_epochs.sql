-- The epochs of the log. A position alone does not say which event is meant once a log has gone on from a copy of itself:
-- from a restored dump, or from a standby that was promoted and may have lacked the last events. So the log notices, at
-- the first append connection, that it lies somewhere else than before, and begins an epoch there.

-- Where the log was last written: server, timeline, database and table. NULL: not known, so that it is taken for another.
ALTER TABLE @schema@.log_identity ADD COLUMN place text COLLATE "C";

CREATE TABLE @schema@.log_epochs (
    number         integer PRIMARY KEY,
    epoch          text COLLATE "C" NOT NULL UNIQUE,
    -- The log up to here is that of the epochs before: what they said of these positions still holds.
    after_position bigint NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason         text NOT NULL,
    place          text COLLATE "C"
);
INSERT INTO @schema@.log_epochs (number, epoch, after_position, started_at, reason)
    SELECT 1, i.epoch, 0, i.started_at, 'the log was made' FROM @schema@.log_identity i;

-- A promotion begins a timeline, a restored dump has another table, database or server, and so has a database cloned
-- from a template. Raises read_only_sql_transaction on a standby.
CREATE FUNCTION @schema@.log_place() RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $place$
DECLARE
    server text := 'unknown';
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE read_only_sql_transaction USING MESSAGE = 'this server is a standby';
    END IF;
    BEGIN
        server := (SELECT c.system_identifier FROM pg_control_system() c);
    EXCEPTION WHEN insufficient_privilege THEN
        NULL; -- a hosted server may not tell; timeline, database and table are left
    END;
    RETURN format('server %s, timeline %s, database %s, table %s', server,
        left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
        (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
        '@schema@.events'::regclass::oid);
END;
$place$;

-- Begins an epoch; what earlier ones said of positions above `trusted` holds no more. For administrators, and below.
CREATE FUNCTION @schema@.renew_epoch(why text, trusted bigint) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $renew$
DECLARE
    fresh text := substr(translate(encode(uuid_send(gen_random_uuid()), 'base64'), '+/=', ''), 1, 8);
BEGIN
    -- Waits for appends under way, so that every event lies in one epoch.
    PERFORM @schema@.lock_log();
    INSERT INTO @schema@.log_epochs (number, epoch, after_position, reason, place)
        SELECT max(e.number) + 1, fresh, trusted, why, @schema@.log_place() FROM @schema@.log_epochs e;
    UPDATE @schema@.log_identity SET epoch = fresh, started_at = clock_timestamp(), place = @schema@.log_place();
    RETURN fresh;
END;
$renew$;

-- What every new append connection says first: the last event that its process saw appended, and in which epoch. Gives
-- the epoch, which is a new one where the log lies elsewhere than before or does not have that event any more.
CREATE FUNCTION @schema@.enter_log(seen_epoch text, seen_position bigint, seen_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $enter$
DECLARE
    here text := @schema@.log_place();
    known record;
BEGIN
    FOR attempt IN 1 .. 2 LOOP
        SELECT i.epoch, i.place INTO STRICT known FROM @schema@.log_identity i;
        IF known.place = here AND (seen_epoch IS DISTINCT FROM known.epoch OR EXISTS (
            SELECT FROM @schema@.events e WHERE e.notification_id = seen_position AND e.recorded_at = seen_at
        )) THEN
            RETURN known.epoch;
        END IF;
        -- The second look is under the lock, so that of many processes one begins the epoch.
        PERFORM @schema@.lock_log();
    END LOOP;
    IF known.place IS DISTINCT FROM here THEN
        RETURN @schema@.renew_epoch(
            format('the log went on in another place (before: %s)', coalesce(known.place, 'unknown')),
            (SELECT coalesce(max(e.notification_id), 0) FROM @schema@.events e));
    END IF;
    -- The same place, set back by other means. Since when is not known, so nothing is trusted.
    RETURN @schema@.renew_epoch(format('the log lost the event that was at position %s', seen_position), 0);
END;
$enter$;

-- What lies in a log of unknown past may be a restored copy: it begins an epoch with the next append.
UPDATE @schema@.log_identity SET place = @schema@.log_place() WHERE NOT EXISTS (SELECT FROM @schema@.events);
UPDATE @schema@.log_epochs SET place = (SELECT i.place FROM @schema@.log_identity i);

REVOKE ALL ON FUNCTION @schema@.log_place, @schema@.renew_epoch, @schema@.enter_log FROM PUBLIC;
GRANT SELECT ON @schema@.log_epochs TO @application@, @reader@;
GRANT EXECUTE ON FUNCTION @schema@.enter_log TO @application@;
