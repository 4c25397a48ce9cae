"""The loopback addresses of a data plane."""

from __future__ import annotations

import socket
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from embedded.node.addresses import Subnet, SubnetError


def test_two_data_folders_have_different_addresses_at_once(tmp_path: Path) -> None:
    one, two = Subnet.lease(tmp_path / "one"), Subnet.lease(tmp_path / "two")
    assert one.number != two.number
    assert not {one.pod("u"), one.node, one.gateway(0)} & {two.pod("u"), two.node, two.gateway(0)}
    one.close()
    two.close()


def test_a_data_folder_has_the_same_addresses_again(tmp_path: Path) -> None:
    first = Subnet.lease(tmp_path)
    before = (first.number, first.pod("a"))
    first.close()
    again = Subnet.lease(tmp_path)
    assert (again.number, again.pod("a")) == before
    again.close()


def test_what_another_process_holds_is_passed_over(tmp_path: Path) -> None:
    first = Subnet.lease(tmp_path)
    number = first.number
    first.close()
    code = (
        f"import socket, sys; s = socket.create_server(('127.{number}.0.1', 10250)); print('held', flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    second = Subnet.lease(tmp_path)
    assert second.number != number
    second.close()
    other.communicate("\n")


def test_pods_have_addresses_of_their_own_away_from_node_and_gateways(tmp_path: Path) -> None:
    subnet = Subnet.lease(tmp_path)
    pods = [subnet.pod(f"uid-{number}") for number in range(3000)]
    assert len(set(pods)) == 3000
    assert subnet.pod("uid-7") == pods[7]
    inside = ip_network(f"127.{subnet.number}.0.0/16")
    for address in map(ip_address, pods):
        assert address in inside
        assert address.packed[2] >= 2
    subnet.release("uid-7")
    assert subnet.pod("uid-7") == pods[7]
    with socket.create_server((pods[0], 0)):
        pass
    subnet.close()


def test_gateways_are_counted(tmp_path: Path) -> None:
    subnet = Subnet.lease(tmp_path)
    assert subnet.gateway(0) == f"127.{subnet.number}.1.1"
    assert subnet.gateway(253) == f"127.{subnet.number}.1.254"
    with pytest.raises(SubnetError, match="at most 254"):
        subnet.gateway(254)
    subnet.close()
