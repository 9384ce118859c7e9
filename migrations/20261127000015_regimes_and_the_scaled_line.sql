-- migrate:up

-- Live skill is reported by regime, and compared with the line through book imbalance that the gate compares with,
-- which is scaled by volatility. Minutes tallied before have none of these sums: they are left out of both.
--
-- What no code uses any more stays for this release: the code of the one before names no columns when it tallies, so
-- that without these two it would write each sum that follows into a column of another.
alter table tickcast.outcomes
    add column spread_bp double precision;
alter table tickcast.tallies
    alter column squared_imbalance drop not null,
    alter column imbalance_move drop not null,
    add column squared_line double precision,
    add column line_move double precision,
    add column sigma_bp double precision,
    add column spread_bp double precision;

-- migrate:down

update tickcast.tallies set squared_imbalance = 0, imbalance_move = 0 where squared_imbalance is null;
alter table tickcast.outcomes
    drop column spread_bp;
alter table tickcast.tallies
    alter column squared_imbalance set not null,
    alter column imbalance_move set not null,
    drop column squared_line,
    drop column line_move,
    drop column sigma_bp,
    drop column spread_bp;
