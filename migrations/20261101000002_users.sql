-- migrate:up

-- Users and their rights. On RDS they log in with IAM tokens, by membership in `rds_iam`; elsewhere there is no
-- such role. Users belong to the server, not to the database: they may exist already.
do $$
declare
    name text;
begin
    foreach name in array array['tickcast_loader', 'tickcast_reader', 'tickcast_scorer'] loop
        if not exists (select from pg_roles where rolname = name) then
            execute format('create role %I login connection limit 20', name);
        end if;
        if exists (select from pg_roles where rolname = 'rds_iam') then
            execute format('grant rds_iam to %I', name);
        end if;
        -- The loader copies into temporary tables; nobody else's sessions leave anything in the database.
        execute format('grant connect on database %I to %I', current_database(), name);
    end loop;
    execute format('revoke temporary on database %I from public', current_database());
    execute format('grant temporary on database %I to tickcast_loader', current_database());
end $$;

revoke create on schema public from public;
grant usage on schema tickcast to tickcast_loader, tickcast_reader, tickcast_scorer;

grant select, insert, update, delete on
    tickcast.trades, tickcast.bars_1s, tickcast.feature_rows, tickcast.loaded_objects, tickcast.stale_hours,
    tickcast.gaps_repaired
    to tickcast_loader;
grant select, insert on tickcast.feature_sets to tickcast_loader;
revoke execute on function tickcast.add_day, tickcast.drop_days_before from public;
grant execute on function tickcast.add_day, tickcast.drop_days_before to tickcast_loader;
grant execute on function tickcast.add_day to tickcast_scorer;

grant select on all tables in schema tickcast to tickcast_reader;

-- migrate:down

revoke all on all tables in schema tickcast from tickcast_loader, tickcast_reader, tickcast_scorer;
revoke all on all functions in schema tickcast from tickcast_loader, tickcast_scorer;
revoke all on schema tickcast from tickcast_loader, tickcast_reader, tickcast_scorer;
