-- migrate:up

-- What was, for training and scoring. Prices and quantities are mantissas at 1e-8 and times µs since the
-- epoch, as everywhere (docs/contracts.md). The three large tables are cut into days, which retention drops.
create schema tickcast;

create type tickcast.origin as enum ('stream', 'replay', 'sim', 'rest');

-- Every trade id once: a row of its own where it is known singly, else within an aggregate's row. `trades`
-- says for how many ids a row stands; over all rows they add up to the ids that are held. Where single trades
-- of an aggregate are known, its row keeps what is left of it, and in `aggregate` what it was: {first_id,
-- last_id, qty}. The key begins with the time, which readers ask for; whoever writes sees to it that an id is
-- not held twice.
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
-- of the proxy mid.
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

-- What of bronze was loaded, by key and ETag, or could not be, and why.
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

-- Readers of an hour want the objects whose ticks reach into it.
create index loaded_objects_by_time on tickcast.loaded_objects (symbol, last_us, first_us)
    where status = 'loaded';

-- Hours whose bars and feature rows do not show yet what was loaded: written with the trades, gone with the rows.
create table tickcast.stale_hours (
    symbol text not null,
    hour_us bigint not null,
    primary key (symbol, hour_us)
);

-- What became of the holes in the gap ledger that were asked of REST: ids that are held now, and ids that the
-- exchange itself does not give. Predictions made between `touched_from_ms` and `touched_to_ms` looked at bars
-- that lacked these trades.
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

-- The partition of a day is made aside and attached: that waits for nobody who loads, as `create table ...
-- partition of` would. Both functions run as the owner, since only the owner may change tables; they are about
-- every partitioned table of the schema.
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

-- Forget the days before `day_us`. Returns how many partitions went.
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
