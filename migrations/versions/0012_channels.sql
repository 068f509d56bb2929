ALTER TABLE contract_term ADD COLUMN channel TEXT CONSTRAINT ck_contract_term_channel CHECK (channel IN ('csv', 'pain001', 'paypal', 'wise'));
