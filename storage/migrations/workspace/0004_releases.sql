-- Which releases of the desk have been writing this log, and since when: docs/adr/0006-which-release-wrote-an-event.md.

CREATE TABLE @schema@.releases (
    release        text COLLATE "C" PRIMARY KEY,
    -- Noted before the release appends for the first time, so that it wrote nothing before this position.
    first_position bigint NOT NULL,
    first_seen_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Called whenever a process opens a connection to append over, not with every append.
CREATE FUNCTION @schema@.note_release(name text) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $note$
    INSERT INTO @schema@.releases (release, first_position)
    SELECT name, coalesce((SELECT max(e.notification_id) FROM @schema@.events e), 0) + 1
    ON CONFLICT (release) DO NOTHING;
$note$;

REVOKE ALL ON FUNCTION @schema@.note_release FROM PUBLIC;
GRANT SELECT ON @schema@.releases TO @application@, @reader@;
GRANT EXECUTE ON FUNCTION @schema@.note_release TO @application@;
