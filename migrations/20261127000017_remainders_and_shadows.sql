-- migrate:up

-- First, as `add_day` takes it: else a run of the scorer that adds a day and this might wait for each other.
select pg_advisory_xact_lock(hashtextextended('tickcast.days', 0));

-- What was left of a minute's forecasts when they were read `age_s` after their delivery, and what came of it
-- (tickcast.evaluation.remainders). Moves in bp.
create table tickcast.remainders (
    symbol text not null,
    minute_us bigint not null,
    horizon_s smallint not null,
    age_s smallint not null,
    count bigint not null,
    squared_error double precision not null,
    squared_move double precision not null,
    primary key (symbol, minute_us, horizon_s, age_s)
) partition by range (minute_us);

-- A minute's outcomes that a challenger had forecast in the shadow of the active model
-- (tickcast.evaluation.challenger_scores). Moves in bp.
create table tickcast.shadows (
    symbol text not null,
    minute_us bigint not null,
    horizon_s smallint not null,
    challenger_id text not null,
    count bigint not null,
    squared_error double precision not null,
    champion_squared_error double precision not null,
    squared_move double precision not null,
    primary key (symbol, minute_us, horizon_s, challenger_id)
) partition by range (minute_us);

grant select, insert, delete on tickcast.remainders, tickcast.shadows to tickcast_scorer;
grant select on tickcast.remainders, tickcast.shadows to tickcast_reader;

-- Days of the new tables next to those that tallies have.
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

drop table tickcast.remainders, tickcast.shadows;
