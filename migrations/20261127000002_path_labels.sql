-- migrate:up

-- Labels are paths now (docs/adr/0031-a-model-forecasts-a-path.md), and training does not read rows of the definition
-- before. Every hour with bars is out of date until it is loaded again (docs/runbook.md). The bar that ends with an
-- hour is of the hour that begins there.
insert into tickcast.stale_hours
select distinct symbol, end_us / 3600000000 * 3600000000 from tickcast.bars_1s
on conflict do nothing;

-- migrate:down

-- An hour that is recomputed without need has the same rows afterwards: the marks stay.
select 1;
