DROP TRIGGER payout_event_insert

CREATE TRIGGER payout_event_insert BEFORE INSERT ON payout_event
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: only a payout that is pending or failed can be exported')
    WHERE NEW.status = 'exported' AND (SELECT status FROM payout WHERE id = NEW.payout_id) NOT IN ('pending', 'failed');
  SELECT RAISE(ABORT, 'credit refuses: a payout is paid or fails once, in its last batch; one that was paid can still come back')
    WHERE NEW.status <> 'exported' AND (NOT ((SELECT status FROM payout WHERE id = NEW.payout_id) = 'exported' OR ((SELECT status FROM payout WHERE id = NEW.payout_id) = 'paid' AND NEW.status = 'failed')) OR NEW.batch_id <> (SELECT e.batch_id FROM payout_event AS e WHERE e.payout_id = NEW.payout_id ORDER BY e.id DESC LIMIT 1));
  SELECT RAISE(ABORT, 'credit refuses: the last event of the payout has not reached its status')
    WHERE coalesce((SELECT e.status FROM payout_event AS e WHERE e.payout_id = NEW.payout_id ORDER BY e.id DESC LIMIT 1), 'pending') <> (SELECT status FROM payout WHERE id = NEW.payout_id);
  SELECT RAISE(ABORT, 'credit refuses: this row of payout_event exists already')
    WHERE EXISTS (SELECT 1 FROM payout_event WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM payout_event WHERE payout_id = NEW.payout_id AND batch_id = NEW.batch_id AND status = NEW.status);
END
