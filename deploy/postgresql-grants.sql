-- One database account for each role, each with what its work needs and no more.
--
-- Run as the owner of the tables, once after the schema was made (any start under the owner's account makes it) and again
-- after every upgrade:
--
--     psql --set ON_ERROR_STOP=1 --file deploy/postgresql-grants.sql "$OWNERS_URL"
--
-- Then give each account a password (or a certificate), and each role its own URL in `[database]`: the value is a secret
-- reference, such as "env:MIAD_DATABASE_URL", which each unit sets for itself. A role's account cannot change the schema;
-- upgrades are started under the owner's.

DO $$
DECLARE account text;
BEGIN
    FOREACH account IN ARRAY ARRAY['miad_ingress', 'miad_worker', 'miad_restore', 'miad_page'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = account) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', account);
        END IF;
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I', account);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM %I', account);
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', account);
        EXECUTE format('GRANT SELECT ON alembic_version TO %I', account);
    END LOOP;
END $$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- ingress: adds what it has taken and how far its segments are told of, and sees the queue to know when it is full
GRANT SELECT, INSERT ON instance TO miad_ingress;
GRANT SELECT, INSERT, UPDATE ON spool_segment TO miad_ingress;
-- ... and notes what archives ask to have committed, and ask for once more when they were answered
GRANT SELECT, INSERT, UPDATE (asked_at) ON commitment_request TO miad_ingress;

-- worker: the queue is its own; records are added and changed, never deleted
GRANT SELECT, INSERT, UPDATE, DELETE ON instance, delivery, emergency_override, mark_figures, protection_report, clock TO miad_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON paused_destination, claim TO miad_worker;
GRANT USAGE ON SEQUENCE delivery_id_seq TO miad_worker;
-- under durability cluster it also tells of objects whose receiver did not live to do it
GRANT SELECT, INSERT, UPDATE, DELETE ON spool_segment TO miad_worker;
GRANT SELECT, INSERT, UPDATE ON vault_record TO miad_worker;

-- ... it answers archives, and may ask for originals to be opened and compared, and not say what came of it
GRANT SELECT, UPDATE, DELETE ON commitment_request TO miad_worker;
GRANT SELECT, INSERT (locator, asked_at), UPDATE (asked_at, promised_at) ON payload_check TO miad_worker;

-- restore: reads records, says what an original is that it was asked to open, and nothing else
GRANT SELECT ON vault_record TO miad_restore;
GRANT SELECT, UPDATE (checked_at, result) ON payload_check TO miad_restore;

-- page: reads how far things are, and of records which UIDs belong together; no column that could name a patient
GRANT SELECT ON instance, delivery, clock, paused_destination TO miad_page;
GRANT SELECT (locator, generation, original_sop_uid, original_series_uid, study_uid, derived_sop_uid, derived_series_uid,
    derived_study_uid, sop_class_uid, transfer_syntax_uid, derived_sha256, payload_file, created_at)
    ON vault_record TO miad_page;
-- ... and how far marks can be seen
GRANT SELECT ON mark_figures TO miad_page;
-- ... and may only ask: the worker looks at each request anew and does it, or does not
-- ... reading all but the tokens by which the identity provider's people are known
GRANT SELECT (id, asked_at, user_name, session_id, action, instance_id, reason_code, route, destination, confirmation, state,
    taken_at, done_at, done, result), INSERT ON page_request TO miad_page;
GRANT SELECT, UPDATE, DELETE ON page_request TO miad_worker;
