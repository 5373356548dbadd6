# SPDX-License-Identifier: Apache-2.0
"""Start, stop and look at a sandbox: ``python -m tests.sandbox up|down|status|env``."""

import argparse
import pathlib
import sys
import time

from tests.sandbox import sandbox as sandboxes


def up(sandbox: sandboxes.Sandbox, _: argparse.Namespace) -> int:
    """Start what is not running and say how to use it."""
    began = time.monotonic()
    try:
        sandbox.up()
    except sandboxes.SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"# up after {time.monotonic() - began:.1f} s; clouds: {', '.join(sandbox.clouds)}")
    print(f"export OS_CLIENT_CONFIG_FILE={sandbox.clouds_file}")
    return 0


def down(sandbox: sandboxes.Sandbox, arguments: argparse.Namespace) -> int:
    """Stop what runs."""
    stopped = sandbox.down(wipe=arguments.wipe)
    print(f"stopped: {', '.join(stopped) or 'nothing was running'}")
    return 0


def status(sandbox: sandboxes.Sandbox, _: argparse.Namespace) -> int:
    """Print a line for each service; 1 if any of them is not healthy."""
    found = sandbox.status()
    for service, pid, healthy in found:
        word = "healthy" if healthy else "down" if pid is None else "unhealthy"
        print(f"{service.name:10} {word:10} pid {pid or '-':<8} {sandbox.url(service.name)}")
    return 0 if all(one.healthy for one in found) else 1


def env(sandbox: sandboxes.Sandbox, _: argparse.Namespace) -> int:
    """Print the clouds.yaml of the last start."""
    if not sandbox.clouds_file.exists():
        print("never started: python -m tests.sandbox up", file=sys.stderr)
        return 1
    print(sandbox.clouds_file.read_text(), end="")
    return 0


def main() -> int:
    """Do what the command line says."""
    commands = {"up": up, "down": down, "status": status, "env": env}
    parser = argparse.ArgumentParser(prog="python -m tests.sandbox", description=__doc__)
    parser.add_argument("command", choices=commands)
    parser.add_argument(
        "--state",
        type=pathlib.Path,
        default=sandboxes.ROOT / ".cache/sandbox",
        help="folder that holds everything of this sandbox (default: %(default)s)",
    )
    parser.add_argument("--port-base", type=int, help="first port (default: a free block)")
    parser.add_argument("--token-seconds", type=int, help="life of a token (default: 3600)")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--second", action=switch, help="a second cloud (default: no)")
    parser.add_argument("--barbican", action=switch, help="Barbican (default: yes)")
    parser.add_argument("--wipe", action="store_true", help="down: forget everything")
    arguments = parser.parse_args()
    sandbox = sandboxes.Sandbox(
        arguments.state,
        token_seconds=arguments.token_seconds,
        second=arguments.second,
        barbican=arguments.barbican,
        port_base=arguments.port_base,
    )
    return commands[arguments.command](sandbox, arguments)


if __name__ == "__main__":
    sys.exit(main())
