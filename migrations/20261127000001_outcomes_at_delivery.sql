-- migrate:up

-- Outcomes are of the move that was still to come when a prediction was delivered. Those stored so far are of
-- the move from the prediction's own instant on: another figure under the same name. They stay, recognisable by
-- a move without delivered_price, and their tallies by crps being null; no new figure counts them.
alter table tickcast.outcomes
    drop column served_price,
    drop column lower,
    drop column upper,
    add column delivered_price double precision,
    add column half_width_bp double precision,
    add column hindsight_move_bp double precision,
    add column hindsight_expected_bp double precision;
alter table tickcast.tallies
    drop column served_squared_error,
    drop column delivered_squared_error,
    add column crps double precision,
    add column crps_of_no_change double precision,
    add column interval_score double precision,
    add column interval_score_of_no_change double precision,
    add column hindsight_squared_error double precision,
    add column hindsight_squared_move double precision;

-- migrate:down

-- The earlier release counts moves from the prediction's own instant on only.
delete from tickcast.outcomes where delivered_price is not null;
delete from tickcast.tallies where crps is not null;
alter table tickcast.outcomes
    drop column delivered_price,
    drop column half_width_bp,
    drop column hindsight_move_bp,
    drop column hindsight_expected_bp,
    add column served_price double precision,
    add column lower double precision,
    add column upper double precision;
alter table tickcast.tallies
    drop column crps,
    drop column crps_of_no_change,
    drop column interval_score,
    drop column interval_score_of_no_change,
    drop column hindsight_squared_error,
    drop column hindsight_squared_move,
    add column served_squared_error double precision not null default 0,
    add column delivered_squared_error double precision not null default 0;
