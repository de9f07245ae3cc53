"""Statements as BI tools and models write them, and awkward objects that must not matter to them."""

from __future__ import annotations

AWKWARD = r"""
CREATE DOMAIN email AS text CHECK (value ~ '@');
CREATE FUNCTION is_email(text) RETURNS bool LANGUAGE plpgsql AS 'begin return true; end';
ALTER DOMAIN email ADD CHECK (is_email(value));
CREATE FUNCTION region(anyelement) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
CREATE FUNCTION amount(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION round(float8, int) RETURNS numeric LANGUAGE sql AS 'select round($1::numeric, $2)';
CREATE FUNCTION positive_amount(numeric) RETURNS bool LANGUAGE sql AS 'SELECT $1 > 0';
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE FUNCTION to_point(int) RETURNS point LANGUAGE sql AS 'SELECT point($1, $1)';
CREATE CAST (int AS point) WITH FUNCTION to_point(int);
CREATE TABLE customers (id int PRIMARY KEY, email email, name text, mood mood, tags text[],
    attrs hstore, profile jsonb, created timestamptz DEFAULT now());
CREATE TABLE sales (id int PRIMARY KEY, customer_id int REFERENCES customers, day date,
    amount numeric(12, 2) CHECK (positive_amount(amount)), quantity int, region text, product text,
    discount float8, paid boolean, period daterange, spot point, address inet, took interval);
INSERT INTO customers SELECT g, 'a' || g || '@x.org', 'Name ' || g, 'ok', ARRAY['a', 'b'], 'k=>1',
    '{"plan": "pro", "seats": 3, "features": ["a", "b"]}' FROM generate_series(1, 20) g;
INSERT INTO sales SELECT g, 1 + g % 20, date '2024-01-01' + g, g * 1.5, g, 'north', 'p' || g % 5,
    0.1, true, daterange(date '2024-01-01', date '2024-01-01' + g), point(g, g), '10.0.0.1', '1 hour'
    FROM generate_series(1, 100) g;
CREATE VIEW monthly AS SELECT date_trunc('month', day) AS month, region, sum(amount) AS total
    FROM sales GROUP BY 1, 2;
CREATE VIEW enriched AS SELECT s.*, c.name, c.email, c.mood FROM sales s
    JOIN customers c ON c.id = s.customer_id;
"""

GENERATED = [
    # Metabase
    'SELECT "public"."sales"."id" AS "id", "public"."sales"."day" AS "day" FROM "public"."sales" LIMIT 2000',
    'SELECT DATE_TRUNC(\'month\', "public"."sales"."day") AS "day", SUM("public"."sales"."amount") AS "sum" FROM "public"."sales" GROUP BY DATE_TRUNC(\'month\', "public"."sales"."day") ORDER BY DATE_TRUNC(\'month\', "public"."sales"."day") ASC',
    'SELECT "source"."region" AS "region", COUNT(*) AS "count" FROM (SELECT "public"."sales"."region" AS "region" FROM "public"."sales" WHERE "public"."sales"."amount" >= 10) AS "source" GROUP BY "source"."region" ORDER BY "count" DESC, "source"."region" ASC',
    'SELECT CAST("public"."sales"."day" AS date) AS "day", COUNT(distinct "public"."sales"."customer_id") AS "count" FROM "public"."sales" LEFT JOIN "public"."customers" AS "Customers" ON "public"."sales"."customer_id" = "Customers"."id" WHERE ("Customers"."email" LIKE \'%x.org\') GROUP BY CAST("public"."sales"."day" AS date)',
    'SELECT ((FLOOR((("public"."sales"."amount" - 0.0) / 20.0)) * 20.0) + 0.0) AS "amount", COUNT(*) AS "count" FROM "public"."sales" GROUP BY 1 ORDER BY 1',
    'SELECT PERCENTILE_CONT(0.95) within group (order by "public"."sales"."amount") AS "p95" FROM "public"."sales"',
    'SELECT SUM(CASE WHEN "public"."sales"."paid" = TRUE THEN 1 ELSE 0.0 END) / NULLIF(COUNT(*), 0) AS "share" FROM "public"."sales"',
    'SELECT (CAST(extract(dow from "public"."sales"."day") AS integer) + 1) AS "day", COUNT(*) FROM "public"."sales" GROUP BY 1',
    'SELECT "public"."customers"."profile" #>> array[\'plan\']::text[] AS "plan", COUNT(*) FROM "public"."customers" GROUP BY "public"."customers"."profile" #>> array[\'plan\']::text[]',
    'SELECT COALESCE("public"."sales"."region", \'none\') FROM "public"."sales" WHERE "public"."sales"."day" BETWEEN timestamp with time zone \'2024-01-01 00:00:00.000Z\' AND timestamp with time zone \'2024-12-31 00:00:00.000Z\'',
    # Superset
    "SELECT region AS region, sum(amount) AS \"SUM(amount)\" FROM public.sales WHERE day >= TO_DATE('2024-01-01', 'YYYY-MM-DD') AND day < TO_DATE('2025-01-01', 'YYYY-MM-DD') GROUP BY region ORDER BY \"SUM(amount)\" DESC LIMIT 10000",
    "SELECT DATE_TRUNC('week', day) AS day, AVG(amount) AS \"AVG(amount)\" FROM public.sales JOIN (SELECT region AS region__, sum(amount) AS mme_inner__ FROM public.sales GROUP BY region ORDER BY mme_inner__ DESC LIMIT 5) AS series_limit ON region = region__ GROUP BY DATE_TRUNC('week', day) LIMIT 1000",
    "SELECT * FROM (SELECT * FROM monthly) AS virtual_table WHERE month >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US') LIMIT 1000",
    'SELECT count(*) AS count FROM (SELECT "email" FROM customers GROUP BY 1) q',
    # Tableau, Power BI, Looker
    'SELECT CAST("sales"."region" AS TEXT) AS "region", SUM("sales"."amount") AS "sum:amount:ok" FROM "public"."sales" "sales" GROUP BY 1 HAVING (COUNT(1) > 0)',
    'SELECT TRUNC(EXTRACT(YEAR FROM "sales"."day")) AS "yr:day:ok", SUM(1) FROM "public"."sales" "sales" GROUP BY 1',
    'select "_"."region", "_"."amount" from (select "rows"."region" as "region", sum("rows"."amount") as "amount" from "public"."sales" "rows" group by "region") "_" order by "_"."region" limit 1001',
    'select "$Table"."id" as "id", "$Table"."email" as "email" from "public"."customers" "$Table" limit 1000',
    "SELECT (TO_CHAR(DATE_TRUNC('month', sales.day), 'YYYY-MM')) AS \"sales.month\", COALESCE(SUM(sales.amount), 0) AS \"sales.total\" FROM public.sales AS sales LEFT JOIN customers ON customers.id = sales.customer_id WHERE ((( sales.day ) >= ((DATE '2024-01-01')) AND ( sales.day ) < ((DATE '2024-01-01' + INTERVAL '1 year')))) GROUP BY (DATE_TRUNC('month', sales.day)) ORDER BY 1 DESC FETCH NEXT 500 ROWS ONLY",
    "SELECT COUNT(DISTINCT CASE WHEN sales.paid THEN sales.id ELSE NULL END) AS \"paid\" FROM sales",
    # Columns that are called like functions, types and domains
    "SELECT email FROM customers", "SELECT c.email FROM customers c", "SELECT customers.email FROM customers",
    "SELECT lower(c.email), length(c.email), c.email || '!' FROM customers c",
    "SELECT c.email, count(*) FROM customers c GROUP BY c.email ORDER BY c.email",
    "SELECT max(email), min(email), array_agg(email), count(DISTINCT email) FROM customers",
    "SELECT lag(email) OVER (ORDER BY id), first_value(email) OVER w FROM customers WINDOW w AS (ORDER BY id)",
    "SELECT coalesce(email, 'x@y'), nullif(email, ''), email = 'a1@x.org', email IN ('a', 'b') FROM customers",
    "SELECT CASE WHEN email LIKE 'a%' THEN email END FROM customers",
    "WITH c AS (SELECT email FROM customers) SELECT c.email FROM c WHERE c.email ~ '^a'",
    "SELECT c FROM customers c", "SELECT to_jsonb(c) FROM customers c", "SELECT row_to_json(c) FROM customers c",
    "SELECT s.region, s.amount FROM sales s", "SELECT region FROM sales GROUP BY region",
    "SELECT json_agg(c.email ORDER BY c.id) FROM customers c", "SELECT string_agg(c.email, ',') FROM customers c",
    "SELECT * FROM enriched", "enriched", "SELECT e.email, e.mood FROM enriched e ORDER BY e.mood, e.email LIMIT 3",
    "SELECT round(amount, 1), round(1.5, 1), round(amount) FROM sales", "SELECT round(avg(amount), 2) FROM sales",
    "SELECT mood, mood = 'ok', mood > 'sad', 'happy'::mood FROM customers c ORDER BY c.mood",
    "SELECT enum_range(NULL::mood), mood::text FROM customers",
    "SELECT s.id, s.spot, s.spot <-> point(0, 0) FROM sales s ORDER BY 3 LIMIT 2",
    "SELECT id FROM sales WHERE id = 1 AND customer_id IN (SELECT id FROM customers)",
    # Windows, ranges, arrays, JSON, dates
    "SELECT day, sum(amount) OVER (PARTITION BY region ORDER BY day RANGE BETWEEN interval '7 days' PRECEDING AND CURRENT ROW) FROM sales",
    "SELECT region, day, amount - lag(amount, 1, 0::numeric) OVER w AS change, avg(amount) OVER (w ROWS 6 PRECEDING) FROM sales WINDOW w AS (PARTITION BY region ORDER BY day)",
    "SELECT * FROM (SELECT s.*, row_number() OVER (PARTITION BY customer_id ORDER BY day DESC) rn FROM sales s) t WHERE rn = 1",
    "SELECT ntile(4) OVER (ORDER BY amount) AS quartile, amount FROM sales",
    "SELECT generate_series(date '2024-01-01', date '2024-03-01', interval '1 month')::date AS month",
    "WITH days AS (SELECT generate_series(min(day), max(day), '1 day')::date d FROM sales) SELECT d, coalesce(sum(amount), 0) FROM days LEFT JOIN sales ON day = d GROUP BY d ORDER BY d",
    "SELECT period, lower(period), period @> date '2024-01-02', upper_inf(period) FROM sales WHERE period && daterange('2024-01-01', '2024-02-01')",
    "SELECT range_agg(period), range_intersect_agg(period) FROM sales",
    "SELECT unnest(tags) AS tag, count(*) FROM customers GROUP BY 1", "SELECT 'a' = ANY (tags), tags @> ARRAY['a'], tags[1], array_length(tags, 1) FROM customers",
    "SELECT attrs -> 'k', attrs ? 'k', hstore_to_json(attrs), akeys(attrs) FROM customers", "SELECT (each(attrs)).key FROM customers", "SELECT hstore('a', 'b') || attrs, attrs - 'k'::text FROM customers",
    "SELECT profile ->> 'plan', (profile -> 'seats')::int, jsonb_array_length(profile -> 'features') FROM customers",
    "SELECT profile @? '$.features[*] ? (@ == \"a\")', jsonb_path_query_first(profile, '$.seats') FROM customers",
    "SELECT f FROM customers, jsonb_array_elements_text(profile -> 'features') AS f", "SELECT key, value FROM customers, jsonb_each(profile) WHERE id = 1",
    "SELECT x.* FROM customers, jsonb_to_record(profile) AS x(plan text, seats int)", "SELECT jsonb_object_agg(id, name), jsonb_agg(profile) FROM customers",
    "SELECT JSON_VALUE(profile, '$.plan'), JSON_EXISTS(profile, '$.seats') FROM customers", "SELECT jsonb_build_object('id', id, 'tags', tags, 'mood', mood, 'mail', email) FROM customers",
    "SELECT age(max(day), min(day)), date_part('week', max(day)), max(day) - min(day) FROM sales", "SELECT to_char(day, 'Mon YYYY'), extract(isodow FROM day), day + interval '1 month' FROM sales",
    "SELECT created AT TIME ZONE 'Europe/Berlin', created::date, date_trunc('hour', created, 'UTC') FROM customers", "SELECT make_interval(hours => 2) + took, justify_hours(took), extract(epoch FROM took) FROM sales",
    "SELECT address << inet '10.0.0.0/8', host(address), masklen(address) FROM sales", "SELECT discount::numeric, discount * amount, power(discount, 2), ln(amount), exp(0.1) FROM sales",
    "SELECT region, product, sum(amount) FROM sales GROUP BY ROLLUP (region, product) ORDER BY 1 NULLS LAST, 2", "SELECT region, product, paid, sum(amount), grouping(region, product, paid) FROM sales GROUP BY CUBE (region, product, paid)",
    "SELECT region, sum(amount) FILTER (WHERE paid), sum(amount) FILTER (WHERE NOT paid) FROM sales GROUP BY region", "SELECT mode() WITHIN GROUP (ORDER BY region), percentile_disc(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY amount) FROM sales",
    "SELECT corr(quantity, amount), regr_slope(amount, quantity), regr_intercept(amount, quantity), covar_samp(quantity, amount) FROM sales", "SELECT width_bucket(amount, 0, 150, 10) AS bucket, count(*), min(amount), max(amount) FROM sales GROUP BY 1 ORDER BY 1",
    "SELECT similarity(name, 'Name 1'), name % 'Name', word_similarity('a', name) FROM customers",
    "SELECT soundex(name), levenshtein(name, 'Name'), metaphone(name, 5) FROM customers", "SELECT unaccent(name) FROM customers", "SELECT encode(sha256(name::bytea), 'hex'), md5(name), sha512('a') FROM customers",
    "SELECT 'a.b'::ltree @> 'a.b.c', nlevel('a.b.c'::ltree)", "SELECT cube(ARRAY[1, 2]) <-> cube(ARRAY[3, 4]), earth_distance(ll_to_earth(0, 0), ll_to_earth(1, 1))", "SELECT 'Foo'::citext = 'foo'",
    "SELECT gen_random_uuid() IS NOT NULL, random() < 1", "SELECT intset(5), sort(ARRAY[3, 1]), ARRAY[1, 2] & ARRAY[2]", "SELECT '978-0-393-04002-9'::isbn, '1..3'::seg",
    "SELECT query, calls FROM pg_stat_statements LIMIT 5", "SELECT xmin, ctid FROM sales", "SELECT relname, n_live_tup, last_analyze FROM pg_stat_user_tables ORDER BY 2 DESC",
    "SELECT schemaname, tablename, pg_size_pretty(pg_total_relation_size(format('%I.%I', schemaname, tablename)::regclass)) FROM pg_tables WHERE schemaname = 'public'",
    "SELECT a.attname, format_type(a.atttypid, a.atttypmod), col_description(a.attrelid, a.attnum) FROM pg_attribute a WHERE a.attrelid = 'sales'::regclass AND a.attnum > 0", "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'sales'::regclass",
    "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'sales'", "SELECT n.nspname, c.relname, c.relkind FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v') AND n.nspname !~ '^pg_toast' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1, 2",
    "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database()", "SELECT * FROM information_schema.referential_constraints", "SELECT current_setting('TimeZone'), version(), pg_postmaster_start_time()",
    "EXPLAIN (ANALYZE false, FORMAT JSON) SELECT * FROM enriched", "EXPLAIN (ANALYZE off, TIMING off, BUFFERS false) SELECT 1", "EXPLAIN (ANALYZE 0) TABLE sales", "EXPLAIN VERBOSE (SELECT 1)",
    "SELECT count(*) FROM sales TABLESAMPLE system (50)", "SELECT (SELECT count(*) FROM sales s WHERE s.customer_id = c.id), c.name FROM customers c ORDER BY 1 DESC", "SELECT * FROM sales s WHERE NOT EXISTS (SELECT 1 FROM customers c WHERE c.id = s.customer_id AND c.name IS NULL)",
    "SELECT DISTINCT ON (customer_id) customer_id, day, amount FROM sales ORDER BY customer_id, day DESC", "SELECT region FROM sales EXCEPT SELECT 'south' INTERSECT ALL SELECT 'north'", "SELECT greatest(amount, 10), least(quantity, 5), amount BETWEEN SYMMETRIC 10 AND 5 FROM sales",
    "SELECT format('%s: %s', region, sum(amount)) FROM sales GROUP BY region", "SELECT concat_ws(', ', region, product), left(product, 1), right(region, 2), initcap(region), split_part(product, 'p', 2) FROM sales", "SELECT regexp_replace(email, '@.*', ''), substring(email from '@(.*)'), position('@' in email) FROM customers",
]  # fmt: skip
