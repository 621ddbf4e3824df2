-- The demo's data, made at the primary: a small shop.
CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers(id), cents INTEGER NOT NULL, placed TEXT NOT NULL);
CREATE INDEX orders_by_customer ON orders(customer_id);
CREATE VIEW best_customers AS SELECT name, count(*) AS orders, sum(cents) / 100.0 AS total FROM customers JOIN orders ON orders.customer_id = customers.id GROUP BY customers.id ORDER BY total DESC, name LIMIT 3;
WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO customers SELECT i, 'customer ' || i, CASE i % 3 WHEN 0 THEN 'Oslo' WHEN 1 THEN 'Lagos' ELSE 'Lima' END FROM n;
WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO orders SELECT i, 1 + i * 7919 % 500, 500 + i * i % 20011, date('2026-01-01', '+' || (i % 300) || ' days') FROM n;
