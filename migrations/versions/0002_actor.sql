ALTER TABLE ledger_txn ADD COLUMN actor TEXT CONSTRAINT ck_ledger_txn_actor CHECK (length(actor) BETWEEN 1 AND 128);
ALTER TABLE seal ADD COLUMN actor TEXT CONSTRAINT ck_seal_actor CHECK (length(actor) BETWEEN 1 AND 128);
