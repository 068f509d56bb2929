CREATE OR REPLACE FUNCTION payout_event_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status = 'exported' AND (SELECT status FROM payout WHERE id = NEW.payout_id) NOT IN ('pending', 'failed') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: only a payout that is pending or failed can be exported';
  END IF;
  IF NEW.status <> 'exported' AND (NOT ((SELECT status FROM payout WHERE id = NEW.payout_id) = 'exported' OR ((SELECT status FROM payout WHERE id = NEW.payout_id) = 'paid' AND NEW.status = 'failed')) OR NEW.batch_id <> (SELECT e.batch_id FROM payout_event AS e WHERE e.payout_id = NEW.payout_id ORDER BY e.id DESC LIMIT 1)) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a payout is paid or fails once, in its last batch; one that was paid can still come back';
  END IF;
  IF coalesce((SELECT e.status FROM payout_event AS e WHERE e.payout_id = NEW.payout_id ORDER BY e.id DESC LIMIT 1), 'pending') <> (SELECT status FROM payout WHERE id = NEW.payout_id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the last event of the payout has not reached its status';
  END IF;
  RETURN NEW;
END
$$
