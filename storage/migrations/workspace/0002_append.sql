-- The append function made anew: a command may be decided on what another of its batch leaves behind, the look-up of a
-- key is confined to the partitions that can have it, and an answer that writes nothing waits for a synchronous standby
-- as any other does.

DROP FUNCTION @schema@.append;

-- Appends a batch of commands and reports per command. One round trip, one transaction.
--
-- Streams, claims: distinct; the other arrays refer to them by index (from 1). Guards, events and holds are ordered
-- by command. `command_after` names the command of the batch on whose events another was decided, 0 for none and -1 for
-- one that was not recorded: unless those events are appended it conflicts. A guard says which version a stream must have (0: it must not exist). Outcomes:
--   appended   the command's events are in the log
--   confirmed  it had no events and its guards hold (a probe's key is looked up and not remembered)
--   replayed   its key is known: positions and result are those of the first time
--   key_reused its key is known with another body
--   conflict   a guard failed or an event does not follow its stream's head; `head` is the head found
--   claimed    a value is held by another stream, which `owner` names
CREATE FUNCTION @schema@.append(
    streams uuid[],
    guard_command int[], guard_stream int[], guard_version bigint[],
    event_command int[], event_stream int[], event_version bigint[],
    event_topic text[], event_state bytea[], event_personal bytea[],
    command_key bytea[], command_body bytea[], command_result bytea[], command_probe boolean[],
    command_after int[],
    claim_kind text[], claim_key bytea[],
    hold_command int[], hold_claim int[], hold_stream uuid[], hold_release bool[]
) RETURNS TABLE (
    outcome text, first_position bigint, last_position bigint, at timestamptz,
    stream uuid, head bigint, owner uuid, result bytea
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- A plan made while the tables were empty would scan them whole once they are large, under the lock. Every look-up
-- here has its index, so the planner is left no other way and its plan is kept.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $append$
#variable_conflict use_variable
DECLARE
    commands int := cardinality(command_key);
    last bigint; last_at timestamptz; now_at timestamptz; today date;
    heads bigint[]; heads_before bigint[];
    owners uuid[]; owners_before uuid[]; owners_first uuid[];
    done_first bigint[]; done_last bigint[]; done_body bytea[]; done_result bytea[];
    event_position bigint[] := array_fill(NULL::bigint, ARRAY[greatest(cardinality(event_stream), 1)]);
    outcomes text[] := array_fill(NULL::text, ARRAY[commands]);
    firsts bigint[] := array_fill(NULL::bigint, ARRAY[commands]);
    lasts bigint[] := array_fill(NULL::bigint, ARRAY[commands]);
    found_streams uuid[] := array_fill(NULL::uuid, ARRAY[commands]);
    found_heads bigint[] := array_fill(NULL::bigint, ARRAY[commands]);
    found_owners uuid[] := array_fill(NULL::uuid, ARRAY[commands]);
    results bytea[] := array_fill(NULL::bytea, ARRAY[commands]);
    verdict text; s int; k int; position bigint;
    g int := 1; e int := 1; h int := 1;
    any_key bool := false; any_again bool := false; any_new bool := false;
BEGIN
    PERFORM @schema@.lock_log();

    SELECT l.notification_id, l.recorded_at INTO last, last_at
        FROM @schema@.events l ORDER BY l.notification_id DESC LIMIT 1;
    last := coalesce(last, 0);
    now_at := greatest(clock_timestamp(), last_at);
    today := (now_at AT TIME ZONE 'UTC')::date;
    position := last;

    SELECT coalesce(array_agg(coalesce(x.version, -1) ORDER BY u.i), '{}') INTO heads
        FROM unnest(streams) WITH ORDINALITY u (id, i)
        LEFT JOIN LATERAL (
            SELECT v.originator_version AS version FROM @schema@.events v
            WHERE v.originator_id = u.id ORDER BY v.originator_version DESC LIMIT 1
        ) x ON true;

    FOR c IN 1 .. commands LOOP
        IF command_key[c] IS NOT NULL THEN
            any_key := true;
            EXIT;
        END IF;
    END LOOP;
    IF any_key THEN
        SELECT array_agg(x.first_position ORDER BY u.i), array_agg(x.last_position ORDER BY u.i),
               array_agg(x.body_hash ORDER BY u.i), array_agg(x.result ORDER BY u.i)
            INTO done_first, done_last, done_body, done_result
            FROM unnest(command_key) WITH ORDINALITY u (key, i)
            LEFT JOIN LATERAL (
                SELECT * FROM @schema@.command_outcomes o
                WHERE o.command_key = u.key AND o.recorded_on BETWEEN today - 14 AND today
                ORDER BY o.recorded_on DESC LIMIT 1
            ) x ON true;
    END IF;
    IF cardinality(claim_key) > 0 THEN
        SELECT array_agg(x.stream ORDER BY u.i) INTO owners
            FROM unnest(claim_kind, claim_key) WITH ORDINALITY u (kind, key, i)
            LEFT JOIN @schema@.claims x ON x.kind = u.kind AND x.key = u.key;
        owners_first := owners;
    END IF;

    FOR c IN 1 .. commands LOOP
        verdict := NULL;
        IF any_key AND done_first[c] IS NOT NULL THEN
            IF done_body[c] = command_body[c] THEN
                verdict := 'replayed';
                firsts[c] := done_first[c];
                lasts[c] := done_last[c];
                results[c] := done_result[c];
                any_again := true;
            ELSE
                verdict := 'key_reused';
            END IF;
        END IF;
        heads_before := heads;
        owners_before := owners;
        IF verdict IS NULL AND command_after[c] <> 0
            AND (command_after[c] < 0 OR outcomes[command_after[c]] <> 'appended')
        THEN
            -- Its guard may hold by chance, if somebody else's events are where those it was decided on would be.
            verdict := 'conflict';
            found_streams[c] := streams[guard_stream[g]];
            found_heads[c] := greatest(heads[guard_stream[g]], 0);
        END IF;

        WHILE guard_command[g] = c LOOP
            s := guard_stream[g];
            IF verdict IS NULL AND greatest(heads[s], 0) <> guard_version[g] THEN
                verdict := 'conflict';
                found_streams[c] := streams[s];
                found_heads[c] := greatest(heads[s], 0);
            END IF;
            g := g + 1;
        END LOOP;

        WHILE hold_command[h] = c LOOP
            IF verdict IS NULL THEN
                k := hold_claim[h];
                IF hold_release[h] THEN
                    IF owners[k] = hold_stream[h] THEN
                        owners[k] := NULL;
                    END IF;
                ELSIF owners[k] IS NOT NULL AND owners[k] <> hold_stream[h] THEN
                    verdict := 'claimed';
                    found_owners[c] := owners[k];
                    results[c] := convert_to(claim_kind[k], 'UTF8');
                ELSE
                    owners[k] := hold_stream[h];
                END IF;
            END IF;
            h := h + 1;
        END LOOP;

        firsts[c] := coalesce(firsts[c], position + 1);
        WHILE event_command[e] = c LOOP
            IF verdict IS NULL OR verdict = 'appended' THEN
                s := event_stream[e];
                -- A stream starts at 1, or at 0 when the `eventsourcing` package writes it.
                IF event_version[e] = heads[s] + 1 OR (heads[s] = -1 AND event_version[e] = 1) THEN
                    heads[s] := event_version[e];
                    position := position + 1;
                    event_position[e] := position;
                    verdict := 'appended';
                ELSE
                    -- Heads are restored below; positions given so far to this command are taken back.
                    found_streams[c] := streams[s];
                    found_heads[c] := greatest(heads_before[s], 0);
                    FOR b IN REVERSE e - 1 .. 1 LOOP
                        EXIT WHEN event_command[b] <> c;
                        event_position[b] := NULL;
                        position := position - 1;
                    END LOOP;
                    verdict := 'conflict';
                END IF;
            END IF;
            e := e + 1;
        END LOOP;

        verdict := coalesce(verdict, 'confirmed');
        IF verdict IN ('appended', 'confirmed') THEN
            lasts[c] := position;
            firsts[c] := least(firsts[c], position);
            any_new := any_new OR (command_key[c] IS NOT NULL AND NOT command_probe[c]);
        ELSE
            heads := heads_before;
            owners := owners_before;
        END IF;
        outcomes[c] := verdict;
    END LOOP;

    IF position > last THEN
        INSERT INTO @schema@.events
            (notification_id, originator_id, originator_version, topic, state, personal, recorded_at)
            SELECT u.p, streams[u.s], u.v, u.topic, u.state, u.personal, now_at
            FROM unnest(event_position, event_stream, event_version, event_topic, event_state, event_personal)
                AS u (p, s, v, topic, state, personal)
            WHERE u.p IS NOT NULL;
    END IF;
    IF any_new THEN
        INSERT INTO @schema@.command_outcomes
            (command_key, recorded_on, body_hash, first_position, last_position, result)
            SELECT u.key, today, u.body, u.f, u.l, u.r
            FROM unnest(command_key, command_body, firsts, lasts, command_result, outcomes, command_probe)
                AS u (key, body, f, l, r, o, probe)
            WHERE u.key IS NOT NULL AND NOT u.probe AND u.o IN ('appended', 'confirmed');
    END IF;
    IF any_again THEN
        -- Writes WAL, so that with a synchronous standby this answer waits for it as the first one did.
        UPDATE @schema@.command_outcomes o SET asked_again = o.asked_again + 1
            FROM unnest(command_key, outcomes) AS u (key, o) WHERE o.command_key = u.key AND u.o = 'replayed';
    END IF;
    IF owners IS DISTINCT FROM owners_first THEN
        DELETE FROM @schema@.claims x
            USING unnest(claim_kind, claim_key, owners, owners_first) AS u (kind, key, now, before)
            WHERE x.kind = u.kind AND x.key = u.key AND u.before IS NOT NULL AND u.now IS DISTINCT FROM u.before;
        INSERT INTO @schema@.claims (kind, key, stream)
            SELECT u.kind, u.key, u.now
            FROM unnest(claim_kind, claim_key, owners, owners_first) AS u (kind, key, now, before)
            WHERE u.now IS NOT NULL AND u.now IS DISTINCT FROM u.before;
    END IF;

    IF position = last AND NOT any_new AND NOT any_again AND current_setting('synchronous_standby_names') <> '' THEN
        -- What was only looked at may not be on the standby yet. This writes WAL, so that the answer waits for it.
        PERFORM pg_logical_emit_message(true, 'ledgerdesk', '');
    END IF;

    RETURN QUERY SELECT * FROM unnest(outcomes, firsts, lasts, array_fill(now_at, ARRAY[commands]),
        found_streams, found_heads, found_owners,
        (SELECT array_agg(coalesce(u.r, u.given) ORDER BY u.i)
            FROM unnest(results, command_result) WITH ORDINALITY AS u (r, given, i)));
END;
$append$;

REVOKE ALL ON FUNCTION @schema@.append FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @schema@.append TO @application@;
