-- migrate:up

-- Live skill is reported by regime, and compared with the line through book imbalance that the gate compares with,
-- which is scaled by volatility. Minutes tallied before have none of these sums: they are left out of both.
alter table tickcast.outcomes
    add column spread_bp double precision;
alter table tickcast.tallies
    drop column squared_imbalance,
    drop column imbalance_move,
    add column squared_line double precision,
    add column line_move double precision,
    add column sigma_bp double precision,
    add column spread_bp double precision;

-- migrate:down

alter table tickcast.outcomes
    drop column spread_bp;
alter table tickcast.tallies
    drop column squared_line,
    drop column line_move,
    drop column sigma_bp,
    drop column spread_bp,
    add column squared_imbalance double precision not null default 0,
    add column imbalance_move double precision not null default 0;
