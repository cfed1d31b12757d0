"""A page that Prometheus scrapes, its configuration, and the rules and the dashboard that come with it.

python examples/observability/prometheus_page.py
"""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import httpx2
import uvicorn

from bgruntime import Runtime, task
from bgruntime.integrations.prometheus import alert_rules, grafana_dashboard, metrics_app

SCRAPE = """\
global: {scrape_interval: 15s}
rule_files: [bgruntime_rules.yml]
scrape_configs:
  - job_name: shop
    metrics_path: /metrics
    static_configs: [{targets: ["127.0.0.1:9100"]}]
"""


@task(name="shop.mail")
async def mail(to: str) -> None:
    await asyncio.sleep(0.01)


def write_files() -> None:
    Path("prometheus.yml").write_text(SCRAPE)
    Path("bgruntime_rules.yml").write_text(alert_rules())
    Path("bgruntime_dashboard.json").write_text(grafana_dashboard())  # import it in Grafana
    print("panels:", len(json.loads(grafana_dashboard())["panels"]))


async def main() -> None:
    async with Runtime() as rt:
        await rt.map(mail, ["a@example.org", "b@example.org"])
        listening = socket.create_server(("127.0.0.1", 0))  # 9100 where it is to be scraped
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(metrics_app(rt), log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve([listening]))
        async with httpx2.AsyncClient() as client:
            page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        print("\n".join(line for line in page.splitlines() if line.startswith("bgruntime_jobs_finished")))
        server.should_exit = True
        await serving


if __name__ == "__main__":
    write_files()
    asyncio.run(main())
