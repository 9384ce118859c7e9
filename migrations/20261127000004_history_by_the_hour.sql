-- migrate:up

-- History is derived from bronze hour by hour (docs/history.md). What was derived before is dropped where bronze can
-- give it again: feature rows, and the records of what was loaded. The first loads afterwards make all hours anew,
-- the newest first. Trades and bars stay, and are replaced by them.
drop table tickcast.feature_rows;
drop table tickcast.loaded_objects;
drop table tickcast.stale_hours;

-- Which hours are derived, by which definition of features and labels, and from what: `inputs` are the first eight
-- bytes of a digest of each object that reaches into the hour (its key and its ETag) and of the grid, sorted. An hour
-- for which bronze has an object that is not among them has to be derived again.
create table tickcast.hours (
    symbol text not null,
    hour_us bigint not null,
    feature_set smallint not null references tickcast.feature_sets,
    inputs bytea not null,
    trades bigint not null,
    quotes bigint not null,
    bars integer not null,
    feature_rows integer not null,
    quarantined integer not null,
    derived_at timestamptz not null default now(),
    primary key (symbol, hour_us, feature_set)
);

-- Feature rows in blocks. Of an hour the rows with quotes and those without, by origin, are spread over 16 parts by
-- a hash of their times: who needs a sample reads some of the parts. All arrays are little-endian; row n of a block
-- is as of hour_us + 100 ms * ends[n] (uint16); features (F, rows), moves (J, rows) and last_trade (rows), all
-- float16, are stored column by column. Each is in the order of time.
create table tickcast.feature_blocks (
    symbol text not null,
    hour_us bigint not null,
    feature_set smallint not null references tickcast.feature_sets,
    has_quotes boolean not null,
    origin tickcast.origin not null,
    part smallint not null,
    feature_rows integer not null,
    first_us bigint not null,
    last_us bigint not null,
    ends bytea not null,
    features bytea not null,
    moves_bp bytea not null,
    last_trade_bp bytea not null,
    primary key (symbol, hour_us, feature_set, has_quotes, origin, part)
) partition by range (hour_us);

-- lz4 is several times faster than the built-in compression, and not in every server.
do $$
begin
    alter table tickcast.feature_blocks
        alter column features set compression lz4,
        alter column moves_bp set compression lz4;
exception when feature_not_supported then
    null;
end $$;

-- Old days. A partition is dropped in a transaction of its own, by `drop_day`, which waits for its lock only for a
-- moment: whoever reads the table meanwhile must not make everybody else wait.
drop function tickcast.drop_days_before(bigint);

create function tickcast.days_before(day_us bigint, trades_us bigint) returns setof text
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select child.relname::text
    from pg_inherits
    join pg_class child on child.oid = inhrelid
    join pg_class parent on parent.oid = inhparent
    where parent.relkind = 'p' and parent.relnamespace = 'tickcast'::regnamespace
      and right(child.relname, 8) < to_char(
        to_timestamp(case parent.relname when 'trades' then greatest(day_us, trades_us) else day_us end / 1000000)
            at time zone 'UTC', 'YYYYMMDD')
    order by right(child.relname, 8), child.relname
$$;

-- Runs as the owner, since only the owner may drop tables: so it drops nothing but a day of a partitioned table of
-- the schema, and none that is younger than a day. False where the table is in use, or was dropped meanwhile.
create function tickcast.drop_day(part text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
begin
    if part !~ '^[a-z0-9_]+_[0-9]{8}$'
        or to_date(right(part, 8), 'YYYYMMDD') >= (clock_timestamp() at time zone 'UTC')::date - 1 then
        raise exception '% is not a day that may be dropped', part;
    end if;
    if not exists (
        select from pg_inherits
        join pg_class parent on parent.oid = inhparent
        where inhrelid = to_regclass('tickcast.' || part) and parent.relkind = 'p'
          and parent.relnamespace = 'tickcast'::regnamespace
    ) then
        return false;
    end if;
    execute format('drop table tickcast.%I', part);
    return true;
exception when lock_not_available or undefined_table then
    return false;
end $$;

grant select, insert, update, delete on tickcast.hours, tickcast.feature_blocks to tickcast_loader;
grant select on tickcast.hours, tickcast.feature_blocks to tickcast_reader;
revoke execute on function tickcast.days_before, tickcast.drop_day from public;
grant execute on function tickcast.days_before, tickcast.drop_day to tickcast_loader;

-- Days of the new table next to those that the others have.
do $$
declare
    day text;
begin
    for day in
        select distinct right(child.relname, 8)
        from pg_inherits join pg_class child on child.oid = inhrelid
        where inhparent in ('tickcast.trades'::regclass, 'tickcast.bars_1s'::regclass)
    loop
        perform tickcast.add_day((extract(epoch from to_date(day, 'YYYYMMDD')) * 1000000)::bigint);
    end loop;
end $$;

-- migrate:down

drop function tickcast.days_before, tickcast.drop_day;
drop table tickcast.feature_blocks, tickcast.hours;

create table tickcast.feature_rows (
    symbol text not null,
    end_us bigint not null,
    feature_set smallint not null references tickcast.feature_sets,
    has_quotes boolean not null,
    origin tickcast.origin not null,
    features real[] not null,
    moves_bp real[] not null,
    primary key (symbol, end_us)
) partition by range (end_us);

create table tickcast.loaded_objects (
    key text primary key,
    etag text not null,
    symbol text not null,
    status text not null check (status in ('loaded', 'quarantined')),
    reason text not null default '',
    origin tickcast.origin,
    trades bigint not null,
    quotes bigint not null,
    first_us bigint,
    last_us bigint,
    loaded_at timestamptz not null default now()
);

create index loaded_objects_by_time on tickcast.loaded_objects (symbol, last_us, first_us)
    where status = 'loaded';

create table tickcast.stale_hours (
    symbol text not null,
    hour_us bigint not null,
    primary key (symbol, hour_us)
);

create function tickcast.drop_days_before(day_us bigint) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    dropped integer := 0;
    part text;
begin
    perform pg_advisory_xact_lock(hashtextextended('tickcast.days', 0));
    for part in
        select child.relname
        from pg_inherits
        join pg_class child on child.oid = inhrelid
        join pg_class parent on parent.oid = inhparent
        where parent.relkind = 'p' and parent.relnamespace = 'tickcast'::regnamespace
          and right(child.relname, 8) < to_char(to_timestamp(day_us / 1000000) at time zone 'UTC', 'YYYYMMDD')
    loop
        execute format('drop table tickcast.%I', part);
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;

grant select, insert, update, delete on
    tickcast.feature_rows, tickcast.loaded_objects, tickcast.stale_hours to tickcast_loader;
grant select on tickcast.feature_rows, tickcast.loaded_objects, tickcast.stale_hours to tickcast_reader;
revoke execute on function tickcast.drop_days_before from public;
grant execute on function tickcast.drop_days_before to tickcast_loader;
