-- migrate:up

-- The user of mark_repaired: what it reads of trades, and the marks of gaps.
do $$
begin
    if not exists (select from pg_roles where rolname = 'tickcast_repairer') then
        create role tickcast_repairer login connection limit 20;
    end if;
    if exists (select from pg_roles where rolname = 'rds_iam') then
        grant rds_iam to tickcast_repairer;
    end if;
    execute format('grant connect on database %I to tickcast_repairer', current_database());
end $$;

grant usage on schema tickcast to tickcast_repairer;
grant select on tickcast.trades to tickcast_repairer;
grant select, insert, delete on tickcast.gaps_repaired to tickcast_repairer;
revoke insert, update, delete on tickcast.gaps_repaired from tickcast_loader;

-- migrate:down

grant insert, update, delete on tickcast.gaps_repaired to tickcast_loader;
revoke all on tickcast.trades, tickcast.gaps_repaired from tickcast_repairer;
revoke all on schema tickcast from tickcast_repairer;
