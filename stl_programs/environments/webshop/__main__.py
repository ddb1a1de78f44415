"""Serve the shop on this machine: for a person in a browser, and for clients of the benchmark.

    python -m stl_programs.environments.webshop [--port 3000] [--items FILE_OR_FOLDER] ...
"""

from __future__ import annotations

import argparse
import sys
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web

from stl_programs.environments.webshop.server import Desk
from stl_programs.environments.webshop.world import WebShop
from stl_programs.errors import StlError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stl_programs.environments.webshop",
                                     description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; this machine only by default")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--items", type=Path, help="items_shuffle*.json, or a folder of all files of the benchmark")
    parser.add_argument("--attributes", type=Path, help="items_ins_v2*.json")
    parser.add_argument("--human", type=Path, help="items_human_ins.json")
    parser.add_argument("--most", type=int, help="only so many products, the first")
    parser.add_argument("--goals", choices=("human", "synthetic"), default="human")
    parser.add_argument("--seed", type=int, default=0, help="of prices, price caps and drawn goals")
    parser.add_argument("--tags", choices=("auto", "rules", "spacy"), default="auto", help="who finds nouns")
    parser.add_argument("--attributes-page", action="store_true", help="products have a page of their attributes")
    args = parser.parse_args()
    if not 0 <= args.port < 65536:
        parser.error(f"--port {args.port}: from 0 to 65535")
    try:
        shop = WebShop(args.items, args.attributes, args.human, most=args.most, goals=args.goals, seed=args.seed,
                       tags=args.tags, attributes_page=args.attributes_page)
    except (StlError, ValueError) as error:
        sys.exit(f"error: {error}")
    hosts = LOOPBACK if _is_loopback(args.host) else None
    print(f"{shop.provenance}\nShop at http://{args.host}:{args.port}/fixed_0 (goals 0 to {len(shop.goals) - 1}); "
          "Ctrl-C ends it", flush=True)
    try:
        web.run_app(Desk(shop, args.seed, hosts).app(), host=args.host, port=args.port, print=None, access_log=None)
    except OSError as error:
        sys.exit(f"error: cannot listen on {args.host}:{args.port}: {error.strerror or error}; choose another --port")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
