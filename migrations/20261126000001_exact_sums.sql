-- migrate:up

-- The quantity of one tick fits into bigint, sums may not. `notional`, in 1e-8 of the quote currency as before,
-- is no longer rounded trade by trade: it has eight decimals.
alter table tickcast.bars_1s
    alter column buy_qty type numeric,
    alter column sell_qty type numeric,
    alter column notional type numeric;

-- migrate:down

alter table tickcast.bars_1s
    alter column buy_qty type bigint,
    alter column sell_qty type bigint,
    alter column notional type bigint;
