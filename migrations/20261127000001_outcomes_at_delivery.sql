-- migrate:up

-- Outcomes are of the move that was still to come when a prediction was delivered. Those stored so far are of
-- the move from the prediction's own instant on: other figures under the same names, so they are removed.
truncate tickcast.outcomes, tickcast.tallies;
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
    add column crps double precision not null,
    add column crps_of_no_change double precision not null,
    add column interval_score double precision not null,
    add column interval_score_of_no_change double precision not null,
    add column hindsight_squared_error double precision not null,
    add column hindsight_squared_move double precision not null;

-- migrate:down

truncate tickcast.outcomes, tickcast.tallies;
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
    add column served_squared_error double precision not null,
    add column delivered_squared_error double precision not null;
