"""Geometry leaves a database with PostGIS as psql writes it, by the queries that people ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from datasources import Workspace
from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import configured
from tests.servers import Database

SEED = """
CREATE TABLE IF NOT EXISTS cities (id int PRIMARY KEY, name text, place geometry(Point, 4326));
INSERT INTO cities VALUES
    (1, 'Berlin', ST_SetSRID(ST_MakePoint(13.4, 52.5), 4326)),
    (2, 'Hamburg', ST_SetSRID(ST_MakePoint(10.0, 53.55), 4326)),
    (3, 'Munich', ST_SetSRID(ST_MakePoint(11.58, 48.14), 4326)),
    (4, 'nowhere', NULL);
CREATE TABLE areas AS SELECT 1 AS id, ST_Buffer(place::geography, 50000) AS area
    FROM cities WHERE id = 1;
CREATE INDEX ON cities USING gist (place);
CREATE VIEW near_berlin AS SELECT c.name FROM cities c JOIN areas a
    ON ST_Covers(a.area, c.place::geography);
ANALYZE;
"""
QUERIES = [
    "SELECT * FROM cities",
    "SELECT * FROM areas",
    "SELECT * FROM near_berlin",
    "SELECT name, ST_AsText(place), ST_AsGeoJSON(place), ST_AsEWKT(place) FROM cities",
    "SELECT name, ST_X(place), ST_Y(place), ST_SRID(place), ST_GeometryType(place) FROM cities",
    "SELECT name FROM cities ORDER BY place <-> ST_SetSRID(ST_MakePoint(9, 48), 4326) LIMIT 2",
    "SELECT name FROM cities WHERE place && ST_MakeEnvelope(10, 48, 12, 54, 4326) ORDER BY name",
    (
        "SELECT a.name, b.name, round(ST_Distance(a.place::geography, b.place::geography)::numeric)"
        " FROM cities a JOIN cities b ON a.id < b.id ORDER BY 1, 2"
    ),
    "SELECT name FROM cities WHERE ST_DWithin(place::geography, 'POINT(10 53)'::geography, 70000)",
    "SELECT ST_AsText(ST_Transform(place, 3857), 2) FROM cities",
    "SELECT ST_Area(area), ST_Perimeter(area), ST_IsValid(area::geometry) FROM areas",
    "SELECT ST_Extent(place), ST_AsText(ST_Union(place)) FROM cities",
    "SELECT encode(ST_AsMVTGeom(place, ST_MakeEnvelope(5, 45, 15, 55))::bytea, 'hex') FROM cities",
    "SELECT ST_AsGeoJSON(c) FROM cities c",
    "SELECT (ST_DumpPoints(area::geometry)).path FROM areas LIMIT 3",
    "SELECT srid, auth_name, proj4text FROM spatial_ref_sys WHERE srid = 4326",
    "SELECT f_table_name, f_geometry_column, srid, type FROM geometry_columns ORDER BY 1",
]
AGGREGATES = [
    "SELECT ST_AsText(ST_Collect(place)) FROM cities",
    "SELECT ST_AsText(ST_MakeLine(place ORDER BY id)) FROM cities",
    "SELECT ST_NumGeometries(unnest(ST_ClusterWithin(place, 1))) FROM cities",
]


@pytest.fixture(scope="module")
def cities(field_postgis: Database) -> Database:
    with psycopg.connect(field_postgis.dsn(), autocommit=True) as connection:
        connection.execute(SEED)
    return field_postgis


@pytest.fixture
async def gis(cities: Database) -> AsyncIterator[PostgreSQLConnector]:
    connector = configured(cities)
    await connector.connect()
    yield connector
    await connector.disconnect()


@pytest.mark.parametrize(
    "query",
    [
        *QUERIES,
        *AGGREGATES,
    ],
)
async def test_result_is_what_the_server_writes(
    cities: Database, gis: PostgreSQLConnector, workspace: Workspace, query: str
) -> None:
    path = await gis.fetch_data(query, workspace)
    assert Path(path).read_bytes() == written_by_server(cities, query)


async def test_geometry_column_is_listed_and_described(gis: PostgreSQLConnector) -> None:
    paths = [item.path for item in await gis.list_items()]
    assert {"public.cities", "public.areas", "public.near_berlin"} <= set(paths)
    columns = (await gis.get_metadata("cities"))["columns"]
    assert [column["type"] for column in columns] == ["integer", "text", "geometry(Point,4326)"]


async def test_preview_and_parquet_hold_geometry_as_the_server_writes_it(
    cities: Database, gis: PostgreSQLConnector, workspace: Workspace
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with psycopg.connect(cities.dsn()) as connection:
        texts = connection.execute("SELECT place::text FROM cities ORDER BY id").fetchall()
    expected = [text for (text,) in texts]
    query = "SELECT place FROM cities ORDER BY id"
    assert [value for (value,) in (await gis.preview(query)).rows] == expected
    path = await gis.fetch_data(query, Workspace(workspace, file_format="parquet"))
    assert parquet.read_table(path).column("place").to_pylist() == expected


async def test_statistics_of_a_table_with_geometry_are_of_its_numbers(
    gis: PostgreSQLConnector,
) -> None:
    assert list(await gis.statistics("cities")) == ["id"]


def written_by_server(database: Database, query: str) -> bytes:
    with (
        psycopg.connect(database.dsn()) as connection,
        connection.cursor() as cursor,
        cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)") as copy,
    ):
        return b"".join(copy)
