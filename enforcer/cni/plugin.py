"""The agent's answers to CNI calls: ADD returns when the pod's policy is in force.

The programs go on the pod's interface first, in every start mode: they let nothing through until
the endpoint is written. Then the attachment is noted, which wakes the agent's loop, and the call
waits for what the mode promises (`ENOUGH`). CHECK asks for just that. Only pods of strict
namespaces are refused when something does not work. Any other pod starts anyway, closed until it is
known, and CHECK accepts it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from enforcer.agent.attachments import Attachments
from enforcer.agent.state import Board, NodeState
from enforcer.cni.call import Call, CallRefused, CniCommand, Code, SandboxPod, nothing, previous
from enforcer.datapath import attach, links
from enforcer.datapath.kernel import KernelError
from enforcer.policy.changes import Attachment
from enforcer.policy.modes import StartMode
from generators.errors import RingfenceError
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")


@dataclass(frozen=True, slots=True)
class Plugin:
    """The agent's side of the CNI plugin."""

    pins: Path
    board: Board
    attachments: Attachments
    mode: StartMode
    is_strict: Callable[[str], bool]
    """Whether pods of a namespace may only start under enforcement."""

    def answer(self, call: Call, netns: int | None) -> bytes:
        """The answer to one call; raises CallRefused."""
        match call.command:
            case CniCommand.ADD:
                return self._add(call, netns)
            case CniCommand.DEL:
                return self._delete(call)
            case CniCommand.CHECK:
                return self._check(call)
            case CniCommand.GC:
                return self._collect(call)
            case CniCommand.STATUS:
                return self._status()

    def _add(self, call: Call, netns: int | None) -> bytes:
        addresses = call.addresses
        if call.sandbox is None:
            self._release(call, netns)
            return previous()
        strict = self.is_strict(call.sandbox.namespace)
        try:
            interface = _host_side(call, netns)
            self._enforce(call, call.sandbox, interface, addresses)
        except RingfenceError as error:
            told = {"pod": call.sandbox.key, "error": str(error)}
            event(log, "cni_add_unenforced", logging.WARNING, refused=strict, **told)
            if strict:
                raise CallRefused(
                    Code.TRY_AGAIN,
                    f"ringfence: the policy of pod {call.sandbox.key} is not in force",
                    str(error),
                ) from error
        return previous()

    def _enforce(
        self,
        call: Call,
        sandbox: SandboxPod,
        interface: int,
        addresses: tuple[str, ...],
    ) -> None:
        """Close the interface, tell the agent of it, and wait until it is open for the right."""
        attach.attach(self.pins, interface)
        attachment = Attachment(
            call.container, sandbox.namespace, sandbox.pod, sandbox.uid, interface, addresses
        )
        self.attachments.put(attachment)
        self._wait(attachment, call.seconds)
        event(log, "cni_added", pod=attachment.key, container=call.container, ifindex=interface)

    def _wait(self, attachment: Attachment, seconds: float) -> None:
        """Return when what the start mode promises holds; NotYet if it does not in time."""
        enough = ENOUGH[self.mode]
        if self.board.wait(lambda now: enough(now, attachment), seconds) is None:
            raise NotYet(attachment, self.board.state, seconds)

    def _release(self, call: Call, netns: int | None) -> None:
        """A container that is not a pod is not enforced, even if the watcher took it for one."""
        try:
            interface = _host_side(call, netns)
            if attach.is_ours(self.pins, interface):
                attach.detach(self.pins, interface)
        except RingfenceError as error:
            event(log, "cni_not_released", logging.WARNING, error=str(error))

    def _delete(self, call: Call) -> bytes:
        gone = self.attachments.remove(call.container)
        if gone is not None:
            event(log, "cni_deleted", pod=gone.key, container=call.container)
        return nothing()

    def _collect(self, call: Call) -> bytes:
        """What GC does not list stays: the removal of an interface is noticed anyway."""
        valid = call.valid_containers
        if valid is not None:
            gone = self.attachments.retain(valid)
            event(log, "cni_collected", attachments=len(gone))
        return nothing()

    def _check(self, call: Call) -> bytes:
        """Whether ADD's promise still holds: for pods of strict namespaces what the mode promises,
        for others that the programs it put on their interfaces are there.
        """
        sandbox = call.sandbox
        if sandbox is None:
            return nothing()
        strict = self.is_strict(sandbox.namespace)
        known = [a for a in self.attachments.snapshot() if a.container == call.container]
        if not known and not strict:
            return nothing()
        if not known:
            raise _broken(sandbox, f"container {call.container} was never added")
        attachment = known[0]
        try:
            attached = attach.attached(self.pins, attachment.ifindex)
            if attached is None:
                raise _broken(sandbox, f"the programs are not on ifindex {attachment.ifindex}")
            if strict:
                self._wait(attachment, call.seconds)
        except (attach.AttachError, KernelError, NotYet) as error:
            raise _broken(sandbox, str(error)) from error
        return nothing()

    def _status(self) -> bytes:
        state = self.board.state
        if state.ready:
            return nothing()
        raise CallRefused(
            Code.NOT_AVAILABLE,
            "ringfence: the agent knows no policies yet",
            "; ".join(error for _, error in sorted(state.errors.items())) or "it has just started",
        )


class NotYet(RingfenceError):
    """The agent has not brought an attachment into force in time."""

    exit_code = 1

    def __init__(self, attachment: Attachment, state: NodeState, seconds: float) -> None:
        reason = state.unenforced.get(attachment.key)
        if reason is None:
            heard = any(pod.key == attachment.key for pod in state.pods.values())
            reason = "another pod of that name is" if heard else "the agent does not know it"
        faults = "; ".join(error for _, error in sorted(state.errors.items()))
        super().__init__(
            f"pod {attachment.key} (uid {attachment.uid or 'unknown'}) on ifindex "
            f"{attachment.ifindex} is not enforced after {seconds:g} s: {reason}"
            + (f"; {faults}" if faults else "")
        )


class NoInterface(RingfenceError):
    """The pod does not hang on a veth of this node."""

    exit_code = 1


def in_force(state: NodeState, attachment: Attachment) -> bool:
    """Whether the policy of just this pod holds on just this interface."""
    pod = state.pods.get(attachment.ifindex)
    if pod is None or state.in_force.get(attachment.key) != attachment.ifindex:
        return False
    same = not pod.uid or not attachment.uid or pod.uid == attachment.uid
    return same and _holds(state, attachment)


def is_guarded(state: NodeState, attachment: Attachment) -> bool:
    """Whether the policy holds, or what the start mode grants until the pod is known."""
    if in_force(state, attachment):
        return True
    known = attachment.ifindex in state.pods or attachment.key in state.unenforced
    return not known and _holds(state, attachment)


def is_taken_up(state: NodeState, attachment: Attachment) -> bool:
    """Whether the pod may use its own addresses, or nothing because its namespace is not known."""
    return is_guarded(state, attachment) or attachment.namespace not in state.namespaces


ENOUGH: Mapping[StartMode, Callable[[NodeState, Attachment], bool]] = {
    StartMode.STRICT: in_force,
    StartMode.TENANT_DEFAULT: is_guarded,
    StartMode.OPEN: is_taken_up,
}
"""What holds when ADD has returned."""


def _holds(state: NodeState, attachment: Attachment) -> bool:
    """Whether the kernel has an endpoint with these addresses there."""
    entry = state.tables.endpoints.get(attachment.ifindex)
    return entry is not None and {*attachment.ips} <= {*entry.ip4, *entry.ip6}


def _host_side(call: Call, netns: int | None) -> int:
    """The host-side interface: by the pod's network namespace, else by the result before us."""
    with links.netlink() as asked:
        found = asked.host_side(netns, call.interface) if netns is not None else None
        if found is not None:
            return found.ifindex
        named = [link for link in asked.links() if link.name in call.host_interfaces]
    veths = [link.ifindex for link in named if links.is_of_pod(link)]
    if netns is not None or len(veths) != 1:
        kinds = ", ".join(f"{link.name} ({link.kind or 'hardware'})" for link in named)
        raise NoInterface(
            f"{call.interface} of container {call.container} does not lead to a veth of this "
            f"node (prevResult names {kinds or 'no interface of the node'}); ringfence enforces "
            "pods behind veths"
        )
    return veths[0]


def _broken(sandbox: SandboxPod, why: str) -> CallRefused:
    return CallRefused(
        Code.NOT_ENFORCED, f"ringfence: the policy of pod {sandbox.key} is not in force", why
    )
