"""Write the pictures of the console that README and docs show: `nox -s screenshots`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from demo.content import fill_database, fill_directory
from tests.judges.serving import ConsoleServer
from tests.server.client import Client
from tests.servers import PostgresServer
from tests.servers.debian import CHROMIUM, require
from tests.waiting import wait_until_blocking

IMAGES = Path(__file__).parents[2] / "docs" / "images"
QUERY = """\
select country, count(*) as orders, sum(amount) as amount
from customers join orders on orders.customer_id = customers.id
group by country order by amount desc"""
# Takes minutes.
SLOW = "select count(*) from generate_series(1, 300000) a, generate_series(1, 300000) b"
WIDTH, HEIGHT = 1100, 720


def main() -> None:
    """Start the servers and take each picture."""
    require(CHROMIUM)
    IMAGES.mkdir(exist_ok=True)
    with PostgresServer() as postgres, ConsoleServer() as server:
        password = fill_database(postgres)
        fill_directory(server.data / "reports")
        shop = {
            "host": "127.0.0.1",
            "port": postgres.port,
            "database": "shop",
            "user": "analyst",
            "password": password,
        }
        server.admin.create("shop", "postgresql", **shop)
        server.admin.create("reports", path=str(server.data / "reports"))
        server.admin("POST", "/sources/reports/pause", {"reason": "Moves to another disk today"})
        fetch(server.admin, "public.orders", QUERY)
        fetch(server.admin, "public.order")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=str(CHROMIUM), args=["--no-sandbox", "--hide-scrollbars"]
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(f"{server.url}#token={server.token}")
            take(page, "sources", "", height=330)
            take(page, "form", "add/postgresql")
            take(page, "item", "item/shop?item=public.orders", height=520)
            take(page, "query", "query?source=shop", run=QUERY)
            running = fetch(server.admin, "public.customers", SLOW)
            page.emulate_media(color_scheme="dark")
            take(page, "jobs", "jobs", height=330)
            server.admin("DELETE", f"/jobs/{running}")
            page.emulate_media(color_scheme="light")
            take(page, "audit", "audit?source=shop", height=HEIGHT)
            browser.close()


def fetch(client: Client, *items: str) -> str:
    """Start a job that fetches items of the database; return its id."""
    workspace = client("POST", "/workspaces", {"sources": ["shop"]}).json["id"]
    body = {"items": [{"source": "shop", "item": item} for item in items], "wait": False}
    job: str = client("POST", f"/workspaces/{workspace}/fetch", body).json["id"]
    if SLOW not in items:
        wait_until_blocking(lambda: client("GET", f"/jobs/{job}").json["state"] != "running")
    return job


def take(page: Any, name: str, path: str, *, run: str = "", height: int = HEIGHT) -> None:
    """Write the picture of one page of the console, after a query is run if one is given."""
    page.evaluate("path => { location.hash = `#/${path}` }", path)
    if run:
        page.get_by_label("Query", exact=True).fill(run)
        page.keyboard.press("Control+Enter")
        page.get_by_text(re.compile(r"rows in")).wait_for()
    page.wait_for_timeout(
        2000
    )  # until the page is as it stays; the events of a job come each second
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height}
    page.screenshot(path=IMAGES / f"console-{name}.png", clip=clip)


if __name__ == "__main__":
    main()
