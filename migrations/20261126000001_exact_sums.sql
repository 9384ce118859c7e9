-- migrate:up

-- Quantities of one tick fit into bigint, their sums need not. `notional`, by 1e-8 of the quote currency as
-- before, is not rounded trade by trade any more: it has eight decimals.
alter table tickcast.bars_1s
    alter column buy_qty type numeric,
    alter column sell_qty type numeric,
    alter column notional type numeric;

-- migrate:down

alter table tickcast.bars_1s
    alter column buy_qty type bigint,
    alter column sell_qty type bigint,
    alter column notional type bigint;
