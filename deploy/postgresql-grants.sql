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
    FOREACH account IN ARRAY ARRAY['miad_ingress', 'miad_worker', 'miad_restore'] LOOP
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

-- ingress: adds what it has taken, and sees the queue to know when it is full
GRANT SELECT, INSERT ON instance TO miad_ingress;

-- worker: the queue is its own; records are added and changed, never deleted
GRANT SELECT, INSERT, UPDATE, DELETE ON instance, delivery, emergency_override, mark_figures, protection_report, clock TO miad_worker;
GRANT USAGE ON SEQUENCE delivery_id_seq TO miad_worker;
GRANT SELECT, INSERT, UPDATE ON vault_record TO miad_worker;

-- restore: reads records and nothing else
GRANT SELECT ON vault_record TO miad_restore;
