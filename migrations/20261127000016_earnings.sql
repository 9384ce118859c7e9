-- migrate:up

-- First, as `add_day` takes it: else a run of the scorer that adds a day and this might wait for each other.
select pg_advisory_xact_lock(hashtextextended('tickcast.days', 0));

-- What acting on a forecast costs. Outcomes of earlier releases lack it, and are left out of earnings.
alter table tickcast.outcomes
    add column fee_bp double precision,
    add column worth_trading boolean,
    add column spread_paid_bp double precision;

-- What acting on the outcomes of a minute would have earned (tickcast.evaluation.earnings), by steps of the expected
-- move. Moves, spreads and fees in bp.
create table tickcast.earnings (
    symbol text not null,
    minute_us bigint not null,
    horizon_s smallint not null,
    model_id text not null,
    step smallint not null,
    worth_trading boolean not null,
    count bigint not null,
    directions bigint not null,
    moves double precision not null,
    gross double precision not null,
    spread double precision not null,
    fees double precision not null,
    primary key (symbol, minute_us, horizon_s, model_id, step, worth_trading)
) partition by range (minute_us);

grant select, insert, delete on tickcast.earnings to tickcast_scorer;
grant select on tickcast.earnings to tickcast_reader;

-- Days of the new table next to those that tallies have.
do $$
declare
    day text;
begin
    for day in
        select right(child.relname, 8) from pg_inherits join pg_class child on child.oid = inhrelid
        where inhparent = 'tickcast.tallies'::regclass
    loop
        perform tickcast.add_day((extract(epoch from to_date(day, 'YYYYMMDD')) * 1000000)::bigint);
    end loop;
end $$;

-- migrate:down

drop table tickcast.earnings;
alter table tickcast.outcomes
    drop column fee_bp,
    drop column worth_trading,
    drop column spread_paid_bp;
