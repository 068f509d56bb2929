CREATE TABLE payout_void (
  id INTEGER NOT NULL CONSTRAINT ck_payout_void_id CHECK (id >= 1),
  payout_id INTEGER NOT NULL,
  goes_to TEXT NOT NULL CONSTRAINT ck_payout_void_goes_to CHECK (goes_to IN ('provider', 'house', 'escrow')),
  reason TEXT NOT NULL CONSTRAINT ck_payout_void_reason CHECK (length(reason) >= 1),
  txn_id INTEGER NOT NULL,
  recorded_at TEXT NOT NULL CONSTRAINT ck_payout_void_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_payout_void PRIMARY KEY (id),
  CONSTRAINT fk_payout_void_payout_id FOREIGN KEY(payout_id) REFERENCES payout (id),
  CONSTRAINT fk_payout_void_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id),
  CONSTRAINT uq_payout_void_payout_id UNIQUE (payout_id)
) STRICT;
