"""A wire that makes a bridge far from a network namespace: each frame arrives half a round trip later, in order.

The kernel here has no netem. Two ends of a wire (taps), one in the namespace, one on the bridge; this program reads frames at one
and writes them at the other when they are due. TCP meets the delay as on a real line: its own slow start, its own window.
Frames keep the kernel's segmentation marks, so that a large write passes as one. Needs root and /dev/net/tun.

    python benchmarks/beside/wire.py --namespace far --address 10.0.0.2/24 --bridge br0 --round-trip-ms 50

Prints `ready` when the wire is up, and ends with its standard input. The namespace is the caller's.
"""

import argparse
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

TUNSETIFF, TUNSETVNETHDRSZ, TUNSETOFFLOAD = 0x400454CA, 0x400454D8, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
HEADER_BYTES = 10
FRAME_BYTES_MAX = 65536 + HEADER_BYTES + 64
FRAMES_AT_ONCE = 64
UNDER_WAY_BYTES_MAX = 64 << 20
"""As a router's queue: a frame that finds it full is lost, and TCP sends it again."""


def make_tap(name: str) -> int:
    """Return the descriptor of a new tap that takes and gives frames as the kernel has them."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(tap, TUNSETVNETHDRSZ, struct.pack("i", HEADER_BYTES))
    fcntl.ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return tap


class Lane:
    """One direction: what was read at `source`, in order, until it is due at `target`."""

    def __init__(self, source: int, target: int, delay_s: float) -> None:
        self.source, self._target, self._delay_s = source, target, delay_s
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self.lost = 0

    def take(self) -> None:
        """Read what is there."""
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame = os.read(self.source, FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            if self._bytes + len(frame) > UNDER_WAY_BYTES_MAX:
                self.lost += 1
                continue
            self._bytes += len(frame)
            self._under_way.append((time.monotonic() + self._delay_s, frame))

    def give(self) -> float | None:
        """Write what is due. Returns the seconds until the next is, or None."""
        while self._under_way:
            due, frame = self._under_way[0]
            if (left := due - time.monotonic()) > 0:
                return left
            self._under_way.popleft()
            self._bytes -= len(frame)
            try:
                os.write(self._target, frame)
            except BlockingIOError:
                self.lost += 1
        return None


def carry(near: int, far: int, round_trip_s: float) -> int:
    """Carry frames both ways until standard input ends. Returns how many were lost."""
    lanes = {near: Lane(near, far, round_trip_s / 2), far: Lane(far, near, round_trip_s / 2)}
    stdin = sys.stdin.fileno()
    while True:
        waits = [left for lane in lanes.values() if (left := lane.give()) is not None]
        readable, _, _ = select.select((*lanes, stdin), (), (), min(waits, default=None))
        for descriptor in readable:
            if descriptor == stdin and not os.read(stdin, 1):
                return sum(lane.lost for lane in lanes.values())
            if descriptor in lanes:
                lanes[descriptor].take()


def ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--namespace", required=True, help="where the far end is; the caller made it")
    parser.add_argument("--address", required=True, metavar="IP/PREFIX", help="the far end's own")
    parser.add_argument("--bridge", required=True, help="where the near end is")
    parser.add_argument("--round-trip-ms", type=float, default=50.0)
    given = parser.parse_args()
    names = [f"skw{os.getpid()}{end}" for end in "nf"]
    near, far = map(make_tap, names)
    ip("link", "set", names[0], "master", given.bridge, "up")
    ip("link", "set", names[1], "netns", given.namespace)
    ip("-n", given.namespace, "addr", "add", given.address, "dev", names[1])
    for device in (names[1], "lo"):
        ip("-n", given.namespace, "link", "set", device, "up")
    print("ready", flush=True)
    print("lost", carry(near, far, given.round_trip_ms / 1000), flush=True)


if __name__ == "__main__":
    main()
