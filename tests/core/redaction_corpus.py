"""What must be masked, and what must not; `@S@` stands for a secret."""

from __future__ import annotations

SECRETS = ("hunter2", "s3cr3t/+Zq==", "correct.horse-battery_staple~9")
"""A plain word, one as base64 makes them, one of every character that URLs leave alone."""

NAMES = [
    "password",
    "Password",
    "PASSWORD",
    "passwd",
    "pwd",
    "pass",
    "passphrase",
    "pass_phrase",
    "passcode",
    "db_password",
    "dbPassword",
    "DB_PASSWORD",
    "user.password",
    "user-password",
    "userPassword",
    "password1",
    "password_2",
    "old_password",
    "new-password",
    "password_confirm",
    "PGPASSWORD",
    "MYSQL_PWD",
    "sslpassword",
    "keystore_password",
    "truststorePassword",
    "smtp_pass",
    "root_pw",
    "db_pw",
    "secret",
    "client_secret",
    "clientSecret",
    "CLIENT-SECRET",
    "app_secret",
    "aws_secret_access_key",
    "AWS_SECRET_ACCESS_KEY",
    "secretAccessKey",
    "shared_secret",
    "webhook_secret",
    "secret_key",
    "SECRET_KEY_BASE64",
    "token",
    "access_token",
    "accessToken",
    "refresh_token",
    "id_token",
    "auth_token",
    "api_token",
    "bearer_token",
    "session_token",
    "security_token",
    "x-auth-token",
    "X-Amz-Security-Token",
    "csrf_token",
    "sas_token",
    "SasToken",
    "oauth_token",
    "personal_access_token",
    "key",
    "api_key",
    "apikey",
    "apiKey",
    "API-KEY",
    "x-api-key",
    "account_key",
    "AccountKey",
    "accountKey",
    "access_key",
    "accessKey",
    "shared_access_key",
    "SharedAccessKey",
    "private_key",
    "privateKey",
    "encryption_key",
    "signing_key",
    "master_key",
    "subscription_key",
    "Ocp-Apim-Subscription-Key",
    "x-functions-key",
    "license_key",
    "storage_account_key",
    "storageAccountKey",
    "ssh_key",
    "host_key",
    "primaryMasterKey",
    "key_data",
    "client-key-data",
    "private_key_pem",
    "private_key_file_content",
    "service_account_json",
    "sas",
    "sas_url",
    "SAS",
    "sig",
    "signature",
    "X-Amz-Signature",
    "x-goog-signature",
    "SharedAccessSignature",
    "connection_string",
    "connectionString",
    "ConnectionString",
    "conn_str",
    "connstr",
    "conninfo",
    "dsn",
    "DATABASE_URL",
    "database_uri",
    "credential",
    "credentials",
    "creds",
    "aws_credentials",
    "credentials_json",
    "X-Amz-Credential",
    "auth",
    "basic_auth",
    "authorization",
    "Authorization",
    "Proxy-Authorization",
    "authentication",
    "cookie",
    "Set-Cookie",
    "session_id",
    "sessionid",
    "PHPSESSID",
    "jwt",
    "JWT",
    "bearer",
    "pin",
    "pin_code",
    "otp",
    "totp",
    "cvv",
    "cvc",
    "salt",
    "hmac",
    "pem",
    "pfx",
    "p12",
    "mnemonic",
    "recovery_codes",
    "auth_code",
    "authorization_code",
    "verification_code",
    "webhook_url",
    "kubeconfig",
    "password_hash",
    "token_hash",
    "passwort",
    "kennwort",
]
"""Options whose value is a secret whatever it looks like."""

HARMLESS_NAMES = [
    "host",
    "hostname",
    "port",
    "user",
    "username",
    "user_name",
    "account",
    "account_name",
    "database",
    "dbname",
    "schema",
    "table",
    "container",
    "bucket",
    "region",
    "endpoint",
    "url",
    "path",
    "prefix",
    "name",
    "title",
    "description",
    "author",
    "authority",
    "author_name",
    "key_name",
    "key_id",
    "key_file",
    "key_path",
    "keyspace",
    "keyword",
    "keywords",
    "keys",
    "primary_key",
    "primaryKey",
    "foreign_key",
    "foreign_keys",
    "public_key",
    "ssh_public_key",
    "partition_key",
    "sort_key",
    "sort_keys",
    "cache_key",
    "row_key",
    "object_key",
    "unique_key",
    "token_count",
    "token_type",
    "token_url",
    "max_tokens",
    "total_tokens",
    "tokenizer",
    "secretary",
    "secret_name",
    "passenger",
    "passive",
    "passport_country",
    "password_file",
    "password_policy",
    "tenant_id",
    "client_id",
    "subscription_id",
    "sslmode",
    "sslrootcert",
    "connect_timeout",
    "connection",
    "connections",
    "connection_timeout",
    "signal",
    "design",
    "assigned",
    "pinned",
    "opinion",
    "mapping",
    "spinner",
    "keyboard",
    "monitor",
    "timeout",
    "retries",
    "version",
    "etag",
    "content_type",
    "encoding",
    "delimiter",
    "code",
    "status",
    "sqlstate",
    "error_code",
    "authenticator",
    "auth_type",
    "auth_mode",
    "sasl_mechanism",
    "saltwater",
    "pemberton",
    "designer",
    "pathway",
    "driver",
    "format",
    "compression",
    "max_size",
    "page",
    "limit",
    "offset",
]
"""Options whose value is shown."""

TEXTS = r"""
://bob:@S@@db.example.com/sales
postgresql://bob:@S@@db.example.com/sales
postgresql://bob:@S@@db.example.com:5432/sales?sslmode=require
postgres://bob@server:@S@@server.postgres.database.azure.com/sales
postgresql+psycopg://bob:@S@@h1:5432,h2:5432/sales
postgresql+asyncpg://bob:@S@@[::1]:5432/sales
postgresql://h/sales?user=bob&password=@S@
postgresql://h/sales?password=@S@&sslmode=require
postgresql:///sales?host=/tmp&user=bob&password=@S@
mysql://bob:@S@@db/sales
mysql+pymysql://bob:@S@@db/sales?charset=utf8mb4
mssql+pyodbc://sa:@S@@db/sales?driver=ODBC+Driver+18
oracle://scott:@S@@db:1521/orcl
mongodb+srv://bob:@S@@cluster0.example.net/?retryWrites=true
redis://:@S@@cache:6379/0
rediss://default:@S@@cache:6380
amqp://bob:@S@@mq:5672/%2F
amqps://bob:@S@@mq/vhost
snowflake://bob:@S@@account/db/schema?warehouse=w
bigquery://bob:@S@@project
ftp://bob:@S@@files.example.com/in
sftp://bob:@S@@files.example.com:22/in
smtp://bob:@S@@mail:587
https://bob:@S@@example.com/path
https://bob:@S@@example.com:8443/path?page=2
http://x-access-token:@S@@git.example.com/a/b.git
ldap://cn=admin:@S@@ldap:389
clickhouse://bob:@S@@h:8123/default
jdbc:postgresql://h:5432/sales?user=bob&password=@S@
jdbc:mysql://h/sales?user=bob&password=@S@&useSSL=true
jdbc:sqlserver://h:1433;databaseName=sales;user=sa;password=@S@;encrypt=true
jdbc:oracle:thin:scott/@S@@db:1521:orcl
sqlserver://sa:@S@@h:1433?database=sales
bob:@S@@tcp(127.0.0.1:3306)/sales
connect to postgresql://bob:@S@@h/d failed: timeout
"postgresql://bob:@S@@h/d"
'postgresql://bob:@S@@h/d'
<postgresql://bob:@S@@h/d>
url=postgresql://bob:@S@@h/d, retries=3
could not translate host name in postgresql://bob:@S@@h/d to address
cannot parse 'redis://:@S@@cache/0' as a URL
host=db port=5432 user=bob password=@S@ dbname=sales
host=db port=5432 user=bob password='@S@' dbname=sales
host=db password = '@S@' dbname=sales
password=@S@
password='@S@'
user=bob passfile=/x password=@S@ sslpassword=@S@ sslmode=verify-full
conninfo "host=db user=bob password=@S@"
invalid dsn: invalid connection option "pasword" in 'host=db password=@S@ pasword=x'
PGPASSWORD=@S@ psql -h db -U bob
export DB_PASSWORD=@S@
export DB_PASSWORD="@S@"
set PGPASSWORD=@S@
$env:DB_PASSWORD='@S@'
-e POSTGRES_PASSWORD=@S@
POSTGRES_USER=bob POSTGRES_PASSWORD=@S@ docker compose up
DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=@S@;EndpointSuffix=core.windows.net
AccountName=acct;AccountKey=@S@
AccountName=acct;accountkey=@S@;BlobEndpoint=http://127.0.0.1:10000/acct;
BlobEndpoint=https://acct.blob.core.windows.net;SharedAccessSignature=sv=2024-11-04&sp=r&sig=@S@
BlobEndpoint=https://acct.blob.core.windows.net/;SharedAccessSignature=sig=@S@&sv=2024-11-04
Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=@S@
HostName=hub.azure-devices.net;DeviceId=d;SharedAccessKey=@S@
InstrumentationKey=@S@;IngestionEndpoint=https://x
Server=tcp:h,1433;Database=sales;User ID=bob;Password=@S@;Encrypt=True;
Server=h;Database=sales;Uid=bob;Pwd=@S@;
Server=h;Database=sales;Uid=bob;Pwd={@S@};
Driver={ODBC Driver 18 for SQL Server};Server=h;UID=bob;PWD={@S@};Encrypt=yes
Provider=SQLOLEDB;Data Source=h;Password="@S@";User Id=bob
Data Source=h;User Id=bob;Password='@S@'
Account Key=@S@;Account Name=acct
Host=h;Username=bob;Password=@S@;Database=sales
cache.example.com:6380,password=@S@,ssl=True,abortConnect=False
https://acct.blob.core.windows.net/c?sv=2024-11-04&sr=c&sp=rl&sig=@S@
https://acct.blob.core.windows.net/c?sig=@S@&sv=2024-11-04&sp=rl
https://acct.blob.core.windows.net/c/b.csv?se=2030-01-01T00%3A00%3A00Z&sig=@S@&sp=r
?sv=2024-11-04&sp=rl&sig=@S@
sv=2024-11-04&sig=@S@&se=2030-01-01
"GET /c?restype=container&comp=list&sig=@S@ HTTP/1.1" 200 None
https://bucket.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=@S@
https://bucket.s3.amazonaws.com/k?X-Amz-Credential=@S@&X-Amz-Date=20240101T000000Z
https://bucket.s3.amazonaws.com/k?X-Amz-Security-Token=@S@&X-Amz-Date=20240101T000000Z
https://bucket.s3.amazonaws.com/k?AWSAccessKeyId=x&Expires=1&Signature=@S@
https://storage.googleapis.com/b/o?X-Goog-Signature=@S@
https://d111.cloudfront.net/x?Expires=1&Signature=@S@&Key-Pair-Id=K
https://api.example.com/v1?api_key=@S@
https://api.example.com/v1?apikey=@S@&page=2
https://api.example.com/v1?key=@S@
https://api.example.com/v1?page=2&key=@S@
https://api.example.com/v1?access_token=@S@#top
https://api.example.com/cb#access_token=@S@&token_type=bearer
https://api.example.com/v1?token=@S@
https://api.example.com/v1?client_id=a&client_secret=@S@
https://login.example.com/?redirect=https%3A%2F%2Fapp%2F%3Ftoken%3D@S@
grant_type=client_credentials&client_id=a&client_secret=@S@
grant_type=password&username=bob&password=@S@&scope=all
x=https%3A%2F%2Fh%2Fc%3Fsp%3Dr%26sig%3D@S@%26se%3D1
x=https%253A%252F%252Fh%252Fc%253Fsig%253D@S@%2526se%253D1
password%3D@S@
Authorization: Bearer @S@
Authorization: Basic @S@
Authorization: SharedKey acct:@S@
Authorization: AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=@S@
Authorization: Digest username="bob", realm="r", response="@S@"
Authorization: @S@
authorization=@S@
Proxy-Authorization: Basic @S@
Cookie: session=@S@; theme=dark
Set-Cookie: sid=@S@; HttpOnly
X-Api-Key: @S@
x-functions-key: @S@
Ocp-Apim-Subscription-Key: @S@
x-ms-copy-source: https://acct.blob.core.windows.net/c/b?sig=@S@
curl -H 'Authorization: Bearer @S@' https://h/
curl -H "X-Api-Key: @S@" https://h/
curl -u bob:@S@ https://h/
curl --user bob:@S@ https://h/
headers={'Authorization': 'Bearer @S@', 'Accept': '*/*'}
Request headers: {'x-ms-version': '2024-11-04', 'Authorization': 'SharedKey acct:@S@'}
[(b'Authorization', b'Bearer @S@'), (b'Accept', b'*/*')]
Headers([('host', 'h'), ('authorization', '@S@')])
sent 'Bearer @S@'
using bearer @S@ for h
{"password": "@S@"}
{"password":"@S@","port":5432}
{'password': '@S@', 'port': 5432}
{"user": "bob", "auth": {"password": "@S@"}}
{"credentials": {"a": {"b": "@S@"}, "c": ["@S@"]}, "port": 5432}
{"credentials": ["@S@", "@S@"]}
{'tokens': ('@S@', '@S@'), 'port': 1}
{"secret" : "@S@"}
{"secret":\t"@S@"}
{ "api_key" : '@S@' }
{\"password\": \"@S@\", \"port\": 5432}
{\\\"password\\\": \\\"@S@\\\"}
"{'password': '@S@'}"
"password"=>"@S@", "host"=>"h"
{"name": "password", "value": "@S@"}
[{"name": "host", "value": "h"}, {"name": "DB_PASSWORD", "value": "@S@"}]
{"key": "client_secret", "value": "@S@"}
dict(host='h', password='@S@')
connect(host='h', password='@S@', port=5432)
Options(host='h', password=SecretStr('@S@'))
Config(password=b'@S@')
password=r'@S@'
password := '@S@'
password => '@S@'
password == '@S@'
password != '@S@'
('password', '@S@')
["password", "@S@"]
password: @S@
password: "@S@"
password : '@S@'
  password: @S@\n  port: 5432
password: |\n  @S@\nport: 5432
secret: >-\n    @S@\n    @S@\nport: 5432
token: @S@, host: h
invalid token: @S@
no luck, token: @S@
Unexpected token=@S@
the password is wrong (password=@S@)
[password=@S@]
<password>@S@</password>
<Password>@S@</Password><Host>h</Host>
<wsse:Password Type="PasswordText">@S@</wsse:Password>
<add key="ClientSecret" value="@S@" />
<input name="password" value="@S@">
<Key>AccountKey</Key> AccountKey="@S@"
Content-Disposition: form-data; name="password"\r\n\r\n@S@\r\n--b
tool --password @S@ --host h
tool --password=@S@ --host h
tool --api-key "@S@" h
tool --client-secret '@S@'
tool -password @S@
['tool', '--password', '@S@', '--host', 'h']
["tool", "--token=@S@", "h"]
CREATE ROLE bob LOGIN PASSWORD '@S@'
ALTER USER bob WITH ENCRYPTED PASSWORD '@S@' VALID UNTIL 'infinity'
ALTER ROLE bob PASSWORD E'@S@'
CREATE USER bob IDENTIFIED BY '@S@'
CREATE USER MAPPING FOR bob SERVER s OPTIONS (user 'bob', password '@S@')
SELECT dblink_connect('host=h user=bob password=@S@')
SELECT * FROM users WHERE password = '@S@'
SELECT * FROM users WHERE token <> '@S@'
SET client_secret = '@S@'
COPY t FROM 's3://b/k' CREDENTIALS = (AWS_KEY_ID='a' AWS_SECRET_KEY='@S@')
COPY t FROM 's3://b/k' WITH (secret_access_key '@S@', password '@S@')
OperationalError: connection to server at "h" failed: FATAL: password=@S@ rejected
ValueError: invalid literal for int() with base 10: 'port=5432 password=@S@'
KeyError: "password='@S@'"
psycopg.ProgrammingError: missing "=" after "x" in connection info string password=@S@
sqlalchemy.exc.ArgumentError: Could not parse 'postgresql://bob:@S@@h:abc/d'
azure.core.exceptions.ClientAuthenticationError: sig=@S@ is not well formed
HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /c?comp=list&sig=@S@ (x)
requests.exceptions.ConnectionError: https://bob:@S@@h/ (Caused by NewConnectionError())
Traceback: connect("postgresql://bob:@S@@h/d")
  File "x.py", line 3, in f\n    connect(password="@S@")\n
DEBUG:urllib3.connectionpool:https://h:443 "GET /c?sv=1&sig=@S@ HTTP/1.1" 403 None
INFO connecting with {'host': 'h', 'password': '@S@'} attempt=2
2024-01-01 00:00:00 INFO dsn=postgresql://bob:@S@@h/d pool=4
2024-01-01T00:00:00Z level=debug msg="login" user=bob token="@S@" status=200
{"level": "info", "msg": "login", "ctx": {"accessToken": "@S@"}, "status": 200}
time=1 token=@S@ status=200
audit user=bob op=add options={"account_key": "@S@", "container": "c"}
spring.datasource.password=@S@
spring.datasource.password: @S@
ConnectionStrings__Default=Server=h;Password=@S@
ConnectionStrings:Default="Server=h;Password=@S@;"
app.config['SECRET_KEY'] = '@S@'
settings.secret_key = "@S@"
os.environ["API_TOKEN"] = "@S@"
const apiKey = "@S@";
//registry.example.com/:_authToken=@S@
aws_access_key_id = x\naws_secret_access_key = @S@\n
[default]\ntoken = @S@\nregion = eu\n
""".strip("\n").splitlines()
TEXTS = [text.replace(r"\n", "\n").replace(r"\r", "\r").replace(r"\t", "\t") for text in TEXTS]
"""Texts that hold a secret, as it comes in options, logs and errors."""

SHAPES = (
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nx\n-----END PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEEIA==\\n-----END EC PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQOYBF\n-----END PGP PRIVATE KEY BLOCK-----",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ASIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_" + "11ABCDEFG0123456789_abcdefghijk",
    "glpat-" + "ABCdef123456ghi789JK",
    "xoxb-" + "123456789012-abcdefghijklmnop",
    "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "sk-proj-" + "abcdefghijklmnop1234567890ABCD",
    "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "ya29." + "a0AfH6SMBx1234567890",
    "hf_" + "abcdefghijklmnopqrstuvwxyz12345678",
    "npm_" + "abcdefghijklmnopqrstuvwxyz1234567890",
    "dapi" + "0123456789abcdef0123456789abcdef",
    "SG." + "abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
    "GOCSPX-" + "abcdefghijklmnop",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
)
"""Secrets that are known by their looks, wherever they stand."""

HARMLESS = """
password authentication failed for user "bob"
FATAL: password authentication failed for user "bob"
fe_sendauth: no password supplied
no password supplied
the password must be changed before logging in
SQLSTATE 28P01: password authentication failed
SQLSTATE[42P01]: relation "sales" does not exist
server said code=42P01 for item 'sales'
ERROR: relation "sales" does not exist (code=42P01, position=15)
error code: 42P01
https://docs.example.com/errors?code=42P01
duplicate key value violates unique constraint "pk_customer_orders_by_region_2024"
DETAIL: Key (id)=(5) already exists.
null value in column "key" of relation "settings" violates not-null constraint
column "password" does not exist
relation "tokens" already exists
syntax error at or near "token"
permission denied for table secrets
primary key=5
foreign_key=12
key_name=report-2024.csv
token_count: 4096
max_tokens=4096
keys: 12
key: value
the key: see the manual
auth: disabled
authentication: required
pass: 3, fail: 0
author: Jane Doe
authority=login.example.com
tokenizer=cl100k
secretary: Mr Smith
port: 5432
host=db.example.com port=5432 dbname=sales sslmode=require
postgresql://db.example.com:5432/sales
postgresql://bob@db.example.com:5432/sales
https://host/path?page=2
https://host:8443/path?page=2&size=10
https://host:8080/users/bob@example.com
http://127.0.0.1:10000/devstoreaccount1/container/blob.csv
https://acct.blob.core.windows.net/c/b.csv?sv=2024-11-04&sp=r&se=2030-01-01
https://git.example.com/a/b.git@main
s3://bucket/data/2024/sales.csv
mailto:bob@example.com
write to bob@example.com or alice@example.com
git@github.com:org/repo.git
image: registry/app:1.2@sha256:0123456789abcdef
2024-01-01 12:34:56,789 INFO fetch took 1.5 s
basic authentication is not supported
Basic Authentication required
the basic settings are enough
bearer authentication required
a bearer token is needed
the token has expired
Unexpected token: '}'
SyntaxError: unexpected token: identifier
no token: X
the account key is not base64
option 'password' is missing; options: host, password, port
unknown option 'pasword'; options: host, password, port
source 'sales' has no such table
no connector for 'mysql'; installed: azure_blob, postgresql
limit 'max_bytes' must not be negative; None lifts it
password=${env:DB_PASSWORD}
${file:/run/secrets/db}
${secret:db/password}
password=None
{"password": null, "token": ""}
password=''
SELECT password, token FROM users
SELECT password::text FROM users
select replace(key, 'a', 'b') from t
COPY (SELECT 1) TO STDOUT
FileNotFoundError: [Errno 2] No such file or directory: '/data/keys/list.csv'
sha256:8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4
etag="0x8DC5A1B2C3D4E5F"
content-md5: Q2hlY2sgSW50ZWdyaXR5IQ==
id 123e4567-e89b-12d3-a456-426614174000
monthly keyboard sales, design and signals
spin=3 opinion=good
a=b&c=d;e=f
x <y> z
100% done: 5/5
""".strip("\n").splitlines()
"""Texts that must come through as they are."""
