# SPDX-License-Identifier: Apache-2.0
"""The points of flows: before and after each atom's execute and revert, and when its end was noted."""

from collections.abc import Iterator
from typing import Any

from taskflow import flow as flow_base
from taskflow import states, task

from ciming import points

NOTED = {states.SUCCESS: "execute", states.REVERTED: "revert"}


def names(flow: flow_base.Flow) -> list[str]:
    """What the atoms of a flow do, as its points call it."""
    return [f"{flow.name} {_short(atom.name)} {act}" for atom in _atoms(flow) for act in _acts(atom)]


def watch(engine: Any, flow: flow_base.Flow, of: str) -> None:
    """Let a flow that was loaded reach its points.

    :param of: whose flow it is, for the trace
    """
    if not points.FOLDER:
        return
    for atom in _atoms(flow):
        for act in _acts(atom):
            name = f"{flow.name} {_short(atom.name)} {act}"
            setattr(atom, act, points.between(name, getattr(atom, act), of))

    def noted(state: str, details: dict[str, Any]) -> None:
        if state in NOTED:
            points.reached(f"noted {flow.name} {_short(details['task_name'])} {NOTED[state]}", of)

    engine.atom_notifier.register(engine.atom_notifier.ANY, noted)


def _atoms(flow: flow_base.Flow) -> Iterator[task.Task]:
    for node, _ in flow.iter_nodes():
        if isinstance(node, flow_base.Flow):
            yield from _atoms(node)
        else:
            yield node


def _acts(atom: task.Task) -> list[str]:
    """A task without a revert of its own is only noted as reverted."""
    return ["execute", "revert"] if type(atom).revert is not task.Task.revert else ["execute"]


def _short(name: str) -> str:
    return name.rpartition(".")[2]
