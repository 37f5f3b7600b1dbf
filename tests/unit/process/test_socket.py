import os
import socket
import subprocess
import sys

import pytest

from skep.errors.process import BindFailed, PortInUse
from skep.process.socket import bind_listener, group_listens


def test_port_zero_picks_a_free_port_that_already_accepts() -> None:
    with bind_listener("127.0.0.1") as listener:
        with socket.create_connection(listener.getsockname(), timeout=5):
            pass
        assert not listener.get_inheritable()


def test_a_port_in_use_is_told_with_its_number() -> None:
    with bind_listener("127.0.0.1") as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port}") as caught:
            bind_listener("127.0.0.1", port)
        assert caught.value.port == port


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(BindFailed, match=host):
        bind_listener(host, 0)


def test_the_port_dies_with_the_child_when_our_copy_is_closed() -> None:
    listener = bind_listener("127.0.0.1")
    address = listener.getsockname()
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        pass_fds=[listener.fileno()],
        start_new_session=True,
    ) as child:
        listener.close()
        with socket.create_connection(address, timeout=5):
            pass
        assert group_listens(child.pid, address[1])
        assert not group_listens(child.pid, address[1] - 1)
        assert not group_listens(os.getpgrp(), address[1])
        child.stdin.close()
        child.wait()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
