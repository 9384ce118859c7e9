-- migrate:up

-- History, for training and scoring. Prices and quantities are mantissas at 1e-8 and times µs since the
-- epoch, as everywhere (docs/contracts.md). The three large tables are partitioned by day; retention drops days.
create schema tickcast;

create type tickcast.origin as enum ('stream', 'replay', 'sim', 'rest');

-- Every trade id once: in a row of its own where the single trade is known, else within an aggregate's row.
-- `trades` says how many ids a row stands for; over all rows they add up to the ids that are stored. Where single
-- trades of an aggregate are known, its row keeps the remainder, and in `aggregate` the original: {first_id,
-- last_id, qty}. The key starts with the time, by which readers select; the writer ensures that no id is stored
-- twice.
create table tickcast.trades (
    symbol text not null,
    time_us bigint not null,
    first_id bigint not null,
    last_id bigint not null,
    price bigint not null,
    qty bigint not null,
    side smallint not null,
    origin tickcast.origin not null,
    trades integer not null,
    aggregate bigint[],
    primary key (symbol, time_us, first_id)
) partition by range (time_us);

create table tickcast.bars_1s (
    symbol text not null,
    end_us bigint not null,
    trade_count bigint not null,
    buy_qty bigint not null,
    sell_qty bigint not null,
    notional bigint not null,
    last_trade_id bigint not null,
    last_trade_price bigint not null,
    quote_count bigint not null,
    update_id bigint not null,
    bid_price bigint not null,
    bid_qty bigint not null,
    ask_price bigint not null,
    ask_qty bigint not null,
    has_quotes boolean not null,
    origin tickcast.origin not null,
    primary key (symbol, end_us)
) partition by range (end_us);

-- Which features and horizons the vectors of `feature_rows` hold, in order.
create table tickcast.feature_sets (
    feature_set smallint generated always as identity primary key,
    feature_hash text not null,
    features text[] not null,
    horizons_s integer[] not null,
    unique (feature_hash, horizons_s)
);

-- A row as of `end_us`: features, and the move that followed over each horizon, bp. Without quotes the move is
-- from the proxy mid (docs/adr/0029-one-training-row.md).
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

-- Objects of bronze that were loaded, by key and ETag, or could not be, and why.
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

-- To read an hour: the objects whose ticks reach into it.
create index loaded_objects_by_time on tickcast.loaded_objects (symbol, last_us, first_us)
    where status = 'loaded';

-- Hours whose bars and feature rows do not include all loaded trades yet: added with the trades, removed with the
-- rows.
create table tickcast.stale_hours (
    symbol text not null,
    hour_us bigint not null,
    primary key (symbol, hour_us)
);

-- Holes of the gap ledger that were requested from REST: ids that are repaired, and ids that the exchange
-- withholds. Predictions made between `touched_from_ms` and `touched_to_ms` used bars that lacked these trades.
create table tickcast.gaps_repaired (
    symbol text not null,
    first_id bigint not null,
    last_id bigint not null,
    status text not null check (status in ('repaired', 'withheld')),
    from_us bigint not null,
    to_us bigint not null,
    touched_from_ms bigint not null,
    touched_to_ms bigint not null,
    marked_at timestamptz not null default now(),
    primary key (symbol, first_id, last_id)
);

-- The partition of a day is created by itself and attached, which does not wait for running loads as `create
-- table ... partition of` would. Both functions run as the owner, since only the owner may change tables; they
-- cover every partitioned table of the schema.
create function tickcast.add_day(day_us bigint) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    length_us constant bigint := 86400000000;
    parent text;
    part text;
begin
    if day_us % length_us <> 0 then
        raise exception '% is not the beginning of a day', day_us;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('tickcast.days', 0));
    for parent in
        select relname from pg_class where relkind = 'p' and relnamespace = 'tickcast'::regnamespace order by 1
    loop
        part := parent || to_char(to_timestamp(day_us / 1000000) at time zone 'UTC', '_YYYYMMDD');
        continue when to_regclass('tickcast.' || part) is not null;
        execute format('create table tickcast.%I (like tickcast.%I including all)', part, parent);
        execute format('alter table tickcast.%I attach partition tickcast.%I for values from (%s) to (%s)',
            parent, part, day_us, day_us + length_us);
    end loop;
end $$;

-- Drops the days before `day_us`. Returns how many partitions were dropped.
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

-- migrate:down

drop schema tickcast cascade;
