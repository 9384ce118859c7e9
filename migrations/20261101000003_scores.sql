-- migrate:up

-- Outcomes of predictions, as the hot path resolved them: a row for each prediction and horizon. Of the
-- challenger in shadow only what a comparison needs. Moves in bp.
create table tickcast.outcomes (
    symbol text not null,
    target_us bigint not null,
    horizon_s smallint not null,
    predicted_us bigint not null,
    source text not null check (source in ('model', 'fallback')),
    reason text not null default '',
    model_id text not null default '',
    why text not null default '',
    basis_price double precision not null,
    outcome_price double precision,
    served_price double precision,
    move_bp double precision,
    expected_move_bp double precision,
    scale_bp double precision,
    lower double precision,
    upper double precision,
    confidence double precision,
    p_flat double precision,
    imbalance double precision,
    abstains boolean not null,
    is_inside boolean,
    is_right boolean,
    latency_ms integer,
    challenger_id text,
    challenger_move_bp double precision,
    primary key (symbol, target_us, horizon_s)
) partition by range (target_us);

-- For the gate: what a challenger forecast in the shadow of a champion.
create index outcomes_in_shadow on tickcast.outcomes (challenger_id, model_id) where challenger_id is not null;

-- Counts and sums of the outcomes of a minute (tickcast.evaluation.live_scores), from which longer spans are scored.
create table tickcast.tallies (
    symbol text not null,
    minute_us bigint not null,
    horizon_s smallint not null,
    model_id text not null,
    is_model boolean not null,
    abstains boolean not null,
    why text not null,
    bin smallint not null,
    first_us bigint not null,
    last_us bigint not null,
    count bigint not null,
    moved bigint not null,
    rights bigint not null,
    confidence double precision not null,
    inside bigint not null,
    squared_error double precision not null,
    squared_move double precision not null,
    squared_imbalance double precision not null,
    imbalance_move double precision not null,
    served_squared_error double precision not null,
    delivered_squared_error double precision not null,
    primary key (symbol, minute_us, horizon_s, model_id, is_model, abstains, why, bin)
) partition by range (minute_us);

-- How many served rows of an hour fell into which bin of a model's training distribution (tickcast.evaluation.drift).
create table tickcast.feature_counts (
    symbol text not null,
    hour_us bigint not null,
    model_id text not null,
    counts bigint[] not null,
    primary key (symbol, hour_us, model_id)
) partition by range (hour_us);

-- The position in the hot store's streams: ids of the newest entries copied, in the same transaction as the rows.
create table tickcast.drained (
    symbol text primary key,
    outcome text not null,
    prediction text not null
);

-- The state of drift detection by symbol, and the trainings that drift started.
create table tickcast.drift_watches (
    symbol text primary key,
    watch jsonb not null
);
create table tickcast.drift_trainings (
    asked_us bigint primary key,
    reasons text[] not null
);

-- Outcomes are added and never changed; a minute's tallies are recomputed.
grant select, insert on tickcast.outcomes, tickcast.drift_trainings to tickcast_scorer;
grant select, insert, delete on tickcast.tallies to tickcast_scorer;
grant select, insert, update on tickcast.feature_counts, tickcast.drained, tickcast.drift_watches
    to tickcast_scorer;
grant select on all tables in schema tickcast to tickcast_reader;

-- migrate:down

drop table tickcast.outcomes, tickcast.tallies, tickcast.feature_counts, tickcast.drained,
    tickcast.drift_watches, tickcast.drift_trainings;
